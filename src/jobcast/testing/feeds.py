"""The contract of transports with feeds."""

from __future__ import annotations

import asyncio
import secrets
import time
from abc import ABC, abstractmethod
from datetime import timedelta

import pytest

from jobcast.events import JobComplete, JobInfoUpdate, JobProgress, JobStatus, now
from jobcast.feeds import JobSummary
from jobcast.testing.ends import (
    batch_of,
    described,
    eventually,
    failed,
    log,
    new_job_id,
    progress,
    publish_until_stored,
    queued,
    started,
)
from jobcast.testing.feed_ends import (
    FEED_SIZE,
    KEPT_IN_FEEDS,
    FeedEnds,
    both_feed_ends,
    on_feeds,
)
from jobcast.transports import Origin, Retention, Run
from jobcast.transports.base import FeedRemoval

BRIEF = Retention(ttl=60, size=100, feed_size=FEED_SIZE, summary_ttl=5)
LATE = 0.9  # seconds that two summaries of progress are apart at least, by any clock

ODD_OWNERS = [
    "alice smith", "{alice}", "a}b{c", "ünïcödé ☃ 漢字", "line\nbreak", "tab\tbell\x07",
    "owner:alice", "100% + 1/2", "x" * 256,
]  # fmt: skip


def run_of(owner: str | None = None) -> Origin:
    """Return the origin of a new run."""
    return Origin(owner, Run(secrets.token_hex(4), 1, secrets.token_hex(4)))


def created(event: JobStatus, minutes: float) -> JobStatus:
    """Return the status of a job that was created some minutes ago."""
    return described(event, created_at=now() - timedelta(minutes=minutes))


def ended(job_id: str, minutes: float = 0) -> JobComplete:
    """Return the end of a job, some minutes ago."""
    return JobComplete(job_id=job_id, result=1, timestamp=now() - timedelta(minutes=minutes))


