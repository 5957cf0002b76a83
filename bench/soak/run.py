"""One run: jobs, clients and faults, and what they come to."""

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
from bench.soak.client import Client, SentJob, written
from bench.soak.faults import Faults, Kinds
from bench.soak.job_tracker import Sent
from bench.soak.jobs import Script, app, has_ended, work
from bench.soak.process_faults import KILL_REALTIME, ProcessFaults
from bench.soak.rabbitmq_store import RabbitStore
from bench.soak.redis_stores import RedisAlone, RedisCluster, RedisSentinel
from bench.soak.report import Options, Problem, Report, Transport, described
from bench.soak.transcript import examine, examine_order, late_lines_after_end
from jobcast.publishing import runtime
from jobcast.tokens import mint
from tests.support import SECRET, Process, answers, eventually, running
from tests.support.proxy import Proxy

OWNER: Final = "soak"
JOB_TIMEOUT: Final = 600.0  # seconds that a job may take, with all that is in its way
SILENCE: Final = 120.0  # seconds without any event, after which nothing is expected any more
WITNESSED: Final = 100  # jobs at a time, fewer than a connection may follow
WORKERS: Final = 2  # a job that is tried again may be another's


class Store(Protocol):
    """The servers of a transport."""

    url: str
    port: int | None  # of the one server that a proxy may stand before

    def ready(self) -> None: ...
    def kinds(self, rng: random.Random, sent: Sent, are_ready: Callable[[], bool]) -> Kinds: ...
    def kill(self) -> None: ...


STORES: Final[Mapping[Transport, Callable[[Path], Store]]] = {
    "redis": RedisAlone,
    "sentinel": RedisSentinel,
    "cluster": RedisCluster,
    "rabbitmq": RabbitStore,
}


