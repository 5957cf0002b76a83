"""One run: jobs, followers, faults and the comparison of the lists with the records."""

from __future__ import annotations

import asyncio
import math
import os
import random
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import redis
from msgspec import UNSET

from bench.feed_chaos.followers import KINDS, Follower
from bench.feed_chaos.jobs import LATE_TAG, again, app, once
from bench.feed_chaos.report import Options, Report
from bench.feed_chaos.sent_jobs import (
    REST,
    Description,
    SentJobs,
    differences,
    expected_list,
    summary_of,
)
from bench.feed_chaos.worker_faults import RestartableWorker, WorkerFaults
from bench.servers import DURABLE, RestartableServer, RestartableValkey
from bench.soak.faults import FaultInjector
from bench.soak.job_tracker import JobTracker
from bench.soak.process_faults import CUT_SENDER, KILL_REALTIME, STOP_REALTIME, ProcessFaults
from bench.soak.redis_stores import KILL, PAUSE, RedisFaults
from bench.soak.run import background, run_log, sending
from jobcast.errors import TransportUnavailable
from jobcast.feeds import (
    ALL,
    FAILED,
    MAX_FEED_LIMIT,
    MINE,
    RUNNING,
    TAG_PREFIX,
    FeedFilter,
    JobSummary,
    JoinFeed,
)
from jobcast.tokens import mint
from jobcast.transports.base import Snapshot
from jobcast.transports.redis.source import RedisSource
from tests.support import SECRET, eventually, running
from tests.support.proxy import Proxy

LEASE: Final = 3  # seconds
LOST_AFTER: Final = 8  # seconds
WORKERS: Final = 4
TAGS: Final = ("red", "green", "blue", "project:7", "a/b c?&%")
REPEATED: Final = 0.12  # share of jobs that are sent under an id which another owner has used
SENDERS: Final = 4
QUIET: Final = 8.0  # seconds without a change of any record
STUCK: Final = 40.0  # the same while a job runs: longer than until a lost worker's job ends
QUIET_TIMEOUT: Final = 180.0  # seconds until the last job has to be at rest
READ_TIMEOUT: Final = 60.0  # seconds for which the read of a record is repeated
AGREE_TIMEOUT: Final = 45.0  # seconds until all lists have to agree; less than until a regular read


