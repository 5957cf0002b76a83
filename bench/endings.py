"""Check how jobs end while their workers are killed: ``python -m bench.endings``.

Two workers with two children each run a hundred jobs. The run kills children and whole workers, and
restarts the workers; the seed determines the victims and the times. A stock client follows every
job. At the end each job has exactly one ending, which agrees with the state that Celery has stored.

The broker loses a job if its worker is killed while the worker receives the message: before the
worker records that it has the message, or between the acknowledgement and the job's first event.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import re
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil
import redis
import socketio
from celery import states
from celery.result import AsyncResult

from bench.ending_jobs import LONGEST, again, app, once
from bench.servers import RestartableServer, RestartableValkey
from bench.soak.run import sending
from jobcast.celery.enqueue import OWNER_HEADER
from jobcast.tokens import mint
from tests.support import SECRET, Process, eventually, running

LEASE: Final = 3  # seconds
LOST_AFTER: Final = 40  # seconds; longer than another worker needs to take over a job
MAX_ACTIVE: Final = 16  # jobs
OUTCOMES: Final = ("ok", "ok", "ok", "fail", "retry")
END_TIMEOUT: Final = 120.0  # seconds for the last ending


@dataclass
class Options:
    jobs: int = 100
    seed: int = 1
    keep: bool = False


@dataclass
class Job:
    """A job, and the received events with their times."""

    id: str
    outcome: str
    runs_again: bool
    events: list[tuple[float, str, dict[str, Any]]] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        return bool(self.events) and self.events[-1][1] in ("job_complete", "job_error")

    @property
    def ending(self) -> str:
        _, name, data = self.events[-1]
        return "complete" if name == "job_complete" else f"error: {data['reason']}"

    @property
    def pid(self) -> int | None:
        """The process that runs the job, according to the job's log."""
        for _, name, data in reversed(self.events):
            if name in ("job_complete", "job_error"):
                return None
            if name == "job_status" and data["status"] != "started":
                return None
            if name == "job_log" and (match := re.fullmatch(r"pid (\d+)", data["message"])):
                return int(match[1])
        return None

    def detected(self, since: float) -> tuple[float, str] | None:
        """Return the seconds until followers received the loss of the process, and its event."""
        for at, name, data in self.events:
            if at > since and name == "job_error":
                return at - since, "error"
            if at > since and name == "job_status":
                return at - since, data["status"]
        return None

    @property
    def is_waiting(self) -> bool:
        """Whether no worker has started the job, according to its events."""
        statuses = [data["status"] for _, name, data in self.events if name == "job_status"]
        return not self.ended and statuses[-1:] in (["queued"], ["retrying"])

    @property
    def history(self) -> str:
        """The received events in one line."""
        words = []
        for _, name, data in self.events:
            if name != "job_progress":
                words.append(str(data.get("status") or data.get("message") or name))
        return ", ".join(words)

    def problems(self, stored: AsyncResult[Any]) -> Iterator[str]:
        """Yield the faults of the received events."""
        has_ended = False
        for _, name, data in self.events:
            begins = name == "job_status" and data["status"] in ("queued", "started")
            if has_ended and not begins:
                yield f"{name} arrived after the end"
            has_ended = name in ("job_complete", "job_error")
        if not has_ended:
            yield "the job has no end"
            return
        _, name, data = self.events[-1]
        ending = data.get("reason", "complete")
        if stored.state not in POSSIBLE_STATES[ending]:
            yield f"the job ended with {ending}, but Celery stored {stored.state}"
        expected = "failure" if self.outcome == "fail" else "complete"
        if ending != expected and (ending != "worker_lost" or self.runs_again):
            yield f"the job ended with {ending} instead of {expected}"


#: The states that Celery may store for each ending. After the kill of a whole worker Celery stores
#: nothing, and the state before stays.
POSSIBLE_STATES: Final = {
    "complete": {states.SUCCESS},
    "failure": {states.FAILURE},
    "worker_lost": {states.FAILURE, states.PENDING, states.RETRY},
}


