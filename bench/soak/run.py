"""One run: jobs, clients, faults and the examination of the transcripts."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import (
    AsyncIterator,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from multiprocessing import parent_process
from pathlib import Path
from typing import Any, Final, Protocol

from celery import Celery

from bench.servers import RestartableServer, RestartableValkey
from bench.soak.client import Client
from bench.soak.faults import FaultInjector, FaultKinds
from bench.soak.followed_job import SentJob, format_transcript
from bench.soak.job_tracker import JobTracker
from bench.soak.jobs import Script, app, has_ended, work
from bench.soak.process_faults import KILL_REALTIME, ProcessFaults
from bench.soak.rabbitmq_store import RabbitStore
from bench.soak.redis_stores import RedisCluster, RedisSentinel, StandaloneRedis
from bench.soak.report import Options, Problem, Report, Transport, describe
from bench.soak.socketio_client import SocketIOClient
from bench.soak.sse_client import SSEClient
from bench.soak.transcript import examine, examine_order, late_lines_after_end
from jobcast.publishing import runtime
from jobcast.tokens import mint
from tests.support import SECRET, Process, answers, eventually, running
from tests.support.proxy import Proxy

OWNER: Final = "soak"
JOB_TIMEOUT: Final = 600.0  # seconds of a job, faults included
SILENCE_TIMEOUT: Final = 120.0  # seconds without any event, after which clients stop waiting
READER_JOBS: Final = 100  # jobs at a time, fewer than a connection may follow
SSE_EVERY: Final = 3  # every third client reads event streams
WORKERS: Final = 2  # so that another worker may run a retry


class Store(Protocol):
    """The servers of a transport."""

    url: str
    port: int | None  # of a single server, which a proxy can front

    def ready(self) -> None: ...
    def kinds(
        self, rng: random.Random, jobs: JobTracker, all_ready: Callable[[], bool]
    ) -> FaultKinds: ...
    def kill(self) -> None: ...


STORES: Final[Mapping[Transport, Callable[[Path], Store]]] = {
    "redis": StandaloneRedis,
    "sentinel": RedisSentinel,
    "cluster": RedisCluster,
    "rabbitmq": RabbitStore,
}


class Soak:
    """One run, on running servers."""

    def __init__(
        self,
        options: Options,
        report: Report,
        proxies: Sequence[Proxy],
        tracker: JobTracker,
        log: Callable[[str], None],
    ) -> None:
        self._options = options
        self._report = report
        self._log = log
        self._rng = random.Random(f"soak {options.seed}")
        self._jobs: list[SentJob] = []
        self._tracker = tracker
        self._until = time.monotonic() + options.seconds
        self._is_repaired = False
        self._urls = [proxy.url for proxy in proxies]
        self._clients = [self._client(number) for number in range(options.clients)]

    async def run(self, faults: Sequence[FaultInjector], resets: FaultInjector) -> None:
        """Send jobs until the run's time is over and all damage is repaired.

        Args:
            faults: end early enough for the last jobs to run without faults.
            resets: reset clients' connections until the last job ends.
        """
        async with background(client.run() for client in self._clients):
            async with background([resets.run(math.inf)]), asyncio.TaskGroup() as group:
                group.create_task(self._inject(faults))
                for _ in range(self._options.jobs):
                    group.create_task(self._send_jobs())
            self._log("the last job has ended")
            for client in self._clients:
                client.forget(self._tracker.incomplete)
            await self._wait_for_ends(self._clients)
            self._log("the clients have received every end, or no event for a long time")
        reader = self._record_reader()
        async with background([reader.run()]):
            complete = [job for job in self._jobs if job.job_id not in self._tracker.incomplete]
            for begin in range(0, len(complete), READER_JOBS):
                for job in complete[begin : begin + READER_JOBS]:
                    reader.follow(job)
                await self._wait_for_ends([reader])
        self._clients.append(reader)

    def examine(self) -> None:
        """Examine all transcripts, and fill the report."""
        counts = self._report.counts
        counts["jobs"] = len(self._jobs)
        counts["jobs with events lost by the store"] = len(self._tracker.incomplete)
        counts["transcripts"] = sum(len(client.followed) for client in self._clients)
        names = (
            "events checked", "repeats in snapshots after a join", "records started anew",
            "jobs started without queued",
        )  # fmt: skip
        counts.update(dict.fromkeys(names, 0))
        after_end = self._late_lines_after_ends()
        for client in self._clients:
            for job_id, followed in client.followed.items():
                if job_id in self._tracker.incomplete:
                    result = examine_order(followed.connections)
                else:
                    result = examine(followed.connections, followed.job.script, after_end[job_id])
                counts["events checked"] += result.events
                counts["repeats in snapshots after a join"] += result.announced
                counts["records started anew"] += max(0, result.epochs - 1)
                counts["jobs started without queued"] += result.started_without_queued
                for finding in result.findings:
                    self._report.problems.append(Problem(client.name, job_id, finding))
                if result.findings:
                    path = self._report.folder / f"{client.name}-{job_id}.txt"
                    path.write_text(format_transcript(followed))

    def _late_lines_after_ends(self) -> defaultdict[str, set[str]]:
        """Return the late lines of each job that any client received after the job's end."""
        found = defaultdict[str, set[str]](set)
        for client in self._clients:
            for job_id, followed in client.followed.items():
                found[job_id].update(late_lines_after_end(followed.connections))
        return found

    def _client(self, number: int) -> Client:
        # A token for all jobs allows a client to follow a job without a record.
        jobs = ["*"] if number % 2 == 0 else []
        kind = SSEClient if number % SSE_EVERY == 0 else SocketIOClient
        return kind(
            f"client-{number}", mint(SECRET, OWNER, jobs=jobs, ttl=24 * 3600), self._urls,
            random.Random(f"client {self._options.seed} {number}"), self._report.counts,
        )  # fmt: skip

    def _record_reader(self) -> Client:
        """Return a client that reads the stored records after the run."""
        rng = random.Random(f"reader {self._options.seed}")
        token = mint(SECRET, OWNER, ttl=24 * 3600)
        return SocketIOClient("reader", token, self._urls, rng, Counter(), leave_probability=1)

    async def _inject(self, faults: Sequence[FaultInjector]) -> None:
        quiet_time = min(8.0, self._options.seconds / 5)
        async with asyncio.TaskGroup() as group:
            for injector in faults:
                group.create_task(injector.run(self._until - quiet_time))
        # A late repair extends the run, so that the quiet time is the same.
        self._until = max(self._until, time.monotonic() + quiet_time)
        self._is_repaired = True

    async def _send_jobs(self) -> None:
        while not self._is_repaired or time.monotonic() < self._until:
            number = len(self._jobs) + 1
            seed = self._options.seed * 1_000_000 + number
            # The process id keeps the jobs of two runs apart.
            job = SentJob(f"soak-{seed}-{os.getpid()}", Script.of(seed))
            self._jobs.append(job)
            self._tracker.start(job.job_id)
            share = max(2, len(self._clients) // 4)
            for client in self._rng.sample(self._clients, min(share, len(self._clients))):
                client.follow(job)
            await asyncio.to_thread(send, job)
            async with asyncio.timeout(JOB_TIMEOUT):
                while not await asyncio.to_thread(has_ended, job.job_id):
                    await asyncio.sleep(0.05)
            self._tracker.end(job.job_id)

    async def _wait_for_ends(self, clients: Sequence[Client]) -> None:
        """Wait until each client has the end of each job, or no events arrive any more."""
        began = time.monotonic()
        while any(client.waiting for client in clients):
            last_received = max([began, *(client.last_received for client in clients)])
            if time.monotonic() - last_received > SILENCE_TIMEOUT:
                return
            await asyncio.sleep(0.05)


def send(job: SentJob) -> None:
    signature = work.owned_by(OWNER)
    signature.apply_async(args=[job.script.seed], task_id=job.job_id)


@asynccontextmanager
async def background(coroutines: Iterable[Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """Run coroutines within the context; the first failure cancels the context."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    parent = asyncio.current_task()
    assert parent is not None
    errors: list[BaseException] = []

    def check(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            errors.append(error)
            parent.cancel()

    for task in tasks:
        task.add_done_callback(check)
    try:
        yield
    except asyncio.CancelledError:
        if errors:
            raise errors[0] from None
        raise
    finally:
        while pending := [task for task in tasks if not task.done()]:
            # Python 3.11's wait_for swallows a cancellation that arrives with the result.
            for task in pending:
                task.cancel()
            await asyncio.wait(pending, timeout=1)


@contextmanager
def sending(app: Celery, broker: str, events: str) -> Iterator[None]:
    """Configure this process to send jobs of an app."""
    former = os.environ.get("JOBCAST_URL")
    os.environ["JOBCAST_URL"] = events
    app.conf.update(broker_url=broker, result_backend=broker)
    runtime.close()
    try:
        yield
    finally:
        runtime.close()
        app.close()
        if former is None:
            del os.environ["JOBCAST_URL"]
        else:
            os.environ["JOBCAST_URL"] = former


@contextmanager
def run_log(folder: Path) -> Iterator[Callable[[str], None]]:
    """Write a log file with the steps of this process and jobcast's log records."""
    handler = logging.FileHandler(folder / "soak.log")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger = logging.getLogger("bench.soak")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    loggers = logger, logging.getLogger("jobcast")
    for one in loggers:
        one.addHandler(handler)
    try:
        yield lambda text: logger.info("%.3f %s", time.monotonic(), text)
    finally:
        for one in loggers:
            one.removeHandler(handler)
        handler.close()


async def _run(options: Options, report: Report) -> None:
    folder = report.folder
    async with AsyncExitStack() as stack:
        log = stack.enter_context(run_log(folder))
        # Celery has a separate broker, which works while the transport is down.
        broker = stack.enter_context(running(RestartableValkey(folder / "broker")))
        store = STORES[options.transport](folder)
        stack.callback(store.kill)
        await asyncio.to_thread(broker.ready)
        await asyncio.to_thread(store.ready)
        servers = [
            (stack.enter_context(_realtime(folder / f"realtime-{n}.log", store)), Proxy())
            for n in (1, 2)
        ]
        workers = [
            stack.enter_context(running(_worker(options, folder, broker, store, f"soak-{n}")))
            for n in range(WORKERS)
        ]
        for server, proxy in servers:
            await _open(stack, proxy)
            await asyncio.to_thread(server.ready)
            proxy.target = server.port
        await eventually(lambda: all("@here ready" in worker.log for worker in workers), "workers")
        sender = await _front(stack, store)
        url = (
            store.url if sender is None else store.url.replace(f":{store.port}", f":{sender.port}")
        )
        stack.enter_context(sending(app, broker.url, url))
        rng, tracker = random.Random(f"faults {options.seed}"), JobTracker()
        processes = ProcessFaults(servers, workers, sender, rng)
        process_kinds = dict(processes.kinds)
        if options.transport == "rabbitmq":
            # A server process holds the history in its memory, as documented.
            del process_kinds[KILL_REALTIME]

        def all_ready() -> bool:
            return all(answers(f"http://127.0.0.1:{server.port}/readyz") for server, _ in servers)

        resets = FaultInjector(processes.resets, rng, log)
        faults = [
            FaultInjector(process_kinds, rng, log),
            FaultInjector(store.kinds(rng, tracker, all_ready), rng, log),
        ]
        run = Soak(options, report, [proxy for _, proxy in servers], tracker, log)
        try:
            await run.run(faults, resets)
        finally:
            for injector in (*faults, resets):
                report.faults.update(injector.injected)
            run.examine()


async def _open(stack: AsyncExitStack, proxy: Proxy) -> None:
    await proxy.start()
    stack.push_async_callback(proxy.aclose)


async def _front(stack: AsyncExitStack, store: Store) -> Proxy | None:
    """Return a proxy in front of a store's only server, or None if the store has several."""
    if store.port is None:
        return None
    proxy = Proxy()
    await _open(stack, proxy)
    proxy.target = store.port
    return proxy


@contextmanager
def _realtime(log_path: Path, store: Store) -> Iterator[RestartableServer]:
    environ = {
        "JOBCAST_URL": store.url,
        "JOBCAST_JWT_SECRET": SECRET,
        # Clients do not leave all jobs that have ended.
        "JOBCAST_MAX_JOBS": "100000",
    }
    with running(RestartableServer(log_path, environ)) as server:
        yield server


def _worker(
    options: Options, folder: Path, broker: RestartableValkey, store: Store, name: str
) -> Process:
    return Process(
        [
            sys.executable, "-m", "celery", "-A", "bench.soak.jobs", "worker", "--loglevel=info",
            "-n", f"{name}@here", "--pool=prefork", f"--concurrency={options.jobs}",
            "--without-mingle", "--without-gossip",
        ],
        folder / f"{name}.log",
        {"JOBCAST_URL": store.url, "CELERY_BROKER_URL": broker.url},
    )  # fmt: skip


async def _until_terminated(run: Coroutine[Any, Any, None]) -> None:
    """Run until SIGTERM, or until the parent process ends.

    Otherwise the servers, which are separate processes, would keep running.
    """
    loop, task = asyncio.get_running_loop(), asyncio.ensure_future(run)
    loop.add_signal_handler(signal.SIGTERM, task.cancel)
    parent = parent_process()
    if parent is not None:
        sentinel = parent.sentinel

        def orphaned() -> None:
            loop.remove_reader(sentinel)
            task.cancel()

        loop.add_reader(sentinel, orphaned)
    await task


def soak(options: Options) -> Report:
    """Run a soak. The report's folder exists only after a failure or with ``keep``."""
    folder = Path(tempfile.mkdtemp(prefix="jobcast-soak-"))
    report = Report(options.seed, folder)
    try:
        asyncio.run(_until_terminated(_run(options, report)))
    except BaseException:
        print(f"logs: {folder}", file=sys.stderr)
        raise
    if report.problems:
        (folder / "problems.txt").write_text("\n\n".join(describe(report.problems)) + "\n")
    if report.ok and not options.keep:
        shutil.rmtree(folder)
    return report
