"""The rooms of a process: reads, failures, lingering, and event loops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from jobcast.errors import TransportUnavailable
from jobcast.feeds import NO_FILTER, JobSummary
from jobcast.realtime.feeds import rooms
from jobcast.realtime.feeds.follower import FeedFollower
from jobcast.realtime.feeds.rooms import FeedRooms
from jobcast.realtime.feeds.sender import FeedSender
from jobcast.settings import Settings
from jobcast.transports import Retention
from jobcast.transports.base import FeedChange
from tests.support import eventually
from tests.unit.realtime.feeds.summaries import FEED, Recorder, job


class Source:
    """A source of feeds whose reads a test controls."""

    ready = True

    def __init__(self, *jobs: JobSummary) -> None:
        self.jobs = list(jobs)
        self.subscribed: list[str] = []
        self.reads = 0
        self.failures = 0  # reads to fail
        self.gate = asyncio.Event()
        self.gate.set()
        self.on_change: Callable[[str, FeedChange], None]

    def watch_feeds(self, on_change: Callable[[str, FeedChange], None]) -> None:
        self.on_change = on_change

    async def subscribe_feed(self, feed: str) -> None:
        self.subscribed.append(feed)

    async def unsubscribe_feed(self, feed: str) -> None:
        self.subscribed.remove(feed)

    async def read_feed(self, feed: str) -> list[JobSummary]:
        del feed
        self.reads += 1
        found = list(self.jobs)
        await self.gate.wait()
        if self.failures:
            self.failures -= 1
            raise TransportUnavailable("the store is down")
        return found


def rooms_of(source: Source) -> FeedRooms:
    opened = FeedRooms(cast("Any", source), Retention())
    opened.start()
    return opened


async def content(opened: FeedRooms, feed: str = FEED) -> list[int]:
    async with opened.use(feed) as room:
        return sorted(entry.job.seq for entry in room.listing)


async def test_requests_at_once_share_one_read() -> None:
    source = Source(job(1))
    opened = rooms_of(source)
    assert await asyncio.gather(*(content(opened) for _ in range(20))) == [[1]] * 20
    assert (source.reads, source.subscribed) == (1, [FEED])
    await opened.aclose()


async def test_feed_that_cannot_be_read_is_tried_again_by_the_next_request() -> None:
    source = Source(job(1))
    source.failures = 1
    opened = rooms_of(source)
    with pytest.raises(TransportUnavailable):
        await content(opened)
    await eventually(lambda: source.subscribed == [], "the end of the subscription")
    assert await content(opened) == [1]
    await opened.aclose()


async def test_unreached_transport_refuses_although_the_room_is_in_memory() -> None:
    source = Source(job(1))
    opened = rooms_of(source)
    assert await content(opened) == [1]
    source.ready = False
    with pytest.raises(TransportUnavailable):
        await content(opened)
    await opened.aclose()


async def test_interruption_during_a_read_repeats_the_read() -> None:
    source = Source(job(1, seq=1))
    opened = rooms_of(source)
    source.gate.clear()
    waiting = asyncio.create_task(content(opened))
    await eventually(lambda: source.reads == 1, "the read")
    source.jobs = [job(1, seq=2)]
    opened.resumed()
    source.gate.set()
    assert await waiting == [2]
    assert source.reads == 2
    await opened.aclose()


async def test_interruption_of_a_followed_feed_is_repaired_after_failed_reads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rooms, "RETRY_DELAY", 0.01)
    source = Source(job(1, seq=1))
    opened = rooms_of(source)
    recorder = Recorder()
    sender = FeedSender(recorder, Settings(), "/")
    async with opened.use(FEED) as room:
        follower = FeedFollower("mine", room, NO_FILTER, sender)
        sender.followers["mine"] = follower
        opened.follow(follower)
    follower.next_page(None, 10)
    source.jobs = [job(2, seq=1)]
    source.failures = 3
    opened.resumed()
    await eventually(lambda: len(recorder.packets) == 2, "the difference")
    assert sorted(recorder.take()) == [("feed_gone", "job-1"), ("feed_job", "job-2")]
    assert source.reads == 5
    await opened.aclose()


async def test_unused_room_closes_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "LINGER", 0.05)
    source = Source(job(1))
    opened = rooms_of(source)
    assert await content(opened) == [1]
    assert source.subscribed == [FEED]
    await eventually(lambda: source.subscribed == [], "the end of the subscription")
    await opened.aclose()


async def test_unused_rooms_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "MAX_LINGERING", 500)
    source = Source()
    opened = rooms_of(source)
    for number in range(50):
        await content(opened, f"tag:{number}")
    await eventually(lambda: len(source.subscribed) <= 10, "the end of subscriptions")
    assert source.subscribed[-1] == "tag:49"
    await opened.aclose()


async def test_cancelled_request_leaves_the_read_to_the_others() -> None:
    source = Source(job(1))
    opened = rooms_of(source)
    source.gate.clear()
    first, second = (asyncio.create_task(content(opened)) for _ in range(2))
    await eventually(lambda: source.reads == 1, "the read")
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    source.gate.set()
    assert await second == [1]
    await opened.aclose()


def test_rooms_start_over_in_another_event_loop() -> None:
    source = Source(job(1))
    opened = FeedRooms(cast("Any", source), Retention())

    async def use() -> list[int]:
        opened.start()
        return await content(opened)

    assert [asyncio.run(use()) for _ in range(3)] == [[1]] * 3
    assert source.reads == 3


async def test_source_without_feeds_has_none() -> None:
    opened = FeedRooms(cast("Any", object()), Retention())
    opened.start()
    assert not opened.are_available
    assert not FeedRooms(cast("Any", Source()), Retention(feed_size=0)).are_available
    await opened.aclose()
