"""Followers of a feed: windows, filters, and changes that are sent once and within the limits."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobcast.feeds import NO_FILTER, FeedFilter, JobSummary
from jobcast.realtime.feeds.follower import FeedFollower
from jobcast.realtime.feeds.room import FeedRoom
from jobcast.realtime.feeds.sender import FLUSH_INTERVAL, FeedSender
from jobcast.settings import Settings
from jobcast.transports.base import FeedRemoval, Message
from tests.support import eventually
from tests.unit.realtime.feeds.summaries import FEED, NOON, Recorder, job

RUNNING = FeedFilter(status=("running",))
DOMAIN = 6  # jobs of the property test


class QuietSender(FeedSender):
    """A sender that sends nothing by itself."""

    def __init__(self) -> None:
        super().__init__(Recorder(), Settings(), "/")
        self.urgent = 0

    def wake(self, *, urgent: bool = False) -> None:
        self.urgent += urgent


def follow(
    room: FeedRoom, wanted: FeedFilter = NO_FILTER, sender: FeedSender | None = None
) -> FeedFollower:
    sender = QuietSender() if sender is None else sender
    follower = FeedFollower("mine", room, wanted, sender)
    room.followers[follower] = None
    sender.followers["mine"] = follower
    return follower


def room_of(*jobs: JobSummary) -> FeedRoom:
    room = FeedRoom(FEED, 100)
    room.begin_read()
    room.finish_read(jobs)
    return room


def named(messages: list[Message]) -> list[str]:
    """The name of each message, and its job."""
    return [message.packet[4:].partition('"')[0] + " " + _job(message) for message in messages]


def _job(message: Message) -> str:
    return message.packet.partition('"job_id":"')[2].partition('"')[0]


def take(follower: FeedFollower, limit: int = 1000, **options: Any) -> list[str]:
    return named(follower.take(limit, 1_000_000, **options))


def test_changes_of_a_job_are_conflated() -> None:
    room = room_of(job(1))
    follower = follow(room)
    follower.next_page(None, 100)
    for seq in range(2, 50):
        room.change(job(1, seq=seq))
    [message] = follower.take(100, 1_000_000)
    assert '"seq":49' in message.packet
    assert take(follower) == []


def test_jobs_outside_the_window_are_not_sent_and_newer_jobs_are() -> None:
    room = room_of(*map(job, range(5)))
    follower = follow(room)
    page = follower.next_page(None, 2)
    assert [entry.job.job_id for entry in page.entries] == ["job-4", "job-3"]
    room.change(job(2, seq=2))
    room.change(job(3, seq=2))
    room.change(job(9))
    assert take(follower) == ["feed_job job-3", "feed_job job-9"]
    page = follower.next_page(page.end, 2)
    assert [(entry.job.job_id, entry.job.seq) for entry in page.entries] == [
        ("job-2", 2),
        ("job-1", 1),
    ]
    room.change(job(1, seq=2))
    room.change(job(0, seq=2))
    assert take(follower) == ["feed_job job-1"]


def test_window_of_a_client_that_has_all_jobs_is_open() -> None:
    room = room_of(job(3))
    follower = follow(room)
    assert follower.next_page(None, 1).end is None
    room.change(job(1))
    assert take(follower) == ["feed_job job-1"]


def test_cursor_beyond_the_window_leaves_no_hole() -> None:
    room = room_of(*map(job, range(6)))
    follower = follow(room)
    follower.next_page(None, 2)
    beyond = room.listing.page(NO_FILTER, None, 4).end
    page = follower.next_page(beyond, 2)
    assert [entry.job.job_id for entry in page.entries] == ["job-3", "job-2"]


def test_repeated_request_for_older_jobs_does_not_narrow_the_window() -> None:
    room = room_of(*map(job, range(6)))
    follower = follow(room)
    first = follower.next_page(None, 2)
    follower.next_page(first.end, 2)
    follower.next_page(first.end, 1)
    room.change(job(2, seq=2))
    assert take(follower) == ["feed_job job-2"]


def test_job_that_no_longer_matches_is_gone_once() -> None:
    room = room_of(job(1), job(2, status="queued"))
    follower = follow(room, RUNNING)
    follower.next_page(None, 10)
    room.change(job(1, seq=2, status="complete"))
    room.change(job(2, seq=2, status="complete"))
    assert take(follower) == ["feed_gone job-1"]
    room.change(job(1, seq=3, status="started"))
    room.change(job(1, seq=4, status="complete"))
    assert take(follower) == []


def test_job_that_appears_and_disappears_before_a_flush_is_not_sent() -> None:
    room = room_of()
    follower = follow(room)
    follower.next_page(None, 10)
    for number in range(50):
        room.change(job(number))
        room.change(FeedRemoval(f"job-{number}", "a", 2))
    assert not follower.has_pending
    assert take(follower) == []


def test_removed_job_is_gone() -> None:
    room = room_of(job(1))
    follower = follow(room)
    follower.next_page(None, 10)
    room.change(job(1, seq=2))
    room.change(FeedRemoval("job-1", "a", 3))
    assert take(follower) == ["feed_gone job-1"]


def test_endings_come_first_and_are_urgent() -> None:
    room = room_of(job(1), job(2), job(3, status="complete"))
    follower = follow(room)
    sender = follower.sender
    assert isinstance(sender, QuietSender)
    follower.next_page(None, 10)
    room.change(job(1, seq=2))
    room.change(job(3, seq=2, status="complete", title="later"))
    assert sender.urgent == 0
    room.change(job(2, seq=2, status="error"))
    assert sender.urgent == 1
    assert take(follower, urgent=True) == ["feed_job job-2"]
    assert take(follower, urgent=True) == []
    assert take(follower) == ["feed_job job-1", "feed_job job-3"]


def test_difference_after_another_read_is_sent() -> None:
    room = room_of(job(1), job(2), job(3))
    follower = follow(room)
    follower.next_page(None, 10)
    room.begin_read()
    room.finish_read([job(2), job(3, seq=5), job(4)])
    assert sorted(take(follower)) == ["feed_gone job-1", "feed_job job-3", "feed_job job-4"]


def test_number_and_size_of_a_flush_are_bounded_and_every_job_has_a_turn() -> None:
    room = room_of(*map(job, range(10)))
    follower = follow(room)
    follower.next_page(None, 10)
    sent: list[str] = []
    for seq in range(2, 7):
        for number in range(10):
            room.change(job(number, seq=seq))
        sent += take(follower, limit=2)
    assert sorted(sent) == [f"feed_job job-{number}" for number in range(10)]
    for number in range(10):
        room.change(job(number, seq=9))
    assert len(follower.take(100, 1)) == 1


steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("change"),
            st.integers(0, DOMAIN - 1),
            st.sampled_from(["queued", "started", "complete", ""]),
            st.integers(0, 3),
        ),
        st.tuples(st.just("flush"), st.integers(1, 3)),
        st.tuples(st.just("page"), st.integers(1, 3)),
        st.tuples(st.just("read"), st.lists(st.integers(0, DOMAIN - 1), unique=True)),
    ),
    max_size=40,
)


@given(steps, st.sampled_from([NO_FILTER, RUNNING]))
@settings(max_examples=300)
def test_client_shows_the_matching_jobs_of_its_window(
    steps: list[tuple[Any, ...]], wanted: FeedFilter
) -> None:
    """Whatever happens, the client shows the room after everything was flushed."""
    room = room_of(job(0), job(1))
    follower = follow(room, wanted)
    client: dict[str, int] = {}
    seq, end = 1, None

    def flush(limit: int) -> None:
        for message in follower.take(limit, 1_000_000):
            name = message.packet[4:].partition('"')[0]
            if name == "feed_gone":
                del client[_job(message)]  # the client shows every job that goes
            else:
                entry = room.listing.get(_job(message))
                assert entry is not None
                client[_job(message)] = entry.job.seq

    def page(limit: int) -> None:
        nonlocal end
        found = follower.next_page(end, limit)
        client.update((entry.job.job_id, entry.job.seq) for entry in found.entries)
        end = found.end or end

    page(2)
    for step in steps:
        seq += 1
        match step:
            case ("change", number, status, minute):
                created_at = NOON + timedelta(minutes=minute)
                room.change(
                    job(number, seq, status=status, created_at=created_at)
                    if status
                    else FeedRemoval(f"job-{number}", "a", seq)
                )
            case ("flush", limit):
                flush(limit)
            case ("page", limit) if end is not None:
                page(limit)
            case ("read", numbers):
                room.begin_read()
                room.finish_read([job(number, seq) for number in numbers])
    flush(1000)
    shown = {
        entry.job.job_id: entry.job.seq
        for entry in room.listing
        if entry.place <= follower._window and wanted.matches(entry.job)
    }
    assert client == shown
    assert not follower.has_pending


# --- the sender -----------------------------------------------------------------------------------


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


async def sent(recorder: Recorder, count: int) -> list[tuple[str, str]]:
    await eventually(lambda: len(recorder.packets) >= count, "messages")
    return recorder.take()


async def test_busy_feed_costs_a_follower_what_the_limit_of_the_connection_says(
    recorder: Recorder,
) -> None:
    """The test counts messages: time passes by the clock of the sender's bucket only."""
    rate = 20
    settings = Settings(feed_rate=rate)
    room = room_of(*map(job, range(100)))
    follower = follow(room, sender=FeedSender(recorder, settings, "/"))
    follower.next_page(None, 100)
    loop = asyncio.get_running_loop()
    began, seq = loop.time(), 1
    while loop.time() < began + 4 * FLUSH_INTERVAL:
        seq += 1
        for number in range(100):
            room.change(job(number, seq))
        await asyncio.sleep(0.02)
    elapsed = loop.time() - began
    assert 0 < len(recorder.packets) <= rate * FLUSH_INTERVAL + rate * elapsed + 1
    jobs = [job_id for _, job_id in recorder.take()]
    assert len(jobs) == len(set(jobs))  # none comes twice before all others had a turn