class Run:
    """One run, on running servers."""

    def __init__(
        self, options: Options, report: Report, urls: Sequence[str], source: RedisSource,
        broker_url: str, log: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._options = options
        self._report = report
        self._source = source
        self._broker_url = broker_url
        self._log = log
        self._rng = random.Random(f"feed chaos {options.seed}")
        self._owners = [f"owner {number}" for number in range(1, options.owners + 1)]
        self._sent = SentJobs()
        self._followers = [*self._all_followers(urls)]

    async def run(self, faults: Sequence[FaultInjector], resets: FaultInjector) -> None:
        """Send all jobs while faults happen, wait for quiet, and compare the lists."""
        async with background(follower.run() for follower in self._followers):
            await eventually(lambda: all(one.is_complete for one in self._followers), "first lists")
            until = time.monotonic() + self._options.seconds
            async with background([resets.run(math.inf)]), asyncio.TaskGroup() as group:
                for injector in faults:
                    group.create_task(injector.run(until))
                jobs = iter(range(self._options.jobs))
                for _ in range(SENDERS):
                    group.create_task(self._send_jobs(jobs))
            records = await self._quiet_records()
            await self._compare(records)
        self._report.records += self._sent.problems_at_the_end(records)
        self._count(records)

    # --- jobs -------------------------------------------------------------------------------------

    async def _send_jobs(self, numbers: Iterator[int]) -> None:
        interval = self._options.seconds * SENDERS / self._options.jobs
        for number in numbers:
            await asyncio.sleep(self._rng.uniform(0, 2) * interval)
            await self._send(number)

    async def _send(self, number: int) -> None:
        owner = self._rng.choice(self._owners)
        job_id = f"job-{self._options.seed}-{number}-{os.getpid()}"
        if len(self._sent) and self._rng.random() < REPEATED:
            job_id = self._rng.choice([*self._sent])
            others = [name for name in self._owners if name not in self._sent.owners(job_id)]
            owner = self._rng.choice(others or [owner])
        tags = self._rng.sample(TAGS, self._rng.randint(0, 3))
        description = Description(owner, f"{owner}: job {number}", frozenset(tags))
        self._sent.add(job_id, description)
        task = self._rng.choice((once, again))
        signature = task.as_job(owner=owner, title=description.title, tags=tags)
        await asyncio.to_thread(
            signature.apply_async,
            args=[f"{self._options.seed} {number}", description.title], task_id=job_id,
        )  # fmt: skip

    # --- records ----------------------------------------------------------------------------------

    async def _quiet_records(self) -> list[JobSummary]:
        """Wait until no job runs and no record changes. Return the records.

        A run that still has no ending by then is a problem of its record.
        """
        deadline = time.monotonic() + QUIET_TIMEOUT
        records, since = await self._records(), time.monotonic()
        while time.monotonic() - since < (QUIET if self._is_at_rest(records) else STUCK):
            if time.monotonic() > deadline:
                self._report.differences.append(f"records still change after {QUIET_TIMEOUT:g} s")
                break
            await asyncio.sleep(0.5)
            former, records = records, await self._records()
            if records != former:
                since = time.monotonic()
        return records

    async def _records(self) -> list[JobSummary]:
        """Return the summaries of all records, as the history of each job has them."""
        records = []
        for job_id in self._sent:
            record = await self._record(job_id)
            if record.events:
                records.append(summary_of(job_id, record))
        return records

    async def _record(self, job_id: str) -> Snapshot:
        """Return the record of a job. The store of a starved machine may answer too late."""
        deadline = time.monotonic() + READ_TIMEOUT
        while True:
            try:
                return await self._source.snapshot(job_id)
            except TransportUnavailable:
                if time.monotonic() > deadline:
                    raise
            await asyncio.sleep(0.25)

    def _is_at_rest(self, records: Sequence[JobSummary]) -> bool:
        """Return whether no job runs and the broker has no message.

        The broker loses the message of a job if its worker is killed while it receives it. Such a
        job stays queued.
        """
        with redis.Redis.from_url(self._broker_url) as client:
            has_messages = client.exists("celery", "unacked")
        return not has_messages and all(record.status in REST for record in records)

    # --- comparison -------------------------------------------------------------------------------

    async def _compare(self, records: Sequence[JobSummary]) -> None:
        """Wait until all lists agree with the records, and report what does not."""
        began = time.monotonic()
        while (found := self._differences(records)) and time.monotonic() - began < AGREE_TIMEOUT:
            self._log(f"lists that differ: {found}")
            await asyncio.sleep(0.25)
        self._report.settled_after = time.monotonic() - began
        for follower, problems in found.items():
            self._report.differences += [f"{follower.name}: {problem}" for problem in problems]
            self._save_transcript(follower)
        for follower in self._followers:
            self._report.foreign += [f"{follower.name}: {text}" for text in follower.problems]
            if follower.problems:
                self._save_transcript(follower)

    def _differences(self, records: Sequence[JobSummary]) -> dict[Follower, list[str]]:
        """Return the differences of each follower's list from the records."""
        found = {
            follower: [
                *differences(follower.jobs, expected_list(records, follower.feed, follower.wanted))
            ]
            for follower in self._followers
        }
        return {follower: problems for follower, problems in found.items() if problems}

    def _save_transcript(self, follower: Follower) -> None:
        (self._report.folder / f"{follower.name}.txt").write_text(follower.transcript)

    def _count(self, records: Sequence[JobSummary]) -> None:
        counts = self._report.counts
        counts["jobs"] = self._options.jobs
        counts["jobs sent under the id of another owner's job"] = self._sent.repeated
        counts["followers"] = len(self._followers)
        counts["jobs in lists at the end"] = sum(len(one.jobs) for one in self._followers)
        for record in records:
            ending = record.status if record.reason is UNSET else f"error, {record.reason}"
            self._report.endings[ending] += 1

    # --- followers --------------------------------------------------------------------------------

    def _all_followers(self, urls: Sequence[str]) -> Iterator[Follower]:
        requests = [(JoinFeed(feed=MINE, limit=MAX_FEED_LIMIT), owner) for owner in self._owners]
        requests += [(request, "operator") for request in self._operator_requests()]
        for number, (request, sub) in enumerate(requests):
            kind = KINDS[number % len(KINDS)]
            feeds = [] if request.feed == MINE else [request.feed]
            token = mint(SECRET, sub, feeds=feeds, ttl=24 * 3600)
            rng = random.Random(f"follower {self._options.seed} {number}")
            yield kind(
                f"{number}-{kind.__name__}", request, token, sub, urls, self._sent, rng,
                self._report.counts,
            )  # fmt: skip

    def _operator_requests(self) -> Iterator[JoinFeed]:
        for tag in (*TAGS, LATE_TAG):
            yield JoinFeed(feed=TAG_PREFIX + tag, limit=MAX_FEED_LIMIT)
        for status in (FAILED, RUNNING):
            wanted = FeedFilter(status=(status,))
            yield JoinFeed(feed=TAG_PREFIX + TAGS[0], filter=wanted, limit=MAX_FEED_LIMIT)
            yield JoinFeed(feed=ALL, filter=wanted, limit=MAX_FEED_LIMIT)
        wanted = FeedFilter(owner=self._owners[0])
        yield JoinFeed(feed=ALL, filter=wanted, limit=MAX_FEED_LIMIT)
        for _ in KINDS:
            yield JoinFeed(feed=ALL, limit=MAX_FEED_LIMIT)


@asynccontextmanager
async def _proxy() -> AsyncIterator[Proxy]:
    proxy = Proxy()
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.aclose()


def feed_chaos(options: Options) -> Report:
    """Run the chaos. The report's folder exists only after a failure or with ``keep``."""
    report = Report(options, Path(tempfile.mkdtemp(prefix="jobcast-feed-chaos-")))
    asyncio.run(_run(options, report))
    if report.problems:
        (report.folder / "problems.txt").write_text("\n\n".join(report.problems) + "\n")
    if report.ok and not options.keep:
        shutil.rmtree(report.folder)
    return report


async def _run(options: Options, report: Report) -> None:
    folder = report.folder
    async with AsyncExitStack() as stack:
        log = stack.enter_context(run_log(folder))
        # Celery has a separate broker, which works while the transport is down.
        broker = stack.enter_context(running(RestartableValkey(folder / "broker")))
        store = stack.enter_context(running(RestartableValkey(folder / "events", *DURABLE)))
        await asyncio.to_thread(broker.ready)
        await asyncio.to_thread(store.ready)
        environ = {
            "JOBCAST_URL": store.url,
            "JOBCAST_JWT_SECRET": SECRET,
            "JOBCAST_LEASE": str(LEASE),
            "JOBCAST_LOST_AFTER": str(LOST_AFTER),
            "CELERY_BROKER_URL": broker.url,
        }
        servers = [
            (
                stack.enter_context(
                    running(RestartableServer(folder / f"server-{number}.log", environ))
                ),
                await stack.enter_async_context(_proxy()),
            )
            for number in (1, 2)
        ]
        workers = [
            stack.enter_context(running(RestartableWorker(folder, f"worker-{number}", environ)))
            for number in range(1, WORKERS + 1)
        ]
        for server, proxy in servers:
            await asyncio.to_thread(server.ready)
            proxy.target = server.port
        for worker in workers:
            await worker.ready()
        sender = await stack.enter_async_context(_proxy())
        sender.target = store.port
        url = store.url.replace(f":{store.port}", f":{sender.port}")
        stack.enter_context(sending(app, broker.url, url))
        source = RedisSource(store.url)
        stack.push_async_callback(source.aclose)
        rng = random.Random(f"faults {options.seed}")
        processes = ProcessFaults(servers, workers, sender, rng)
        redis_faults = RedisFaults(lambda: store, asyncio.Lock(), rng, JobTracker())
        names = KILL_REALTIME, STOP_REALTIME, CUT_SENDER
        process_kinds = {name: processes.kinds[name] for name in names}
        injectors = [
            FaultInjector(process_kinds, rng, log),
            FaultInjector(WorkerFaults(workers, rng).kinds, rng, log),
            FaultInjector(
                {KILL: redis_faults.kill, PAUSE: redis_faults.pause, **redis_faults.refusals},
                rng, log,
            ),
        ]  # fmt: skip
        resets = FaultInjector(processes.resets, rng, log)
        urls = [proxy.url for _, proxy in servers]
        try:
            run = Run(options, report, urls, source, broker.url, log)
            await run.run(injectors, resets)
        finally:
            for injector in (*injectors, resets):
                report.faults.update(injector.injected)
