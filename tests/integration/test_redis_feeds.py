"""Feeds in Redis: crashes between the two writes, writes out of order, and foreign data."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import secrets
import socket
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any
from uuid import UUID

import msgspec
import pytest
import redis
from msgspec import UNSET, structs

from jobcast.errors import TransportUnavailable
from jobcast.events import Cursor, JobComplete, JobEvent, JobInfoUpdate, now
from jobcast.feeds import JobSummary
from jobcast.liveness.monitor import LeaseMonitor
from jobcast.testing import log, new_job_id, progress, started
from jobcast.testing.ends import described, retitled
from jobcast.testing.feed_ends import KEPT_IN_FEEDS, FeedEnds, both_feed_ends
from jobcast.testing.feeds import ended, run_of
from jobcast.transports import NO_ORIGIN, Origin, Outgoing, Retention, open_publisher
from jobcast.transports.base import FeedChange, FeedRemoval, SupportsFeeds
from jobcast.transports.leases import Lease, LeaseTimeouts, SupportsLeaseMonitoring
from jobcast.transports.redis.feed_scripts import (
    REFUSED,
    FeedCalls,
    FeedEntry,
    parse_changes,
    shard_size,
)
from jobcast.transports.redis.feed_writer import AT_ONCE, MAX_BATCHES, FeedWriter
from jobcast.transports.redis.names import ALL_SHARDS, Names
from jobcast.transports.redis.publisher import RedisPublisher
from jobcast.transports.redis.script_runner import run_scripts
from jobcast.transports.redis.servers import Servers
from jobcast.transports.redis.source import RedisSource
from tests.conftest import Valkey
from tests.support import TIMEOUT, eventually

FEED = "owner:alice"
NO_FEEDS = structs.replace(KEPT_IN_FEEDS, feed_size=0)


class Deployment(FeedEnds):
    """Both ends, and what tests do behind their backs."""

    client: redis.Redis

    @property
    def names(self) -> Names:
        return Names(self.prefix)

    async def publish_and_crash(self, *events: JobEvent, origin: Origin = NO_ORIGIN) -> None:
        """Publish events from a process that ends before it writes the feeds."""
        publisher = open_publisher(self.worker_url, NO_FEEDS, prefix=self.prefix)
        batch = [Outgoing.of(event, origin) for event in events]
        await asyncio.to_thread(publisher.publish, batch)
        await asyncio.to_thread(publisher.close)

    def write(self, change: FeedChange, expected: Cursor | None = None, feed: str = FEED) -> Any:
        """Write a change, as a process does that has read it from the record some time ago."""
        call = FeedCalls(self.names, self.retention, False).write(feed, change, expected)
        [answer] = run_scripts(self.client, [call])
        return answer

    def stored(self, job_id: str, feed: str = FEED) -> FeedEntry | None:
        data: Any = self.client.hget(self.names.feed_of(feed, job_id).jobs, job_id)
        return None if data is None else FeedEntry.parse(data)


@pytest.fixture(autouse=True)
def patient_closing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a closed writer write what is left on a busy machine."""
    monkeypatch.setattr(FeedWriter.close, "__defaults__", (TIMEOUT,))


@pytest.fixture
async def deployment(valkey: Valkey) -> AsyncIterator[Deployment]:
    async with both_feed_ends(valkey.url, valkey.url) as ends:
        with redis.Redis.from_url(valkey.url) as client:
            fields = {name: getattr(ends, name) for name in FeedEnds.__struct_fields__}
            yield Deployment(**fields, client=client)


def summary(job_id: str, seq: int, status: str = "started", epoch: str = "e1") -> JobSummary:
    ended_at = now() if status == "complete" else UNSET
    return JobSummary(
        job_id=job_id, epoch=epoch, seq=seq, status=status, created_at=now(), owner="alice",
        ended_at=ended_at,
    )  # fmt: skip