class Soak:
    """One run, on servers that are there."""

    def __init__(
        self,
        options: Options,
        report: Report,
        proxies: Sequence[Proxy],
        sent: Sent,
        note: Callable[[str], None],
    ) -> None:
        self._options = options
        self._report = report
        self._note = note
        self._rng = random.Random(f"soak {options.seed}")
        self._jobs: list[SentJob] = []
        self._sent = sent
        self._until = time.monotonic() + options.seconds
        self._is_mended = False
        urls = [proxy.url for proxy in proxies]
        self._clients = [self._client(number, urls) for number in range(options.clients)]

    async def run(self, faults: Sequence[Faults], resets: Faults) -> None:
        """Send jobs until it is time, and everything is mended.

        Args:
            faults: end early enough for the last jobs to run in peace.
            resets: of clients' connections, which go on: clients come back to a living store.
        """
        async with background(client.run() for client in self._clients):
            async with background([resets.run(math.inf)]), asyncio.TaskGroup() as group:
                group.create_task(self._break(faults))
                for _ in range(self._options.jobs):
                    group.create_task(self._keep_sending())
            self._note("the last job has ended")
            for client in self._clients:
                client.forget(self._sent.excused)
            await self._ends_of(self._clients)
            self._note("the clients are where they should be, or never will be")
        witness = self._witness()
        async with background([witness.run()]):
            whole = [job for job in self._jobs if job.job_id not in self._sent.excused]
            for begin in range(0, len(whole), WITNESSED):
                for job in whole[begin : begin + WITNESSED]:
                    witness.follow(job)
                await self._ends_of([witness])
        self._clients.append(witness)

    def examine(self) -> None:
        """Put what the transcripts come to into the report."""
        counts = self._report.counts
        counts["jobs"] = len(self._jobs)
        counts["jobs that the store has lost events of"] = len(self._sent.excused)
        counts["transcripts"] = sum(len(client.followed) for client in self._clients)
        names = (
            "events checked", "repeats in snapshots after a join", "records begun anew",
            "begun before queued could be said",
        )  # fmt: skip
        counts.update(dict.fromkeys(names, 0))
        after_end = self._late_lines_after_ends()
        for client in self._clients:
            for job_id, followed in client.followed.items():
                if job_id in self._sent.excused:
                    examined = examine_order(followed.connections)
                else:
                    examined = examine(followed.connections, followed.job.script, after_end[job_id])
                counts["events checked"] += examined.events
                counts["repeats in snapshots after a join"] += examined.announced
                counts["records begun anew"] += max(0, examined.epochs - 1)
                counts["begun before queued could be said"] += examined.begun_before_queued
                for finding in examined.findings:
                    self._report.problems.append(Problem(client.name, job_id, finding))
                if examined.findings:
                    path = self._report.folder / f"{client.name}-{job_id}.txt"
                    path.write_text(written(followed))

    def _late_lines_after_ends(self) -> defaultdict[str, set[str]]:
        """The late lines of each job that some client was sent after its end."""
        found = defaultdict[str, set[str]](set)
        for client in self._clients:
            for job_id, followed in client.followed.items():
                found[job_id].update(late_lines_after_end(followed.connections))
        return found

    def _client(self, number: int, urls: Sequence[str]) -> Client:
        # Some may follow any job, and so one of which nothing was published yet.
        jobs = ["*"] if number % 3 == 0 else []
        return Client(
            f"client-{number}", mint(SECRET, OWNER, jobs=jobs, ttl=24 * 3600), urls,
            random.Random(f"client {self._options.seed} {number}"), self._report.counts,
        )  # fmt: skip

    def _witness(self) -> Client:
        """A client that comes when all is over: it is sent the records as they are."""
        urls = self._clients[0]._urls
        rng = random.Random(f"witness {self._options.seed}")
        token = mint(SECRET, OWNER, ttl=24 * 3600)
        return Client("witness", token, urls, rng, Counter(), leaves=1)

    async def _break(self, faults: Sequence[Faults]) -> None:
        calm = min(8.0, self._options.seconds / 5)
        async with asyncio.TaskGroup() as group:
            for each in faults:
                group.create_task(each.run(self._until - calm))
        # What is mended late leaves as much time as what is mended early.
        self._until = max(self._until, time.monotonic() + calm)
        self._is_mended = True

    async def _keep_sending(self) -> None:
        while not self._is_mended or time.monotonic() < self._until:
            number = len(self._jobs) + 1
            seed = self._options.seed * 1_000_000 + number
            # The id is not the seed's alone: a run does not meet the jobs of another.
            job = SentJob(f"soak-{seed}-{os.getpid()}", Script.of(seed))
            self._jobs.append(job)
            self._sent.begin(job.job_id)
            share = max(2, len(self._clients) // 4)
            for client in self._rng.sample(self._clients, min(share, len(self._clients))):
                client.follow(job)
            await asyncio.to_thread(send, job)
            async with asyncio.timeout(JOB_TIMEOUT):
                while not await asyncio.to_thread(has_ended, job.job_id):
                    await asyncio.sleep(0.05)
            self._sent.end(job.job_id)

    async def _ends_of(self, clients: Sequence[Client]) -> None:
        """Wait for the end of each job at each client, while anything comes at all."""
        began = time.monotonic()
        while any(client.waiting for client in clients):
            heard_at = max([began, *(client.heard_at for client in clients)])
            if time.monotonic() - heard_at > SILENCE:
                return
            await asyncio.sleep(0.05)


def send(job: SentJob) -> None:
    signature = work.owned_by(OWNER)
    signature.apply_async(args=[job.script.seed], task_id=job.job_id)


@asynccontextmanager
async def background(coroutines: Iterable[Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """Run them meanwhile; one that ends takes the rest with it."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    here = asyncio.current_task()
    assert here is not None
    failed: list[BaseException] = []

    def ended(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (problem := task.exception()) is not None:
            failed.append(problem)
            here.cancel()

    for task in tasks:
        task.add_done_callback(ended)
    try:
        yield
    except asyncio.CancelledError:
        if failed:
            raise failed[0] from None
        raise
    finally:
        while running_still := [task for task in tasks if not task.done()]:
            # Python 3.11's wait_for loses a cancellation that comes with the answer.
            for task in running_still:
                task.cancel()
            await asyncio.wait(running_still, timeout=1)


@contextmanager
def sending(app: Celery, broker: str, events: str) -> Iterator[None]:
    """Make this process one that sends jobs of an app."""
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
def noting(folder: Path) -> Iterator[Callable[[str], None]]:
    """A file for what this process does and what jobcast says in it."""
    handler = logging.FileHandler(folder / "soak.log")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger = logging.getLogger("bench.soak")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    loggers = logger, logging.getLogger("jobcast")
    for each in loggers:
        each.addHandler(handler)
    try:
        yield lambda text: logger.info("%.3f %s", time.monotonic(), text)
    finally:
        for each in loggers:
            each.removeHandler(handler)
        handler.close()


async def _run(options: Options, report: Report) -> None:
    folder = report.folder
    async with AsyncExitStack() as stack:
        note = stack.enter_context(noting(folder))
        # A broker of its own: Celery goes on while the transport is away.
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
        sender = await _before(stack, store)
        url = (
            store.url if sender is None else store.url.replace(f":{store.port}", f":{sender.port}")
        )
        stack.enter_context(sending(app, broker.url, url))
        rng, sent = random.Random(f"faults {options.seed}"), Sent()
        processes = ProcessFaults(servers, workers, sender, rng)
        of_processes = dict(processes.kinds)
        if options.transport == "rabbitmq":
            # The history is the process's own: what it knew is gone with it, as is documented.
            del of_processes[KILL_REALTIME]

        def are_ready() -> bool:
            return all(answers(f"http://127.0.0.1:{server.port}/readyz") for server, _ in servers)

        resets = Faults(processes.resets, rng, note)
        faults = [
            Faults(of_processes, rng, note),
            Faults(store.kinds(rng, sent, are_ready), rng, note),
        ]
        run = Soak(options, report, [proxy for _, proxy in servers], sent, note)
        try:
            await run.run(faults, resets)
        finally:
            for each in (*faults, resets):
                report.faults.update(each.injected)
            run.examine()


async def _open(stack: AsyncExitStack, proxy: Proxy) -> None:
    await proxy.start()
    stack.push_async_callback(proxy.aclose)


async def _before(stack: AsyncExitStack, store: Store) -> Proxy | None:
    """A proxy before the one server of a store; None if there are several."""
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
        # Clients stay in rooms of jobs that have ended.
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


async def _until_told(run: Coroutine[Any, Any, None]) -> None:
    """Run it until SIGTERM, or until the process that wants the report is gone.

    Servers are processes of their own, and would stay behind.
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
    """Run it. The report's folder is there only if there is something to look for in it."""
    folder = Path(tempfile.mkdtemp(prefix="jobcast-soak-"))
    report = Report(options.seed, folder)
    try:
        asyncio.run(_until_told(_run(options, report)))
    except BaseException:
        print(f"the logs are in {folder}", file=sys.stderr)
        raise
    if report.problems:
        (folder / "problems.txt").write_text("\n\n".join(described(report.problems)) + "\n")
    if report.ok and not options.keep:
        shutil.rmtree(folder)
    return report