@dataclass
class Report:
    options: Options
    folder: Path
    faults: Counter[str] = field(default_factory=Counter)
    endings: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    detections: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.problems

    def table(self) -> str:
        rows = [
            ("seed", str(self.options.seed)),
            *((f"fault: {kind}", str(count)) for kind, count in sorted(self.faults.items())),
            ("jobs", str(self.options.jobs)),
            ("runs", str(self.runs)),
            *((f"ended with {kind}", str(count)) for kind, count in sorted(self.endings.items())),
        ]
        for kind, seconds in sorted(self.detections.items()):
            times = f"{statistics.median(seconds):.2f} s, {max(seconds):.2f} s"
            rows.append((f"{kind} ({len(seconds)} jobs): median, worst", times))
        rows.append(("missing, repeated or wrong endings", str(len(self.problems))))
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {value:>16}" for name, value in rows)


class Run:
    """One run, from sending the first job to the end of the last one."""

    def __init__(
        self, options: Options, report: Report, broker: RestartableValkey, server: RestartableServer
    ) -> None:
        self._report = report
        self._rng = random.Random(f"endings {options.seed}")
        self._broker = broker
        self._server = server
        self._jobs = {job.id: job for job in self._random_jobs(options)}
        self._killed: list[tuple[float, str, Job]] = []
        self._workers: dict[str, Process] = {}
        self._all_sent = asyncio.Event()  # set when the kills stop
        self._client = socketio.AsyncClient(handle_sigint=False)
        self._client.on("*", self._record)

    def _random_jobs(self, options: Options) -> Iterator[Job]:
        for n in range(options.jobs):
            outcome = self._rng.choice(OUTCOMES)
            yield Job(f"job-{options.seed}-{n}", outcome, runs_again=self._rng.random() < 0.5)

    async def run(self, stack: ExitStack) -> None:
        stack.callback(self._end_workers)
        for name in ("one", "two"):
            self._workers[name] = self._worker(name)
        await eventually(lambda: all(map(self._is_ready, self._workers)), "ready workers")
        token = mint(SECRET, "chaos", jobs=["*"])
        url = f"http://127.0.0.1:{self._server.port}"
        await self._client.connect(url, auth={"token": token}, transports=["websocket"])
        killing = asyncio.create_task(self._kill())
        try:
            await self._send()
            self._all_sent.set()
            await killing
            await self._wait_for_last_ending()
        finally:
            killing.cancel()
            await asyncio.gather(killing, return_exceptions=True)
            await self._client.disconnect()
        self._examine()

    async def _wait_for_last_ending(self) -> None:
        """Wait until every job has ended, at most ``END_TIMEOUT`` seconds."""
        deadline = time.monotonic() + END_TIMEOUT
        while time.monotonic() < deadline and not all(job.ended for job in self._jobs.values()):
            await asyncio.sleep(0.1)

    async def _record(self, event: str, data: dict[str, Any]) -> None:
        if event.startswith("job_"):
            self._jobs[data["job_id"]].events.append((time.monotonic(), event, data))

    async def _send(self) -> None:
        for job in self._jobs.values():
            await eventually(lambda: self._active < MAX_ACTIVE, "ended job", END_TIMEOUT)
            task = again if job.runs_again else once
            seconds = self._rng.uniform(0.1, LONGEST)
            await asyncio.to_thread(
                task.apply_async, (seconds, job.outcome), task_id=job.id, queue="endings",
                headers={OWNER_HEADER: "chaos"},
            )  # fmt: skip
            answer = await self._client.call("join_job", {"job_id": job.id}, timeout=END_TIMEOUT)
            assert answer["ok"], answer

    @property
    def _active(self) -> int:
        return sum(bool(job.events) and not job.ended for job in self._jobs.values())

    async def _kill(self) -> None:
        while not self._all_sent.is_set():
            await asyncio.sleep(self._rng.uniform(0.3, 1.2))
            name = self._rng.choice(sorted(self._workers))
            if self._rng.random() < 0.2:
                await self._kill_worker(name)
            else:
                self._kill_child(name)

    def _kill_child(self, name: str) -> None:
        children = psutil.Process(self._workers[name].popen.pid).children()
        if children:
            child = self._rng.choice(sorted(children, key=lambda child: child.pid))
            with suppress(ProcessLookupError):  # some jobs kill their own process
                os.kill(child.pid, signal.SIGKILL)
                self._record_kill("child killed", {child.pid})

    async def _kill_worker(self, name: str) -> None:
        worker = self._workers[name]
        children = {child.pid for child in psutil.Process(worker.popen.pid).children()}
        self._record_kill("worker killed", children)
        worker.kill()
        worker.log_path.rename(worker.log_path.with_suffix(f".{self._report.faults.total()}"))
        self._workers[name] = self._worker(name)
        await eventually(lambda: self._is_ready(name), "ready worker")

    def _is_ready(self, name: str) -> bool:
        return f"{name}@here ready" in self._workers[name].log

    def _end_workers(self) -> None:
        for worker in self._workers.values():
            worker.kill()

    def _record_kill(self, kind: str, pids: set[int]) -> None:
        self._report.faults[kind] += 1
        now = time.monotonic()
        self._killed += [(now, kind, job) for job in self._jobs.values() if job.pid in pids]

    def _worker(self, name: str) -> Process:
        return Process(
            [
                sys.executable, "-m", "celery", "-A", "bench.ending_jobs", "worker",
                "--loglevel=info", "-n", f"{name}@here", "-Q", "endings", "--pool=prefork",
                "--concurrency=2", "--without-mingle", "--without-gossip",
            ],
            self._report.folder / f"worker-{name}.log",
            {
                "JOBCAST_URL": self._broker.url, "CELERY_BROKER_URL": self._broker.url,
                "JOBCAST_LEASE": str(LEASE),
            },
        )  # fmt: skip

    def _examine(self) -> None:
        with redis.Redis.from_url(self._broker.url) as client:
            stored_messages = b"".join([*client.lrange("endings", 0, -1), *client.hvals("unacked")])
        for job in self._jobs.values():
            if job.is_waiting and job.id.encode() not in stored_messages:
                self._report.endings["nothing: killed while a worker received it"] += 1
                continue
            stored: AsyncResult[Any] = AsyncResult(job.id, app=app)
            self._report.problems += [
                f"{job.id}: {problem} ({job.history})" for problem in job.problems(stored)
            ]
            self._report.endings[job.ending if job.ended else "nothing"] += 1
            self._report.runs += sum(
                name == "job_status" and data["status"] == "started" for _, name, data in job.events
            )
        for at, kind, job in self._killed:
            if (detection := job.detected(at)) is not None:
                seconds, event = detection
                self._report.detections[f"{kind}, reported as {event}"].append(seconds)