async def test_reading_repairs_an_ending_that_was_not_written(
    deployment: Deployment, job_id: str
) -> None:
    origin = run_of("alice")
    await deployment.source.subscribe_feed(FEED)
    await deployment.publish(started(job_id), origin=origin)
    await deployment.wait_summary(FEED, job_id, "started")
    await deployment.publish_and_crash(progress(job_id, 70), ended(job_id), origin=origin)
    [job] = await deployment.source.read_feed(FEED)
    assert (job.status, job.seq, job.percentage) == ("complete", 3, 70)
    assert await deployment.wait_summary(FEED, job_id, "complete") == job
    entry = deployment.stored(job_id)
    assert entry is not None
    assert entry.job == job


async def test_lease_monitor_repairs_an_ending_that_was_not_written(
    deployment: Deployment, job_id: str
) -> None:
    origin, source = run_of("alice"), deployment.manager.source
    assert isinstance(source, SupportsLeaseMonitoring)
    await deployment.source.subscribe_feed(FEED)
    await deployment.publish(started(job_id), origin=origin)
    await deployment.wait_summary(FEED, job_id, "started")
    await deployment.publish_and_crash(ended(job_id), origin=origin)
    lease = Lease(job_id, origin.run)
    assert isinstance(deployment.publisher, RedisPublisher)
    await asyncio.to_thread(deployment.publisher.renew, [lease], 0.1)
    monitor = asyncio.create_task(LeaseMonitor(source, LeaseTimeouts(lease=0.6)).run())
    assert (await deployment.wait_summary(FEED, job_id, "complete")).seq == 2
    monitor.cancel()
    await asyncio.wait([monitor])


async def test_reading_a_feed_repairs_the_other_feeds_of_its_jobs(
    deployment: Deployment, job_id: str
) -> None:
    origin = run_of("alice")
    await deployment.source.subscribe_feed("tag:late")
    await deployment.publish(described(started(job_id), tags=("x",)), origin=origin)
    await deployment.wait_ids("tag:x", job_id)
    await deployment.publish_and_crash(
        retitled(job_id, tags=("late",)), ended(job_id), origin=origin
    )
    [job] = await deployment.source.read_feed(FEED)
    assert job.tags == ("x", "late")
    assert await deployment.wait_summary("tag:late", job_id, "complete") == job
    for feed in ("all", "tag:x", "tag:late"):
        entry = deployment.stored(job_id, feed)
        assert entry is not None
        assert entry.job == job


async def test_reading_a_feed_removes_its_jobs_from_feeds_that_they_have_left(
    deployment: Deployment, job_id: str
) -> None:
    before, after = ("owner:alice", "tag:a"), ("owner:bob", "tag:b")
    await deployment.publish(described(started(job_id), tags=("a",)), origin=run_of("alice"))
    await deployment.wait_ids("tag:a", job_id)
    await deployment.publish_and_crash(
        described(started(job_id), tags=("b",)), origin=run_of("bob")
    )
    assert await deployment.source.read_feed("tag:a") == []
    entries = {feed: deployment.stored(job_id, feed) for feed in (*before, *after)}
    assert all(entries.values())
    assert [feed for feed, entry in entries.items() if entry and entry.job] == [*after]


async def test_progress_alone_is_corrected_in_the_feed_that_is_read(
    deployment: Deployment, job_id: str
) -> None:
    origin = run_of("alice")
    await deployment.publish(started(job_id), origin=origin)
    await deployment.wait_ids("all", job_id)
    await deployment.publish_and_crash(progress(job_id, 70), origin=origin)
    await deployment.source.read_feed(FEED)
    corrected, other = deployment.stored(job_id), deployment.stored(job_id, "all")
    assert corrected is not None
    assert other is not None
    assert (corrected.position.seq, other.position.seq) == (2, 1)