async def test_endings_share_the_limit(recorder: Recorder) -> None:
    settings = Settings(feed_rate=10)
    room = room_of(*map(job, range(50)))
    began = time.monotonic()
    follower = follow(room, sender=FeedSender(recorder, settings, "/"))
    follower.next_page(None, 100)
    for number in range(50):
        room.change(job(number, 2, status="complete"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert 5 <= len(recorder.packets) <= 5 + 10 * (time.monotonic() - began)
    assert len(await sent(recorder, 50)) == 50


async def test_nothing_is_sent_while_the_queue_of_the_connection_is_long(
    recorder: Recorder,
) -> None:
    room = room_of(job(1))
    follower = follow(room, sender=FeedSender(recorder, Settings(), "/"))
    follower.next_page(None, 100)
    recorder.waiting = Settings().send_buffer
    for seq in range(2, 5):
        room.change(job(1, seq))
        await asyncio.sleep(FLUSH_INTERVAL)
    assert recorder.packets == []
    recorder.waiting = 0
    assert await sent(recorder, 1) == [("feed_job", "job-1")]


async def test_large_summaries_fit_into_the_buffer_of_the_connection(recorder: Recorder) -> None:
    settings = Settings(send_buffer=64 * 1024)
    room = room_of(*(job(number, message="x" * 1000) for number in range(100)))
    follower = follow(room, sender=FeedSender(recorder, settings, "/"))
    follower.next_page(None, 100)
    for number in range(100):
        room.change(job(number, 2, status="error", message="x" * 1000))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert 0 < sum(map(len, recorder.packets)) < settings.send_buffer


async def test_feeds_of_a_connection_take_turns(recorder: Recorder) -> None:
    sender = FeedSender(recorder, Settings(feed_rate=10), "/")
    rooms = [room_of(*map(job, range(20))) for _ in range(2)]
    for number, room in enumerate(rooms):
        follower = FeedFollower(f"tag:{number}", room, NO_FILTER, sender)
        room.followers[follower] = None
        sender.followers[follower.feed] = follower
        follower.next_page(None, 100)
        for one in range(20):
            room.change(job(one, 2))
    await eventually(lambda: len(recorder.packets) >= 20, "messages")
    feeds = {payload["feed"] for _, payload in recorder.events}
    assert feeds == {"tag:0", "tag:1"}