def endings(options: Options) -> Report:
    """Run the jobs. The report's folder exists only after a failure or with ``keep``."""
    report = Report(options, Path(tempfile.mkdtemp(prefix="jobcast-endings-")))
    asyncio.run(_run(options, report))
    if report.ok and not options.keep:
        shutil.rmtree(report.folder)
    return report


async def _run(options: Options, report: Report) -> None:
    with ExitStack() as stack:
        broker = stack.enter_context(running(RestartableValkey(report.folder / "valkey")))
        broker.ready()
        environ = {
            "JOBCAST_URL": broker.url,
            "JOBCAST_JWT_SECRET": SECRET,
            "JOBCAST_LEASE": str(LEASE),
            "JOBCAST_LOST_AFTER": str(LOST_AFTER),
        }
        server = stack.enter_context(
            running(RestartableServer(report.folder / "realtime.log", environ))
        )
        await asyncio.to_thread(server.ready)
        stack.enter_context(sending(app, broker.url, broker.url))
        await Run(options, report, broker, server).run(stack)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.endings")
    parser.add_argument("--jobs", type=int, default=Options.jobs)
    parser.add_argument("--seed", type=int, default=Options.seed)
    parser.add_argument("--keep", action="store_true", help="keep the logs of a successful run")
    report = endings(Options(**vars(parser.parse_args())))
    print(report.table())
    for problem in report.problems:
        print(problem)
    if report.folder.exists():
        print(f"\nlogs: {report.folder}")
    sys.exit(0 if report.ok else 1)


if __name__ == "__main__":
    main()