class FeedContract(ABC):
    """The tests for transports with feeds. Use it like a ``TransportContract``."""

    @pytest.fixture
    @abstractmethod
    def transport_url(self) -> str:
        """The URL of the transport under test, whose server is running."""

    @pytest.fixture
    def worker_url(self, transport_url: str) -> str:
        """The URL for workers; override it if workers have fewer permissions than servers."""
        return transport_url

    @on_feeds()
    async def test_feed_has_the_summary_of_each_job(self, ends: FeedEnds, owner: str) -> None:
        job_id, at = new_job_id(), now()
        origin = run_of(owner)
        sent = described(queued(job_id), created_at=at, task="a.b", title="T", tags=("x", "y"))
        begun = described(started(job_id), queue="q", worker="w", parent="7")
        await ends.publish(sent, begun, progress(job_id, 40), origin=origin)
        [job] = await ends.wait_feed(f"owner:{owner}", lambda jobs: jobs and jobs[0].percentage)
        assert job == JobSummary(
            job_id=job_id, epoch=job.epoch, seq=3, status="started", created_at=at, task="a.b",
            title="T", tags=("x", "y"), owner=owner, queue="q", worker="w", parent="7",
            started_at=begun.timestamp, attempt=1, percentage=40,
        )  # fmt: skip
        for feed in ("all", "tag:x", "tag:y"):
            assert [job] == await ends.wait_ids(feed, job_id)
        assert await ends.source.read_feed("tag:z") == []

    @on_feeds()
    async def test_summary_of_an_ended_job_has_how_it_ended(
        self, ends: FeedEnds, owner: str
    ) -> None:
        good, bad = new_job_id(), new_job_id()
        end = JobComplete(job_id=good, result="x" * 100_000)
        error = failed(bad)
        await ends.publish(started(good), progress(good, 30), end, origin=run_of(owner))
        await ends.publish(started(bad), error, origin=run_of(owner))
        jobs = await ends.wait_feed(
            f"owner:{owner}", lambda jobs: len(jobs) == 2 and all(job.has_ended for job in jobs)
        )
        by_id = {job.job_id: job for job in jobs}
        assert (by_id[good].status, by_id[good].percentage) == ("complete", 30)
        assert (by_id[good].seq, by_id[good].ended_at) == (3, end.timestamp)
        assert (by_id[bad].status, by_id[bad].reason) == ("error", "failure")
        assert by_id[bad].ended_at == error.timestamp

    @on_feeds()
    async def test_changes_of_subscribed_feeds_arrive(self, ends: FeedEnds, owner: str) -> None:
        job_id, other = new_job_id(), new_job_id()
        feeds = (f"owner:{owner}", "tag:x", "all")
        for feed in feeds:
            await ends.source.subscribe_feed(feed)
        await ends.source.subscribe_feed("tag:y")
        await ends.source.unsubscribe_feed("tag:y")
        origin = run_of(owner)
        await ends.publish(described(started(job_id), tags=("x", "y")), origin=origin)
        await ends.publish(described(started(other), tags=("y",)), origin=run_of("another"))
        for feed in feeds:
            await ends.wait_change(feed, lambda job: job.status == "started")
        await ends.wait_change("all", lambda job: job.job_id == other)
        await ends.publish(JobComplete(job_id=job_id, result=1), origin=origin)
        for feed in feeds:
            await ends.wait_change(feed, lambda job: job.status == "complete")
        seen = {(feed, change.job_id) for feed, change in ends.changes}
        assert seen == {*((feed, job_id) for feed in feeds), ("all", other)}

    @on_feeds()
    async def test_newest_job_is_the_first(self, ends: FeedEnds, owner: str) -> None:
        ids = [f"{place}-{new_job_id()}" for place in range(4)]
        for job_id, minutes in zip(ids, (5, 1, 9, 5), strict=True):
            await ends.publish(created(queued(job_id), minutes), origin=run_of(owner))
        await ends.wait_feed(f"owner:{owner}", lambda jobs: len(jobs) == 4)
        order = [job.job_id for job in await ends.source.read_feed(f"owner:{owner}")]
        assert (order[0], order[3]) == (ids[1], ids[2])
        assert {*order[1:3]} == {ids[0], ids[3]}

    @on_feeds()
    async def test_progress_is_sent_once_a_second_and_the_last_one_follows(
        self, ends: FeedEnds, owner: str
    ) -> None:
        job_id, origin, feed = new_job_id(), run_of(owner), f"owner:{owner}"
        await ends.source.subscribe_feed(feed)
        await ends.publish(started(job_id), origin=origin)
        await ends.wait_change(feed, lambda job: job.status == "started")
        began, percentage = time.monotonic(), 0
        # Many more than are sent, even if the store of a busy machine takes them slowly.
        while time.monotonic() - began < 2.5 or percentage < 30:
            percentage += 1
            await ends.publish(progress(job_id, percentage / 100), origin=origin)
            await asyncio.sleep(0.01)
        last = await ends.wait_change_after_publishing(
            feed, lambda job: job.percentage == percentage / 100
        )
        took = time.monotonic() - began
        assert isinstance(last, JobSummary)
        sent = ends.summaries(feed, job_id)
        assert 2 <= len(sent) <= 2 + took / LATE
        assert percentage > 2 * len(sent)

    @on_feeds()
    async def test_endings_do_not_wait_for_the_next_second(
        self, ends: FeedEnds, owner: str
    ) -> None:
        feed = f"owner:{owner}"
        await ends.source.subscribe_feed(feed)
        for _ in range(3):
            job_id, origin = new_job_id(), run_of(owner)
            await ends.publish(started(job_id), progress(job_id, 1), origin=origin)
            await ends.wait_summary(feed, job_id, "started")
            await ends.publish(progress(job_id, 99), ended(job_id), origin=origin)
            assert (await ends.wait_summary(feed, job_id, "complete")).percentage == 99

    @on_feeds()
    async def test_log_lines_change_no_feed(self, ends: FeedEnds, owner: str) -> None:
        job_id, origin, feed = new_job_id(), run_of(owner), f"owner:{owner}"
        await ends.source.subscribe_feed(feed)
        await ends.publish(started(job_id), origin=origin)
        await ends.wait_change(feed, lambda job: job.status == "started")
        await ends.publish(*(log(job_id, n) for n in range(50)), origin=origin)
        await ends.publish(ended(job_id), origin=origin)
        await ends.wait_change(feed, lambda job: job.status == "complete")
        assert [job.status for job in ends.summaries(feed, job_id)] == ["started", "complete"]

    @on_feeds()
    async def test_full_feed_loses_the_job_that_ended_first_and_then_the_oldest(
        self, ends: FeedEnds, owner: str
    ) -> None:
        feed, ids = f"owner:{owner}", [new_job_id() for _ in range(FEED_SIZE + 3)]
        await ends.source.subscribe_feed(feed)

        async def begin(place: int) -> None:
            event = created(started(ids[place]), minutes=60 - place)
            await ends.publish(event, origin=run_of(owner))
            await ends.wait_change(feed, lambda change: change.job_id == ids[place])

        for place in range(FEED_SIZE):
            await begin(place)
        await ends.publish(ended(ids[2], minutes=3), ended(ids[1], minutes=2))
        for job_id in (ids[1], ids[2]):
            await ends.wait_summary(feed, job_id, "complete")
        for place, gone in enumerate((2, 1, 0), FEED_SIZE):
            await begin(place)
            await ends.wait_removal(feed, ids[gone])
        await ends.wait_ids(feed, *reversed(ids[3:]))

    @on_feeds(BRIEF)
    async def test_ended_job_leaves_its_feeds_after_the_summary_ttl(
        self, ends: FeedEnds, owner: str
    ) -> None:
        feed, first, second = f"owner:{owner}", new_job_id(), new_job_id()
        await ends.source.subscribe_feed(feed)
        await ends.publish(started(first), ended(first), origin=run_of(owner))
        await ends.publish(started(second), origin=run_of(owner))
        await ends.wait_change(feed, lambda job: job.job_id == first and job.ended_at)
        await ends.wait_ids(feed, second)
        await ends.publish(ended(second))
        await ends.wait_removal(feed, first)

    @on_feeds()
    async def test_job_without_an_owner_is_in_the_feed_of_all(
        self, ends: FeedEnds, owner: str
    ) -> None:
        job_id = new_job_id()
        await ends.publish(started(job_id))
        [job] = await ends.wait_ids("all", job_id)
        assert "owner" not in job.info.fields
        await ends.publish(started(job_id), origin=run_of(owner))
        [owned] = await ends.wait_ids(f"owner:{owner}", job_id)
        assert owned.epoch > job.epoch

    @on_feeds()
    async def test_owner_may_have_any_characters(self, ends: FeedEnds, owner: str) -> None:
        ids = {odd: new_job_id() for odd in ODD_OWNERS}
        for odd in ODD_OWNERS:
            await ends.source.subscribe_feed(f"owner:{odd}")
        for odd, job_id in ids.items():
            await ends.publish(
                described(started(job_id), tags=(f"of {owner}",)), origin=run_of(odd)
            )
        for odd, job_id in ids.items():
            await ends.wait_ids(f"owner:{odd}", job_id)
            await ends.wait_summary(f"owner:{odd}", job_id, "started")
        tagged = await ends.wait_feed(f"tag:of {owner}", lambda jobs: len(jobs) == FEED_SIZE)
        assert {job.owner for job in tagged} <= {*ODD_OWNERS}

    @on_feeds()
    async def test_job_of_a_new_owner_leaves_the_former_owners_feeds(
        self, ends: FeedEnds, owner: str
    ) -> None:
        job_id, other = new_job_id(), f"{owner}-2"
        hers, his = f"owner:{owner}", f"owner:{other}"
        for feed in (hers, his, "tag:x", "all"):
            await ends.source.subscribe_feed(feed)
        await ends.publish(described(started(job_id), tags=("x",)), origin=run_of(owner))
        for feed in (hers, "tag:x", "all"):
            await ends.wait_change(feed, lambda job: job.owner == owner)
        await ends.publish(started(job_id), origin=run_of(other))
        await ends.wait_removal(hers, job_id)
        await ends.wait_removal("tag:x", job_id)
        await ends.wait_change(his, lambda job: job.owner == other)
        await ends.wait_change("all", lambda job: job.owner == other)
        assert await ends.source.read_feed(hers) == await ends.source.read_feed("tag:x") == []
        [job] = await ends.source.read_feed(his)
        assert (job.owner, job.tags) == (other, ())
        assert not any(name == hers and getattr(c, "owner", owner) != owner
                       for name, c in ends.changes)  # fmt: skip

    @on_feeds()
    async def test_record_of_a_new_owner_has_a_later_epoch(
        self, ends: FeedEnds, owner: str
    ) -> None:
        job_id = new_job_id()
        await ends.publish(started(job_id), log(job_id), log(job_id), origin=run_of(owner))
        [before] = await ends.wait_feed("all", lambda jobs: jobs and jobs[0].seq == 3)
        await ends.publish(started(job_id), origin=run_of(f"{owner}-2"))
        [after] = await ends.wait_feed("all", lambda jobs: jobs[0].owner != owner)
        assert after.epoch > before.epoch
        assert after.seq < before.seq

    @on_feeds()
    async def test_tag_that_is_added_by_the_run_adds_the_job_to_its_feed(
        self, ends: FeedEnds, owner: str
    ) -> None:
        job_id, origin = new_job_id(), run_of(owner)
        await ends.source.subscribe_feed("tag:late")
        await ends.publish(described(started(job_id), tags=("early",)), origin=origin)
        update = JobInfoUpdate(job_id=job_id, title="New", tags=("late",))
        await ends.publish(update, origin=origin)
        change = await ends.wait_change("tag:late", lambda job: job.job_id == job_id)
        assert isinstance(change, JobSummary)
        assert (change.title, change.tags) == ("New", ("early", "late"))
        for feed in ("tag:early", "tag:late", f"owner:{owner}"):
            assert [change.tags] == [job.tags for job in await ends.wait_ids(feed, job_id)]

    @on_feeds()
    async def test_new_run_with_other_tags_leaves_the_feeds_of_the_former_tags(
        self, ends: FeedEnds, owner: str
    ) -> None:
        job_id = new_job_id()
        for tag in ("old", "both"):
            await ends.source.subscribe_feed(f"tag:{tag}")
        await ends.publish(described(started(job_id), tags=("old", "both")), origin=run_of(owner))
        await ends.wait_change("tag:old", lambda job: job.status == "started")
        await ends.publish(ended(job_id))
        await ends.wait_change("tag:old", lambda job: job.status == "complete")
        again = described(started(job_id), tags=("new", "both"))
        await ends.publish(again, origin=run_of(owner))
        await ends.wait_removal("tag:old", job_id)
        [job] = await ends.wait_ids("tag:new", job_id)
        assert (job.status, job.tags) == ("started", ("new", "both"))
        assert "ended_at" not in {n for n in job.__struct_fields__ if getattr(job, n)}
        assert [job] == await ends.wait_ids("tag:both", job_id)
        assert await ends.source.read_feed("tag:old") == []
        assert not any(
            isinstance(change, FeedRemoval) for feed, change in ends.changes if feed == "tag:both"
        )

    @on_feeds()
    async def test_late_events_revive_no_ended_job(self, ends: FeedEnds, owner: str) -> None:
        job_id, origin = new_job_id(), run_of(owner)
        await ends.source.subscribe_feed(f"owner:{owner}")
        await ends.publish(started(job_id), ended(job_id), origin=origin)
        await ends.publish(
            progress(job_id, 50), JobStatus(job_id=job_id, status="stalled"), origin=origin
        )
        await ends.publish(JobProgress(job_id=job_id, percentage=60), origin=origin)
        marker = new_job_id()
        await ends.publish(started(marker), origin=run_of(owner))
        await ends.wait_change(f"owner:{owner}", lambda job: job.job_id == marker)
        last = ends.summaries(f"owner:{owner}", job_id)[-1]
        assert (last.status, last.seq) == ("complete", 2)
        jobs = await ends.source.read_feed(f"owner:{owner}")
        assert last in jobs

    @on_feeds()
    async def test_prefixes_separate_feeds(self, ends: FeedEnds, owner: str) -> None:
        async with both_feed_ends(ends.url, ends.worker_url) as other:
            await ends.source.subscribe_feed("all")
            await other.source.subscribe_feed("all")
            mine, theirs = new_job_id(), new_job_id()
            await other.publish(started(theirs), origin=run_of(owner))
            await ends.publish(started(mine), origin=run_of(owner))
            await other.wait_change("all", lambda job: job.job_id == theirs)
            await ends.wait_change("all", lambda job: job.job_id == mine)
            assert {change.job_id for _, change in ends.changes} == {mine}
            await ends.wait_ids(f"owner:{owner}", mine)
            await other.wait_ids(f"owner:{owner}", theirs)

    @on_feeds(Retention(feed_size=0))
    async def test_size_of_zero_keeps_no_feeds(self, ends: FeedEnds, owner: str) -> None:
        job_id = new_job_id()
        await ends.source.subscribe_feed("all")
        await ends.publish(started(job_id), ended(job_id), origin=run_of(owner))
        async with both_feed_ends(ends.url, ends.worker_url, KEPT_IN_FEEDS) as other:
            await other.publish(started(job_id), origin=run_of(owner))
            await other.wait_ids("all", job_id)
        assert await ends.source.read_feed("all") == []
        assert ends.changes == []