class Worker:
    """A publisher whose feeds cannot be written, while events and leases can."""

    def __init__(self, deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
        self.publisher = RedisPublisher(
            deployment.url, retention=KEPT_IN_FEEDS, prefix=deployment.prefix
        )
        self.attempts = 0
        self._write = self.publisher._feeds._write_some
        self._client = deployment.client
        self._key = deployment.names.running
        self.is_refused = True
        monkeypatch.setattr(self.publisher._feeds, "_write_some", self._write_if_allowed)

    def run(self, job_id: str, origin: Origin, seconds: float) -> None:
        """Run a job until its end is stored, with a lease of some seconds."""
        lease = Lease(job_id, origin.run)
        self.publisher.renew([lease], seconds)
        events = (described(started(job_id), tags=("x",)), ended(job_id))
        self.publisher.publish([Outgoing.of(event, origin) for event in events])
        self.publisher.release([lease])

    @property
    def has_lease(self) -> bool:
        return bool(self._client.zcard(self._key))

    def _write_if_allowed(self, jobs: Sequence[str]) -> None:
        self.attempts += 1
        if self.is_refused:
            raise redis.ConnectionError("the server of the feeds is gone")
        self._write(jobs)


async def test_lease_is_released_after_the_feeds_of_its_job_are_written(
    deployment: Deployment, job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Worker(deployment, monkeypatch)
    await asyncio.to_thread(worker.run, job_id, run_of("alice"), 600)
    await eventually(lambda: worker.attempts >= 2, "attempts to write")
    assert worker.has_lease
    worker.is_refused = False
    await eventually(lambda: not worker.has_lease, "a released lease")
    assert deployment.stored(job_id, "tag:x") is not None
    await asyncio.to_thread(worker.publisher.close)


async def test_feeds_of_a_process_that_dies_before_it_wrote_them_are_repaired_without_a_reader(
    deployment: Deployment, job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, source = Worker(deployment, monkeypatch), deployment.manager.source
    assert isinstance(source, SupportsLeaseMonitoring)
    await asyncio.to_thread(worker.run, job_id, run_of("alice"), 0.1)
    await eventually(lambda: worker.attempts, "an attempt to write")
    assert deployment.stored(job_id, "tag:x") is None
    monitor = asyncio.create_task(LeaseMonitor(source, LeaseTimeouts(lease=0.6)).run())
    for feed in (FEED, "tag:x", "all"):
        await eventually(partial(deployment.stored, job_id, feed), f"a job in {feed}")
    monitor.cancel()
    await asyncio.wait([monitor])
    # No event follows the end.
    assert (await source.snapshot(job_id)).seq == 2
    await asyncio.to_thread(worker.publisher.close)


async def test_close_releases_the_leases_of_the_jobs_that_it_writes(
    deployment: Deployment, job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Worker(deployment, monkeypatch)
    worker.is_refused = False
    await asyncio.to_thread(worker.run, job_id, run_of("alice"), 600)
    await asyncio.to_thread(worker.publisher.close)
    assert not worker.has_lease
    assert deployment.stored(job_id) is not None


async def test_next_event_adds_a_job_whose_start_was_not_written(
    deployment: Deployment, job_id: str
) -> None:
    origin = run_of("alice")
    await deployment.publish_and_crash(started(job_id), origin=origin)
    assert await deployment.source.read_feed(FEED) == []
    await deployment.publish(progress(job_id, 5), origin=origin)
    [job] = await deployment.wait_ids(FEED, job_id)
    assert (job.percentage, job.attempt) == (5, 1)


async def test_job_leaves_the_former_owners_feed_after_a_crash(
    deployment: Deployment, job_id: str
) -> None:
    await deployment.source.subscribe_feed(FEED)
    await deployment.publish(described(started(job_id), tags=("x",)), origin=run_of("alice"))
    await deployment.wait_summary(FEED, job_id, "started")
    for owner in ("bob", "carol"):
        origin = run_of(owner)
        await deployment.publish_and_crash(started(job_id), origin=origin)
    await deployment.publish(progress(job_id, 1), origin=origin)
    await deployment.wait_removal(FEED, job_id)
    await deployment.wait_ids("owner:carol", job_id)
    for feed in (FEED, "owner:bob", "tag:x"):
        assert await deployment.source.read_feed(feed) == []


async def test_reading_removes_a_job_of_another_owner(deployment: Deployment, job_id: str) -> None:
    await deployment.source.subscribe_feed(FEED)
    await deployment.publish(started(job_id), origin=run_of("alice"))
    await deployment.wait_summary(FEED, job_id, "started")
    await deployment.publish_and_crash(started(job_id), origin=run_of("bob"))
    assert await deployment.source.read_feed(FEED) == []
    await deployment.wait_removal(FEED, job_id)


async def test_record_forgets_the_feeds_that_the_job_has_left(
    deployment: Deployment, job_id: str
) -> None:
    state = deployment.names.of(job_id).state
    await deployment.publish(started(job_id), origin=run_of("alice"))
    origin = run_of("bob")
    await deployment.publish(started(job_id), origin=origin)
    assert deployment.client.hget(state, "former") == b'["owner:alice"]'
    await deployment.wait_ids("owner:bob", job_id)
    await deployment.publish(ended(job_id), origin=origin)
    await eventually(lambda: not deployment.client.hexists(state, "former"), "forgotten feeds")


async def test_reading_removes_a_running_job_without_a_record_and_keeps_an_ended_one(
    deployment: Deployment,
) -> None:
    running, finished = new_job_id(), new_job_id()
    await deployment.source.subscribe_feed(FEED)
    await deployment.publish(started(running), origin=run_of("alice"))
    await deployment.publish(started(finished), ended(finished), origin=run_of("alice"))
    await deployment.wait_summary(FEED, finished, "complete")
    await deployment.wait_summary(FEED, running, "started")
    for job_id in (running, finished):
        deployment.client.delete(deployment.names.of(job_id).state)
    assert [job.job_id for job in await deployment.source.read_feed(FEED)] == [finished]
    await deployment.wait_removal(FEED, running)


async def test_writes_out_of_order_leave_the_newest_summary(
    deployment: Deployment, job_id: str
) -> None:
    write = deployment.write
    assert write(summary(job_id, 5, "complete")) != REFUSED
    assert write(summary(job_id, 4)) == REFUSED
    assert write(summary(job_id, 5)) == REFUSED
    assert write(summary(job_id, 9, epoch="e0")) == REFUSED
    entry = deployment.stored(job_id)
    assert entry is not None
    assert entry.job is not None
    assert (entry.job.status, entry.job.seq) == ("complete", 5)
    assert write(summary(job_id, 1, epoch="e2")) != REFUSED


async def test_removed_job_is_not_added_again_by_an_older_summary(
    deployment: Deployment, job_id: str
) -> None:
    write = deployment.write
    write(FeedRemoval(job_id, "e2", 3))
    assert write(summary(job_id, 8, epoch="e1")) == REFUSED
    assert write(FeedRemoval(job_id, "e1", 8)) == REFUSED
    assert await deployment.source.read_feed(FEED) == []
    assert write(summary(job_id, 4, epoch="e2")) != REFUSED


async def test_record_replaces_a_summary_with_a_later_epoch(
    deployment: Deployment, job_id: str
) -> None:
    """The clock of a server that took over may be behind."""
    await deployment.publish_and_crash(started(job_id), origin=run_of("alice"))
    deployment.write(summary(job_id, 3, "complete", epoch="ffffffffffffffff"))
    [job] = await deployment.source.read_feed(FEED)
    assert (job.status, job.seq) == ("started", 1)
    entry = deployment.stored(job_id)
    assert entry is not None
    assert entry.job == job


async def test_removal_that_a_newer_summary_overtakes_changes_nothing(
    deployment: Deployment, job_id: str
) -> None:
    deployment.write(summary(job_id, 3))
    deployment.write(summary(job_id, 5))
    seen = Cursor(epoch="e1", seq=3)
    assert deployment.write(FeedRemoval(job_id, "e1", 3), seen) == REFUSED
    assert deployment.write(FeedRemoval(job_id, "e1", 5), Cursor(epoch="e1", seq=5)) != REFUSED


async def test_feed_keys_expire_and_have_no_other_jobs(deployment: Deployment, job_id: str) -> None:
    await deployment.publish(started(job_id), origin=run_of("alice"))
    await deployment.wait_ids(FEED, job_id)
    await deployment.publish(ended(job_id))
    await deployment.wait_feed(FEED, lambda jobs: jobs[0].has_ended)
    keys = deployment.names.feed_of(FEED, job_id)
    for key in (keys.order, keys.jobs, keys.ended):
        assert key.startswith(f"{deployment.prefix}:feed:{{owner%3Aalice}}:")
        assert 0 < deployment.client.ttl(key) <= KEPT_IN_FEEDS.summary_ttl
    assert deployment.client.zrange(keys.order, 0, -1) == [job_id.encode()]


async def test_feed_of_all_jobs_is_sharded_and_bounded(deployment: Deployment) -> None:
    ids = [new_job_id() for _ in range(200)]
    await deployment.publish(*(started(job_id) for job_id in ids))
    size = 10 * deployment.retention.feed_size
    jobs = await deployment.wait_feed("all", lambda jobs: len(jobs) >= size)
    await eventually(
        lambda: sum(deployment.stored(i, "all") is not None for i in ids) >= size, "jobs"
    )
    bound = shard_size(deployment.retention.feed_size)
    assert len(jobs) <= bound * ALL_SHARDS < len(ids)
    shards = {deployment.names.feed_of("all", job_id).jobs for job_id in ids}
    assert len(shards) == ALL_SHARDS
    for shard in shards:
        assert deployment.client.hlen(shard) <= bound


def test_just_full_feed_of_all_jobs_keeps_every_job() -> None:
    names = Names("jobcast")
    rng = random.Random(1)
    ids = (str(UUID(int=rng.getrandbits(128))) for _ in range(10_000))
    sizes = Counter(names.feed_of("all", job_id).jobs for job_id in ids)
    assert max(sizes.values()) <= shard_size(1000)


async def test_unchanged_feed_is_only_read(deployment: Deployment, job_id: str) -> None:
    await deployment.source.subscribe_feed(FEED)
    origin = run_of("alice")
    await deployment.publish(started(job_id), origin=origin)
    await deployment.wait_summary(FEED, job_id, "started")
    await deployment.publish(log(job_id), log(job_id), origin=origin)
    [job] = await deployment.source.read_feed(FEED)
    entry = deployment.stored(job_id)
    assert entry is not None
    assert (job.seq, entry.position.seq) == (3, 1)
    assert len(deployment.summaries(FEED, job_id)) == 1


async def test_foreign_data_in_a_feed_is_ignored(
    deployment: Deployment, job_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    keys = deployment.names.feed_of(FEED, "x")
    await deployment.source.subscribe_feed(FEED)
    for garbage in (b"hello", b"+ {}", b"- a b", b"- a b c", b"\xff"):
        deployment.client.publish(keys.channel, garbage)
    for field, value in (("a", b"garbage"), ("b", b"e 1 {}"), ("c", b"e x {}"), ("d", b"\xff 1 ")):
        deployment.client.hset(keys.jobs, field, value)
    await deployment.publish(started(job_id), origin=run_of("alice"))
    await deployment.wait_summary(FEED, job_id, "started")
    assert [job.job_id for job in await deployment.source.read_feed(FEED)] == [job_id]
    assert caplog.text.count("that is not jobcast's") == 5
    assert "ignored an invalid entry" in caplog.text


async def test_record_of_an_earlier_version_has_a_summary(
    deployment: Deployment, job_id: str
) -> None:
    event = started(job_id)
    await deployment.publish_and_crash(event, origin=run_of("alice"))
    deployment.client.hdel(deployment.names.of(job_id).state, "began", "info")
    await deployment.publish(progress(job_id, 1))
    [job] = await deployment.wait_ids(FEED, job_id)
    assert job.created_at == event.timestamp


async def test_invalid_record_fails_no_feed(
    deployment: Deployment, job_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    origin, other = run_of("alice"), new_job_id()
    await deployment.publish(started(job_id), origin=origin)
    await deployment.wait_ids(FEED, job_id)
    deployment.client.hset(deployment.names.of(job_id).state, "info", "{")
    deployment.client.hset(deployment.names.of(job_id).state, "seq", 7)
    await deployment.publish(progress(job_id, 3), origin=origin)
    await deployment.publish(started(other), origin=run_of("alice"))
    jobs = await deployment.wait_feed(FEED, lambda jobs: len(jobs) == 2)
    assert {job.job_id for job in jobs} == {job_id, other}
    assert f"job {job_id}: its record is invalid" in caplog.text


async def test_feed_with_a_key_of_another_type_fails_no_publish(
    deployment: Deployment, job_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    deployment.client.set(deployment.names.feed_of(FEED, job_id).jobs, "not a hash")
    await deployment.publish(started(job_id), origin=run_of("alice"))
    await deployment.wait_ids("all", job_id)
    assert (await deployment.manager.source.snapshot(job_id)).seq == 1
    await eventually(lambda: f"job {job_id}: Redis refuses its feeds" in caplog.text, "log line")
    with pytest.raises(TransportUnavailable, match="could not read the feed owner:alice"):
        await deployment.source.read_feed(FEED)


async def test_writer_loads_flushed_scripts(deployment: Deployment) -> None:
    for _ in range(2):
        job_id = new_job_id()
        deployment.client.script_flush()
        await deployment.publish(started(job_id), origin=run_of("alice"))
        await deployment.wait_job(FEED, job_id)


async def test_close_writes_progress_that_is_not_due(deployment: Deployment, job_id: str) -> None:
    publisher = open_publisher(deployment.url, KEPT_IN_FEEDS, prefix=deployment.prefix)
    origin = run_of("alice")

    def publish(*events: JobEvent) -> None:
        publisher.publish([Outgoing.of(event, origin) for event in events])

    await asyncio.to_thread(publish, started(job_id))
    await deployment.wait_ids(FEED, job_id)
    await asyncio.to_thread(publish, progress(job_id, 77))
    await asyncio.to_thread(publisher.close)
    entry = deployment.stored(job_id)
    assert entry is not None
    assert entry.job is not None
    assert entry.job.percentage == 77


async def test_progress_is_written_for_followers_only(deployment: Deployment, job_id: str) -> None:
    origin = run_of("alice")
    await deployment.publish(started(job_id), origin=origin)
    await deployment.wait_ids("all", job_id)

    async def publish_for(seconds: float, percentage: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            await deployment.publish(progress(job_id, percentage), origin=origin)
            await asyncio.sleep(0.05)

    await publish_for(2.5, 10)
    for feed in (FEED, "all"):
        entry = deployment.stored(job_id, feed)
        assert entry is not None
        assert entry.position.seq == 1
        [job] = await deployment.source.read_feed(feed)
        assert job.percentage == 10
    await deployment.source.subscribe_feed("all")
    await publish_for(1.5, 20)
    await deployment.wait_change("all", lambda job: job.percentage == 20)


async def test_progress_is_published_and_not_stored(deployment: Deployment, job_id: str) -> None:
    origin = run_of("alice")
    for feed in (FEED, "all"):
        await deployment.source.subscribe_feed(feed)
    await deployment.publish(started(job_id), origin=origin)
    await deployment.wait_ids("all", job_id)
    await deployment.publish(progress(job_id, 30), origin=origin)
    for feed in (FEED, "all"):
        change = await deployment.wait_change(feed, lambda job: job.percentage == 30)
        [job] = await deployment.source.read_feed(feed)
        assert change == job


async def test_progress_adds_a_job_that_its_feed_has_lost(
    deployment: Deployment, job_id: str
) -> None:
    origin = run_of("alice")
    await deployment.source.subscribe_feed(FEED)
    await deployment.publish(started(job_id), origin=origin)
    await deployment.wait_ids(FEED, job_id)
    deployment.client.delete(deployment.names.feed_of(FEED, job_id).jobs)
    await deployment.publish(progress(job_id, 30), origin=origin)
    [job] = await deployment.wait_ids(FEED, job_id)
    assert job.percentage == 30


async def test_progress_has_the_title_that_another_process_has_set(
    deployment: Deployment, job_id: str
) -> None:
    origin = run_of("alice")
    await deployment.source.subscribe_feed(FEED)
    await deployment.publish(started(job_id), origin=origin)
    await deployment.wait_ids(FEED, job_id)
    await deployment.publish_and_crash(JobInfoUpdate(job_id=job_id, title="Report"), origin=origin)
    await deployment.publish(progress(job_id, 30), origin=origin)
    await deployment.wait_change(FEED, lambda job: (job.percentage, job.title) == (30, "Report"))


async def test_a_call_writes_several_jobs_and_publishes_them_at_once(
    deployment: Deployment,
) -> None:
    ids = [new_job_id() for _ in range(5)]
    new, known, newer, gone, unknown = ids
    calls = FeedCalls(deployment.names, deployment.retention, False)
    for change in (summary(known, 1), summary(newer, 7), summary(gone, 1)):
        deployment.write(change)
    changes: list[FeedChange] = [
        summary(new, 1), summary(known, 2, "complete"), summary(newer, 6),
        FeedRemoval(gone, "e1", 2), FeedRemoval(unknown, "e1", 2),
    ]  # fmt: skip
    [write] = calls.write_all((FEED, change) for change in changes)
    assert write.jobs == ids
    with deployment.client.pubsub() as pubsub:
        pubsub.subscribe(deployment.names.feed_of(FEED, new).channel)
        assert pubsub.get_message(timeout=TIMEOUT)
        assert run_scripts(deployment.client, [write.call]) == [1]
        assert run_scripts(deployment.client, [write.call]) == [REFUSED]
        message = pubsub.get_message(timeout=TIMEOUT)
    assert message is not None
    assert parse_changes(message["data"]) == [changes[0], changes[1], changes[3]]
    keys = deployment.names.feed_of(FEED, new)
    assert {*deployment.client.zrange(keys.order, 0, -1)} == {i.encode() for i in ids[:3]}
    assert {*deployment.client.zrange(keys.ended, 0, -1)} == {
        i.encode() for i in (known, gone, unknown)
    }


async def test_full_feed_publishes_what_it_keeps(deployment: Deployment) -> None:
    size = deployment.retention.feed_size
    old, ids = new_job_id(), [new_job_id() for _ in range(size + 2)]
    deployment.write(summary(old, 1))
    calls = FeedCalls(deployment.names, deployment.retention, False)
    [write] = calls.write_all((FEED, summary(job_id, 1)) for job_id in ids)
    with deployment.client.pubsub() as pubsub:
        pubsub.subscribe(deployment.names.feed_of(FEED, old).channel)
        assert pubsub.get_message(timeout=TIMEOUT)
        assert run_scripts(deployment.client, [write.call]) == [1]
        message = pubsub.get_message(timeout=TIMEOUT)
    assert message is not None
    gone, *added = parse_changes(message["data"])
    assert gone == FeedRemoval(old, "e1", 1)
    assert [job.job_id for job in added] == ids[2:]
    keys = deployment.names.feed_of(FEED, old)
    assert deployment.client.zcard(keys.order) == deployment.client.hlen(keys.jobs) == size


async def test_batches_that_are_published_during_a_long_write_are_written(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = f"jobcast:feeds-{secrets.token_hex(4)}"
    writer = FeedWriter(Servers.at(valkey.url), Names(prefix), Retention())
    write_some, taken = writer._write_some, set[str]()
    late = [f"late-{number}" for number in range(3 * AT_ONCE)]
    unpublished = iter(late)

    def publish_meanwhile(jobs: Sequence[str]) -> None:
        for job_id in islice(unpublished, AT_ONCE):
            writer.mark([Outgoing.of(started(job_id))])
        taken.update(jobs)
        write_some(jobs)

    assert len(late) > MAX_BATCHES
    monkeypatch.setattr(writer, "_write_some", publish_meanwhile)
    writer._dirty.mark(dict.fromkeys(map(str, range(3 * AT_ONCE)), True))
    writer.mark([Outgoing.of(started("first"))])
    await eventually(lambda: taken.issuperset(late), "late jobs")
    writer.close()


async def test_publisher_can_be_used_after_it_was_closed(
    deployment: Deployment, job_id: str
) -> None:
    await deployment.publish(started(job_id), origin=run_of("alice"))
    await asyncio.to_thread(deployment.publisher.close)
    await deployment.publish(ended(job_id))
    await deployment.wait_feed(FEED, lambda jobs: jobs and jobs[0].has_ended)


@pytest.fixture
def silent_server() -> Iterator[str]:
    """The URL of a server that accepts connections, and answers nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"redis://127.0.0.1:{server.getsockname()[1]}/0"


def test_silent_server_delays_no_publisher(silent_server: str, job_id: str) -> None:
    writer = FeedWriter(Servers.at(silent_server), Names(), Retention())
    batch = [Outgoing.of(started(job_id)), Outgoing.of(JobComplete(job_id=job_id, result=1))]
    began = time.monotonic()
    for _ in range(5000):
        writer.mark(batch)
    assert time.monotonic() - began < TIMEOUT
    assert len(writer._marks) <= 1000
    writer.close(0.1)
    assert any(thread.name == "jobcast-feeds" for thread in threading.enumerate())


def test_thread_ends_with_a_publisher_that_was_not_closed(valkey: Valkey, job_id: str) -> None:
    before = threads_of_feeds()
    publisher = RedisPublisher(valkey.url, prefix=f"jobcast:feeds-{secrets.token_hex(4)}")
    publisher.publish([Outgoing.of(started(job_id))])
    assert threads_of_feeds() - before
    del publisher
    gc.collect()
    wait_until(lambda: not threads_of_feeds() - before)


def test_forked_process_writes_feeds_too(valkey: Valkey) -> None:
    prefix = f"jobcast:feeds-{secrets.token_hex(4)}"
    publisher = RedisPublisher(valkey.url, prefix=prefix)
    mine, childs = new_job_id(), new_job_id()
    publisher.publish([Outgoing.of(started(mine))])
    if (pid := os.fork()) == 0:
        with contextlib.suppress(BaseException):
            publisher.publish([Outgoing.of(started(childs))])
            publisher.close()
        os._exit(0)
    os.waitpid(pid, 0)
    publisher.close()
    with redis.Redis.from_url(valkey.url) as client:
        for job_id in (mine, childs):
            keys = Names(prefix).feed_of("all", job_id)
            data: Any = client.hget(keys.jobs, job_id)
            assert msgspec.json.decode(data.split(b" ", 2)[2])["status"] == "started"


def threads_of_feeds() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "jobcast-feeds"}


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_redis_source_has_feeds() -> None:
    assert isinstance(RedisSource("redis://localhost:1/0"), SupportsFeeds)
