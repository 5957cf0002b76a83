"""The feeds of jobs whose records are in memory."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobcast.events import JobComplete, JobEvent, JobInfoUpdate, JobProgress, JobStatus
from jobcast.feeds import JobSummary
from jobcast.transports import Origin, Outgoing, Retention, Run, open_manager, open_publisher
from jobcast.transports.base import FeedRemoval, SupportsFeeds
from jobcast.transports.local_feeds import Change, LocalFeeds
from jobcast.transports.record import Records

NOW = datetime(2026, 1, 8, tzinfo=UTC)
DAY = 24 * 3600


class Store:
    """Records with their feeds, and a clock."""

    def __init__(self, **options: Any) -> None:
        retention = Retention(feed_size=3, summary_ttl=DAY)
        self.now = NOW.timestamp()
        self.records = Records(retention, **options)
        self.feeds = LocalFeeds(self.records, retention, lambda: self.now, max_entries=50)

    def add(self, *events: JobEvent, owner: str | None = None, run: str = "") -> list[Change]:
        origin = Origin(owner, Run(run, 1, run)) if run else Origin(owner)
        for event in events:
            outgoing = Outgoing.of(event, origin)
            self.records.add(outgoing)
            self.feeds.mark([outgoing])
        return self.feeds.refresh()

    def ids(self, feed: str) -> list[str]:
        return [job.job_id for job in self.feeds.read(feed)[0]]


@pytest.fixture
def store() -> Store:
    return Store()


def started(job_id: str, hours: float = 0, **fields: Any) -> JobStatus:
    at = NOW - timedelta(hours=hours)
    return JobStatus(job_id=job_id, status="started", timestamp=at, **fields)


def ended(job_id: str, hours: float = 0) -> JobComplete:
    return JobComplete(job_id=job_id, result=1, timestamp=NOW - timedelta(hours=hours))


def removals(changes: Sequence[Change]) -> set[tuple[str, str]]:
    return {(feed, change.job_id) for feed, change in changes if isinstance(change, FeedRemoval)}


def test_job_is_in_the_feeds_of_its_owner_and_tags(store: Store) -> None:
    changes = store.add(started("a", tags=("x",)), owner="alice")
    assert [feed for feed, _ in changes] == ["all", "owner:alice", "tag:x"]
    assert len({change for _, change in changes}) == 1
    for feed in ("all", "owner:alice", "tag:x"):
        assert store.ids(feed) == ["a"]
    assert store.ids("owner:bob") == store.ids("tag:y") == []


def test_tag_that_is_added_later_adds_the_job_to_its_feed(store: Store) -> None:
    store.add(started("a"))
    store.add(JobInfoUpdate(job_id="a", tags=("x",)))
    assert store.ids("tag:x") == ["a"]


def test_job_of_another_owner_leaves_the_former_owners_feed(store: Store) -> None:
    store.add(started("a", tags=("x",)), owner="alice", run="a")
    changes = store.add(started("a"), owner="bob", run="b")
    assert removals(changes) == {("owner:alice", "a"), ("tag:x", "a")}
    assert (store.ids("owner:alice"), store.ids("owner:bob")) == ([], ["a"])


def test_full_feed_drops_the_job_that_ended_first_and_then_the_oldest(store: Store) -> None:
    store.add(started("a", 9), started("b", 8), started("c", 7), owner="alice")
    store.add(ended("c", 6), ended("b", 5), owner="alice")
    assert removals(store.add(started("d"), owner="alice")) == {("owner:alice", "c")}
    assert removals(store.add(started("e"), owner="alice")) == {("owner:alice", "b")}
    assert removals(store.add(started("f"), owner="alice")) == {("owner:alice", "a")}
    assert store.ids("owner:alice") == ["d", "e", "f"]
    assert len(store.ids("all")) == 6


def test_job_that_does_not_fit_is_not_announced(store: Store) -> None:
    store.add(started("a"), started("b"), started("c"), owner="alice")
    changes = store.add(started("old", 9), owner="alice")
    assert [feed for feed, _ in changes] == ["all"]


def test_ended_job_expires_from_feeds(store: Store) -> None:
    store.add(started("a", 30), ended("a", 23), started("b", 30), owner="alice")
    assert store.ids("all") == ["a", "b"]
    store.now += 3601
    jobs, changes = store.feeds.read("all")
    assert [job.job_id for job in jobs] == ["b"]
    assert removals(changes) == {("all", "a")}
    assert removals(store.add(started("c"), owner="alice")) == {("owner:alice", "a")}


def test_end_in_the_future_expires_like_an_end_now(store: Store) -> None:
    store.add(started("a"), ended("a", hours=-1000))
    store.now += DAY
    assert store.ids("all") == []


def test_running_job_without_a_record_leaves_all_feeds() -> None:
    store = Store(max_records=2)
    store.add(started("a", tags=("x",)), owner="alice")
    store.add(started("b"), started("c"), started("d"))
    jobs, changes = store.feeds.read("owner:alice")
    assert jobs == []
    assert removals(changes) == {("all", "a"), ("owner:alice", "a"), ("tag:x", "a")}


def test_ended_job_outlives_its_record() -> None:
    store = Store(max_records=2)
    store.add(started("a"), ended("a"), owner="alice")
    store.add(started("b"), started("c"), started("d"))
    assert store.records.get("a") is None
    assert [job.status for job in store.feeds.read("owner:alice")[0]] == ["complete"]


def test_reading_repairs_a_summary_that_was_not_written(store: Store) -> None:
    store.add(started("a"), owner="alice")
    store.records.add(Outgoing.of(ended("a")))
    jobs, changes = store.feeds.read("owner:alice")
    assert [job.status for job in jobs] == ["complete"]
    assert [feed for feed, _ in changes] == ["all", "owner:alice"]
    assert store.feeds.read("owner:alice") == (jobs, [])


def test_reading_after_an_epoch_was_renewed_repairs_the_positions(store: Store) -> None:
    store.add(started("a"))
    [before] = store.feeds.read("all")[0]
    store.records.renew_epoch()
    [after] = store.feeds.read("all")[0]
    assert after.epoch > before.epoch


def test_all_feeds_together_are_bounded(store: Store) -> None:
    for number in range(60):
        store.add(started(f"{number}"), owner=f"{number}")
    entries = sum(len(store.ids(f"owner:{number}")) for number in range(60))
    assert entries + len(store.ids("all")) <= 50
    assert store.ids("owner:59") == ["59"]
    assert store.ids("owner:0") == []


def test_invalid_event_fails_nothing(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    outgoing = Outgoing(job_id="a", kind="s", head="garbage", state="started")
    store.records.add(outgoing)
    store.feeds.mark([outgoing])
    assert store.feeds.refresh() == []
    assert "job a: no feed has it" in caplog.text


def test_size_of_zero_keeps_no_feeds() -> None:
    retention = Retention(feed_size=0)
    records = Records(retention)
    feeds = LocalFeeds(records, retention)
    outgoing = Outgoing.of(started("a"))
    records.add(outgoing)
    feeds.mark([outgoing])
    assert (feeds.refresh(), feeds.read("all"), feeds.due_in) == ([], ([], []), None)


async def test_memory_source_sends_the_changes_of_subscribed_feeds_only() -> None:
    url = f"memory://{secrets.token_hex(4)}"
    publisher, source = open_publisher(url), open_manager(url).source
    assert isinstance(source, SupportsFeeds)
    changes: list[tuple[str, object]] = []
    arrived = asyncio.Event()

    def changed(feed: str, change: object) -> None:
        changes.append((feed, change))
        arrived.set()

    async def resumed() -> None:
        raise AssertionError("nothing was interrupted")

    source.start(lambda *_: None, resumed)
    source.watch_feeds(changed)
    await source.subscribe_feed("owner:alice")
    await source.subscribe_feed("owner:bob")
    await source.unsubscribe_feed("owner:bob")
    events = (started("a"), JobProgress(job_id="a", percentage=5))
    for owner in ("bob", "alice"):
        origin = Origin(owner, Run(owner, 1, owner))
        await asyncio.to_thread(publisher.publish, [Outgoing.of(event, origin) for event in events])
    await asyncio.wait_for(arrived.wait(), 30)
    [(feed, change)] = changes
    assert isinstance(change, JobSummary)
    assert (feed, change.percentage, change.owner) == ("owner:alice", 5, "alice")
    assert await source.read_feed("owner:alice") == [change]
    assert await source.read_feed("owner:bob") == []
    await source.aclose()