class InterruptedFeedContract(FeedContract):
    """The tests for transports with feeds whose connections can break."""

    @abstractmethod
    def interrupt(self) -> None:
        """Cut every connection to the server, or restart it without losing its data."""

    @on_feeds()
    async def test_feeds_are_complete_after_an_interruption(
        self, ends: FeedEnds, owner: str
    ) -> None:
        feed, before, after = f"owner:{owner}", new_job_id(), new_job_id()
        await ends.source.subscribe_feed(feed)
        origin = run_of(owner)
        await ends.publish(started(before), origin=origin, first=1)
        await ends.wait_change(feed, lambda job: job.job_id == before)
        await asyncio.to_thread(self.interrupt)
        batch = batch_of([ended(before)], origin, 2)
        await publish_until_stored(ends.publisher, batch)
        another = run_of(owner)
        batch = batch_of([started(after)], another, 1)
        await publish_until_stored(ends.publisher, batch)
        await eventually(lambda: ends.manager.source.ready, "source that is ready again")
        jobs = await ends.wait_feed(feed, lambda jobs: len(jobs) == 2)
        assert {job.job_id: job.status for job in jobs} == {before: "complete", after: "started"}
        batch = batch_of([ended(after)], another, 2)
        await publish_until_stored(ends.publisher, batch)
        await ends.wait_change(feed, lambda job: job.job_id == after and job.has_ended)
