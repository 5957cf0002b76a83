"""Tests that every transport passes: jobcast's own, and yours. Needs ``jobcast[testing]``.

>>> # test_my_transport.py
>>> from jobcast.testing import TransportContract
>>>
>>> class TestMyTransport(TransportContract):
...     @pytest.fixture
...     def transport_url(self, my_server):
...         return my_server.url

A transport whose connections can break passes :class:`InterruptionContract` too, one that keeps
leases :class:`LeaseContract`, and one that keeps revoked tokens :class:`RevocationContract`.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, ClassVar, Final

import pytest
import socketio
from msgspec import Struct

from jobcast.errors import InvalidMessage, PublishFailed
from jobcast.events import Cursor, JobComplete, JobError, JobEvent, JobLog, JobProgress, JobStatus
from jobcast.transports import (
    DEFAULT_PREFIX,
    NO_ORIGIN,
    ClientManager,
    Message,
    Origin,
    Outgoing,
    Retention,
    Run,
    Snapshot,
    Source,
    TransportPublisher,
    open_manager,
    open_publisher,
)
from jobcast.transports.base import NO_RECORD, UNDER_WAY, Predecessor, Required
from jobcast.transports.leases import (
    Finding,
    Lease,
    LeaseTimeouts,
    SupportsLeaseMonitoring,
    SupportsLeaseRenewal,
)
from jobcast.transports.revocations import Revocation, SupportsRevocations, SupportsRevoking

__all__ = [
    "Ends",
    "InterruptionContract",
    "LeaseContract",
    "RevocationContract",
    "TransportContract",
    "new_job_id",
]

TIMEOUT: Final = 30.0  # seconds that anything may take on a loaded machine
KEPT: Final = Retention(ttl=60, size=100)


class Ends(Struct):
    """Both ends of a transport, and what has come out at the far one."""

    publisher: TransportPublisher
    manager: ClientManager
    url: str
    worker_url: str
    received: list[tuple[str, Message]]
    resumed: list[float]

    @property
    def source(self) -> Source:
        return self.manager.source

    async def publish(self, *events: JobEvent, origin: Origin = NO_ORIGIN, first: int = 0) -> None:
        """Publish events as a worker does. ``first`` is the number of the first, if it has one."""
        await asyncio.to_thread(self.publisher.publish, _batch(events, origin, first))

    async def publish_if(self, state: Required, event: JobEvent, origin: Origin) -> None:
        """Publish an event that is of interest only while the job is in a state."""
        outgoing = Outgoing.of(event, origin, requires=state)
        await asyncio.to_thread(self.publisher.publish, [outgoing])

    async def publish_until_stored(self, *events: JobEvent, first: int) -> None:
        """Publish events until the transport has them, as a worker does after an outage."""
        await _publish_until_stored(self.publisher, _batch(events, NO_ORIGIN, first))

    async def wait_received(self, count: int) -> list[Message]:
        """Wait until so many messages have come, and return them."""
        await eventually(lambda: len(self.received) >= count, f"{count} messages")
        return [message for _, message in self.received]

    async def wait_stored(self, job_id: str, seq: int, after: Cursor | None = None) -> Snapshot:
        """Wait until the store has the event ``seq``, and return what it has."""
        deadline = time.monotonic() + TIMEOUT
        while True:
            snapshot = await self.source.snapshot(job_id, after)
            if snapshot.seq >= seq:
                return snapshot
            assert time.monotonic() < deadline, f"the store has {snapshot.seq} events, not {seq}"
            await asyncio.sleep(0.02)


def _batch(events: Sequence[JobEvent], origin: Origin, first: int) -> list[Outgoing]:
    return [
        Outgoing.of(event, origin, first and first + place) for place, event in enumerate(events)
    ]


async def _publish_until_stored(publisher: TransportPublisher, batch: Sequence[Outgoing]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while True:
        try:
            await asyncio.to_thread(publisher.publish, batch)
        except PublishFailed as exc:
            if time.monotonic() > deadline:
                raise
            batch = exc.unsent
            await asyncio.sleep(0.05)
        else:
            return


async def eventually(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, f"in {TIMEOUT:.0f} s there was no: {what}"
        await asyncio.sleep(0.02)


def new_job_id() -> str:
    """A job id that no other test uses."""
    return f"contract-{secrets.token_hex(6)}"


def log(job_id: str, message: object = "hello") -> JobLog:
    return JobLog(job_id=job_id, level="info", message=str(message))


def progress(job_id: str, percentage: float) -> JobProgress:
    return JobProgress(job_id=job_id, percentage=percentage, message=None)


def queued(job_id: str) -> JobStatus:
    return JobStatus(job_id=job_id, status="queued")


def started(job_id: str, attempt: int = 1) -> JobStatus:
    return JobStatus(job_id=job_id, status="started", attempt=attempt)


def retrying(job_id: str, attempt: int) -> JobStatus:
    return JobStatus(job_id=job_id, status="retrying", attempt=attempt)


def failed(job_id: str) -> JobError:
    return JobError(job_id=job_id, error="Late", message="", reason="failure")


Test = Callable[[Any, Ends, str], Awaitable[None]]


def on_both_ends(test: Test) -> Callable[[Any, str, str], None]:
    """Let a coroutine be a test, whatever plugins for asyncio there are."""

    def run(self: Any, transport_url: str, worker_url: str) -> None:
        asyncio.run(_run(test, self, transport_url, worker_url))

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


async def _run(test: Test, self: Any, url: str, worker_url: str) -> None:
    async with _both_ends(url, worker_url, DEFAULT_PREFIX) as ends:
        await test(self, ends, new_job_id())


@asynccontextmanager
async def _both_ends(url: str, worker_url: str, prefix: str) -> AsyncIterator[Ends]:
    publisher = open_publisher(worker_url, KEPT, prefix=prefix)
    manager = open_manager(url, KEPT, prefix=prefix)
    ends = Ends(publisher, manager, url, worker_url, [], [])

    async def resumed() -> None:
        ends.resumed.append(time.monotonic())

    manager.source.start(lambda job_id, message: ends.received.append((job_id, message)), resumed)
    try:
        await eventually(lambda: manager.source.ready, "source that is ready")
        yield ends
    finally:
        await manager.aclose()
        publisher.close()


def _other_deployment(ends: Ends) -> AbstractAsyncContextManager[Ends]:
    """Return both ends of another deployment on the same server.

    Its prefix begins with that of the first: no pattern may take the one for the other.
    """
    prefix = f"{DEFAULT_PREFIX}:contract-{secrets.token_hex(6)}"
    return _both_ends(ends.url, ends.worker_url, prefix)


class TransportContract:
    """What a transport promises. Subclass it, and give the fixture ``transport_url``."""

    @pytest.fixture
    @abstractmethod
    def transport_url(self) -> str:
        """Where the transport under test is; its server runs."""

    @pytest.fixture
    def worker_url(self, transport_url: str) -> str:
        """Where workers publish: another URL if they have fewer rights than servers."""
        return transport_url

    @on_both_ends
    async def test_it_is_python_socketios_own_kind(self, ends: Ends, job_id: str) -> None:
        assert isinstance(ends.publisher, socketio.PubSubManager)
        assert ends.publisher.write_only
        assert isinstance(ends.manager, socketio.AsyncManager)

    @on_both_ends
    async def test_a_subscriber_gets_ready_packets_in_order(self, ends: Ends, job_id: str) -> None:
        await ends.source.subscribe(job_id)
        await ends.publish(started(job_id), progress(job_id, 5), log(job_id, "one\ntwo"))
        await ends.publish(JobComplete(job_id=job_id, result=[1, "two"]))
        messages = await ends.wait_received(4)
        assert {job for job, _ in ends.received} == {job_id}
        assert [(m.seq, m.kind) for m in messages] == [(1, "s"), (2, "p"), (3, "l"), (4, "t")]
        assert len({m.epoch for m in messages}) == 1
        assert "\n" not in messages[2].packet
        assert messages[3].packet.startswith('42["job_complete",{"job_id":')
        assert messages[3].packet.endswith('"result":[1,"two"],"seq":4}]')

    @on_both_ends
    async def test_what_is_not_subscribed_to_is_not_received(self, ends: Ends, job_id: str) -> None:
        other = new_job_id()
        await ends.source.subscribe(job_id)
        await ends.source.subscribe(other)
        await ends.source.unsubscribe(other)
        await ends.publish(log(other), log(job_id))
        await ends.wait_received(1)
        assert [job for job, _ in ends.received] == [job_id]

    @on_both_ends
    async def test_prefixes_separate_deployments_on_one_server(
        self, ends: Ends, job_id: str
    ) -> None:
        async with _other_deployment(ends) as other:
            for deployment in (ends, other):
                await deployment.source.subscribe(job_id)
            await other.publish(log(job_id, "other"), log(job_id, "other"))
            await other.wait_received(2)
            await ends.publish(log(job_id, "mine"))
            assert [(m.seq, _line(m)) for m in await ends.wait_received(1)] == [(1, "mine")]
            assert (await ends.wait_stored(job_id, 1)).seq == 1
            assert (await other.wait_stored(job_id, 2)).seq == 2

    @on_both_ends
    async def test_a_job_may_be_left_and_joined_again(self, ends: Ends, job_id: str) -> None:
        for count in range(1, 4):
            await ends.source.subscribe(job_id)
            await ends.publish(log(job_id, count))
            await ends.wait_received(count)
            await ends.source.unsubscribe(job_id)
        assert [message.seq for _, message in ends.received] == [1, 2, 3]

    @on_both_ends
    async def test_many_jobs_in_one_batch(self, ends: Ends, job_id: str) -> None:
        ids = [new_job_id() for _ in range(200)]
        await asyncio.gather(*(ends.source.subscribe(some) for some in ids))
        await ends.publish(*(log(some, n) for n in range(3) for some in ids))
        await ends.wait_received(600)
        for some in ids:
            assert [m.seq for job, m in ends.received if job == some] == [1, 2, 3]

    @on_both_ends
    async def test_a_snapshot_has_logs_statuses_the_latest_progress_and_the_end(
        self, ends: Ends, job_id: str
    ) -> None:
        await ends.publish(
            started(job_id),
            progress(job_id, 1),
            log(job_id),
            progress(job_id, 2),
            JobComplete(job_id=job_id, result=None),
        )
        snapshot = await ends.wait_stored(job_id, 5)
        assert [(m.seq, m.kind) for m in snapshot.events] == [
            (1, "s"), (3, "l"), (4, "p"), (5, "t"),
        ]  # fmt: skip
        assert (snapshot.state, snapshot.recovered) == ("complete", False)

    @on_both_ends
    async def test_a_job_that_nothing_is_known_of_is_pending(self, ends: Ends, job_id: str) -> None:
        snapshot = await ends.source.snapshot(job_id)
        assert (snapshot.epoch, snapshot.seq, snapshot.state) == ("", 0, "pending")
        assert snapshot.events == ()
        assert await ends.source.owner(job_id) is None
        after = await ends.source.snapshot(job_id, Cursor(epoch="another", seq=7))
        assert (after.epoch, after.recovered) == ("", False)

    @on_both_ends
    async def test_a_job_whose_beginning_is_not_known_is_running(
        self, ends: Ends, job_id: str
    ) -> None:
        await ends.publish(log(job_id))
        assert (await ends.wait_stored(job_id, 1)).state == "started"

    @on_both_ends
    async def test_a_cursor_brings_what_came_after_it(self, ends: Ends, job_id: str) -> None:
        await ends.publish(log(job_id), progress(job_id, 1), log(job_id), progress(job_id, 2))
        epoch = (await ends.wait_stored(job_id, 4)).epoch
        expected = [
            (0, True, [1, 3, 4]), (1, True, [3, 4]), (3, True, [4]), (4, True, []),
            (5, False, [1, 3, 4]),
        ]  # fmt: skip
        for seq, recovered, seen in expected:
            snapshot = await ends.source.snapshot(job_id, Cursor(epoch=epoch, seq=seq))
            assert snapshot.recovered is recovered
            assert [m.seq for m in snapshot.events] == seen
        stranger = await ends.source.snapshot(job_id, Cursor(epoch="another", seq=3))
        assert stranger.recovered is False
        assert [m.seq for m in stranger.events] == [1, 3, 4]

    @on_both_ends
    async def test_history_is_bounded_and_says_when_it_is_not_enough(
        self, ends: Ends, job_id: str
    ) -> None:
        await ends.publish(*(log(job_id, n) for n in range(1000)))
        snapshot = await ends.wait_stored(job_id, 1000)
        # Some stores trim by larger pieces.
        assert KEPT.size <= len(snapshot.events) <= 2 * KEPT.size
        assert snapshot.events[-1].seq == 1000
        trimmed = await ends.source.snapshot(job_id, Cursor(epoch=snapshot.epoch, seq=5))
        assert trimmed.recovered is False
        assert len(trimmed.events) == len(snapshot.events)
        enough = await ends.source.snapshot(job_id, Cursor(epoch=snapshot.epoch, seq=990))
        assert enough.recovered is True
        assert [m.seq for m in enough.events] == list(range(991, 1001))

    @on_both_ends
    async def test_only_late_lines_and_new_runs_follow_the_end(
        self, ends: Ends, job_id: str
    ) -> None:
        await ends.source.subscribe(job_id)
        await ends.publish(started(job_id), progress(job_id, 80))
        await ends.publish(JobComplete(job_id=job_id, result=1))
        await ends.publish(
            log(job_id, "late"),
            progress(job_id, 90),
            failed(job_id),
        )
        snapshot = await ends.wait_stored(job_id, 4)
        await ends.publish(started(job_id), log(job_id, "again"))
        again = await ends.wait_stored(job_id, 6)
        assert (snapshot.seq, snapshot.state) == (4, "complete")
        assert [(m.seq, m.kind) for m in snapshot.events] == [
            (1, "s"), (2, "p"), (3, "t"), (4, "l"),
        ]  # fmt: skip
        assert (again.epoch, again.state) == (snapshot.epoch, "started")
        # What the first run showed is not the state of the second.
        assert [(m.seq, m.kind) for m in again.events] == [(5, "s"), (6, "l")]
        assert [m.seq for m in await ends.wait_received(6)] == [1, 2, 3, 4, 5, 6]

    @on_both_ends
    async def test_late_lines_do_not_push_the_end_out_of_the_history(
        self, ends: Ends, job_id: str
    ) -> None:
        await ends.publish(started(job_id), JobComplete(job_id=job_id, result=1))
        for _ in range(3):
            await ends.publish(*(log(job_id, n) for n in range(KEPT.size)))
        snapshot = await ends.wait_stored(job_id, 2 + KEPT.size)
        assert snapshot.events[-1].seq == 2 + KEPT.size  # so many lines, and no more
        assert [m.seq for m in snapshot.events if m.kind == "t"] == [2]
        await ends.publish(started(job_id))
        again = await ends.wait_stored(job_id, 3 + KEPT.size)
        assert [m.kind for m in again.events] == ["s"]

    @on_both_ends
    async def test_what_is_sent_again_is_not_there_twice(self, ends: Ends, job_id: str) -> None:
        """The answer was lost on the way, so that the publisher cannot know."""
        other = new_job_id()
        await ends.source.subscribe(job_id)
        await ends.publish(started(job_id), log(job_id, 2), first=1)
        await ends.publish(started(job_id), log(job_id, 2), log(other), log(job_id, 4), first=1)
        await ends.publish(progress(job_id, 50), first=5)
        await ends.publish(progress(job_id, 50), JobComplete(job_id=job_id, result=1), first=5)
        await ends.publish(JobComplete(job_id=job_id, result=1), first=6)
        messages = await ends.wait_received(5)
        assert [(m.seq, m.kind) for m in messages] == [
            (1, "s"), (2, "l"), (3, "l"), (4, "p"), (5, "t"),
        ]  # fmt: skip
        assert (await ends.wait_stored(job_id, 5)).seq == 5

    @on_both_ends
    async def test_only_log_lines_of_a_past_run_are_stored(self, ends: Ends, job_id: str) -> None:
        """Who sends a task, who runs it and who runs it again are different publishers."""
        sent, first, second = (Origin(run=Run("aa", n, f"d{n}" if n else "")) for n in range(3))
        await ends.source.subscribe(job_id)
        await ends.publish(started(job_id), log(job_id), origin=first)
        await ends.publish(queued(job_id), origin=sent)  # late
        await ends.publish(progress(job_id, 1), retrying(job_id, 2), origin=first)
        await ends.publish(started(job_id, 2), log(job_id), origin=second)
        await ends.publish(log(job_id), retrying(job_id, 2), failed(job_id), origin=first)
        await ends.publish(JobComplete(job_id=job_id, result=1), failed(job_id), origin=second)
        # Late by so much that the former run would begin after the end of the latter.
        await ends.publish(queued(job_id), origin=sent)
        await ends.publish(started(job_id), started(job_id), log(job_id), origin=first)
        await ends.publish(started(job_id, 2), log(job_id), origin=second)
        assert (await ends.wait_stored(job_id, 10)).state == "complete"
        messages = await ends.wait_received(10)
        assert [m.kind for m in messages] == ["s", "l", "p", "s", "s", "l", "l", "t", "l", "l"]
        assert [m.seq for m in messages] == [*range(1, 11)]
        assert [_number(m) for m in messages if m.kind == "s"] == [1, None, 2]
        # A late line carries the attempt that logged it.
        assert [_attempt(m) for m in messages if m.kind == "l"] == [None, None, 1, 1, 2]

    @on_both_ends
    async def test_a_task_that_is_sent_again_begins_anew(self, ends: Ends, job_id: str) -> None:
        await ends.source.subscribe(job_id)
        former, latter = (Origin(run=Run(sending, 1, f"d{sending}")) for sending in ("aa", "bb"))
        await ends.publish(started(job_id), JobComplete(job_id=job_id, result=1), origin=former)
        await ends.publish(queued(job_id), origin=Origin(run=Run("bb")))
        assert (await ends.wait_stored(job_id, 3)).state == "queued"
        await ends.publish(log(job_id), failed(job_id), started(job_id), origin=former)
        await ends.publish(started(job_id), log(job_id), origin=latter)
        again = await ends.wait_stored(job_id, 6)
        assert again.state == "started"
        assert [(m.seq, m.kind) for m in again.events] == [
            (3, "s"), (4, "l"), (5, "s"), (6, "l"),
        ]  # fmt: skip
        messages = await ends.wait_received(6)
        assert [_number(m) for m in messages] == [1, None, None, None, 2, None]
        assert [_attempt(m) for m in messages if m.kind == "l"] == [1, None]

    @on_both_ends
    async def test_a_task_that_is_delivered_again_runs_again(self, ends: Ends, job_id: str) -> None:
        """Its worker was lost; or it was only slow, and two do the same from now on."""
        lost = Origin(run=Run("aa", 1, "dead"))
        again = Origin(run=Run("aa", 1, "alive", redelivered=True))
        await ends.source.subscribe(job_id)
        await ends.publish(started(job_id), progress(job_id, 70), origin=lost)
        await ends.publish(started(job_id), origin=again)
        await ends.publish(log(job_id), failed(job_id), origin=lost)
        await ends.publish(JobComplete(job_id=job_id, result=1), origin=again)
        assert (await ends.wait_stored(job_id, 5)).state == "complete"
        # It is the broker that says which delivery is the later one.
        other = new_job_id()
        await ends.source.subscribe(other)
        await ends.publish(started(other), origin=again)
        await ends.publish(started(other), log(other), origin=lost)
        await ends.publish(log(other), origin=again)
        assert (await ends.wait_stored(other, 3)).seq == 3
        messages = await ends.wait_received(8)
        assert [(m.seq, m.kind) for m in messages] == [
            (1, "s"), (2, "p"), (3, "s"), (4, "l"), (5, "t"), (1, "s"), (2, "l"), (3, "l"),
        ]  # fmt: skip
        assert [_attempt(m) for m in messages if m.kind == "l"] == [1, 1, None]

    @on_both_ends
    async def test_an_end_may_come_without_a_beginning(self, ends: Ends, job_id: str) -> None:
        """A task that is revoked in the queue is ended by a worker that never runs it."""
        await ends.source.subscribe(job_id)
        await ends.publish(queued(job_id), origin=Origin(run=Run("aa")))
        await ends.publish(failed(job_id), origin=Origin(run=Run("aa", 1, "d1")))
        await ends.publish(queued(job_id), failed(job_id), origin=Origin(run=Run("aa")))
        await ends.publish(failed(job_id), log(job_id))
        assert (await ends.wait_stored(job_id, 3)).state == "error"
        assert [m.kind for m in await ends.wait_received(3)] == ["s", "t", "l"]

    @on_both_ends
    async def test_what_requires_a_state_is_for_a_job_in_that_state(
        self, ends: Ends, job_id: str
    ) -> None:
        await ends.source.subscribe(job_id)
        origin = Origin(run=Run("aa", 1, "d1"))
        stalled = JobStatus(job_id=job_id, status="stalled")
        await ends.publish_if("stalled", failed(job_id), origin)  # there is no such job
        await ends.publish(started(job_id), progress(job_id, 5), origin=origin)
        await ends.publish_if("stalled", started(job_id), origin)
        await ends.publish_if("started", stalled, origin)
        await ends.publish_if("started", stalled, origin)
        await ends.publish_if("stalled", started(job_id), origin)  # it lives: nothing is begun anew
        await ends.publish_if("stalled", failed(job_id), origin)
        await ends.publish_if("started", stalled, Origin(run=Run("aa")))  # a former run
        await ends.publish_if("started", stalled, origin)
        await ends.publish_if("stalled", failed(job_id), origin)
        snapshot = await ends.wait_stored(job_id, 6)
        assert snapshot.state == "error"
        messages = await ends.wait_received(6)
        assert [(m.seq, m.kind) for m in messages] == [
            (1, "s"), (2, "p"), (3, "s"), (4, "s"), (5, "s"), (6, "t"),
        ]  # fmt: skip
        assert [_number(m) for m in messages] == [1, None, None, 1, None, None]
        assert [m.seq for m in snapshot.events] == [1, 2, 3, 4, 5, 6]

    @on_both_ends
    async def test_what_another_publisher_has_to_say_first_comes_first(
        self, ends: Ends, job_id: str
    ) -> None:
        """A task is tried again by another worker, whose way to the transport is the shorter."""
        await ends.source.subscribe(job_id)
        former, url = ends.publisher, ends.worker_url
        latter = open_publisher(url, KEPT)
        await ends.publish(queued(job_id), first=1)
        first = [Outgoing.of(event, number=n) for n, event in enumerate(self._run(job_id), 2)]
        origin = Origin(after=f"{former.publisher_id} 4")
        second = [started(job_id, 2), log(job_id, "second"), JobComplete(job_id=job_id, result=2)]
        then = [Outgoing.of(event, origin, number=n) for n, event in enumerate(second, 1)]
        other = new_job_id()
        try:
            publishing = asyncio.create_task(
                _publish_until_stored(latter, [then[0], Outgoing.of(log(other)), *then[1:]])
            )
            assert (await ends.wait_stored(other, 1)).seq == 1  # nobody else is held up
            await asyncio.to_thread(former.publish, first[:2])
            await ends.wait_received(3)
            await asyncio.to_thread(former.publish, first[2:])
            await publishing
            messages = await ends.wait_received(7)
        finally:
            latter.close()
        assert [(m.seq, m.kind) for m in messages] == [
            (1, "s"), (2, "s"), (3, "l"), (4, "s"), (5, "s"), (6, "l"), (7, "t"),
        ]  # fmt: skip
        assert [_line(m) for m in messages if m.kind == "l"] == ["first", "second"]

    def _run(self, job_id: str) -> list[JobEvent]:
        return [started(job_id), log(job_id, "first"), retrying(job_id, 2)]

    @on_both_ends
    async def test_without_a_record_what_was_published_long_ago_is_not_waited_for(
        self, ends: Ends, job_id: str
    ) -> None:
        """The record has expired while the task waited to be tried again."""
        long_ago = int(time.time()) - 2 * UNDER_WAY
        origin = Origin(after=str(Predecessor("somebody", 7, long_ago)))
        await ends.publish(started(job_id, 2), JobComplete(job_id=job_id, result=2), origin=origin)
        assert (await ends.wait_stored(job_id, 2)).state == "complete"

    @on_both_ends
    async def test_a_retry_waits_for_the_attempt_before_also_without_a_record(
        self, ends: Ends, job_id: str
    ) -> None:
        """All of the job was published while the transport was away."""
        await ends.source.subscribe(job_id)
        former, latter = ends.publisher, open_publisher(ends.url, KEPT)
        runs = [Run("aa", attempt, f"d{attempt}") for attempt in (1, 2)]
        first = _batch(self._run(job_id), Origin(run=runs[0]), 1)
        after = str(Predecessor(former.publisher_id, 3, int(time.time())))
        second = [started(job_id, 2), log(job_id, "second"), JobComplete(job_id=job_id, result=2)]
        then = _batch(second, Origin(run=runs[1], after=after), 1)
        other = new_job_id()
        try:
            publishing = asyncio.create_task(
                _publish_until_stored(latter, [*then, Outgoing.of(log(other))])
            )
            assert (await ends.wait_stored(other, 1)).seq == 1  # no other job is held up
            assert (await ends.source.snapshot(job_id)).epoch == NO_RECORD
            await asyncio.to_thread(former.publish, first)
            await publishing
            messages = await ends.wait_received(6)
        finally:
            latter.close()
        assert [m.kind for m in messages] == ["s", "l", "s", "s", "l", "t"]
        assert [_line(m) for m in messages if m.kind == "l"] == ["first", "second"]

    @on_both_ends
    async def test_a_run_of_another_owner_begins_a_new_record(
        self, ends: Ends, job_id: str
    ) -> None:
        await ends.source.subscribe(job_id)
        alice, bob = (
            Origin(owner, Run(sending, 1, f"d{sending}"))
            for owner, sending in (("alice", "aa"), ("bob", "bb"))
        )
        await ends.publish(started(job_id), progress(job_id, 70), log(job_id, "hers"), origin=alice)
        hers = await ends.wait_stored(job_id, 3)
        await ends.publish(started(job_id), log(job_id, "his"), origin=bob)
        # Her run goes on, and comes back after a while.
        await ends.publish(log(job_id, "late"), failed(job_id), started(job_id), origin=alice)
        await ends.publish(log(job_id, "his too"), origin=bob)
        await ends.wait_received(6)
        his = await ends.source.snapshot(job_id)
        assert his.epoch != hers.epoch
        assert (hers.owner, his.owner) == ("alice", "bob")
        assert (his.seq, his.state) == (3, "started")
        assert [m.kind for m in his.events] == ["s", "l", "l"]
        assert [_line(m) for m in his.events if m.kind == "l"] == ["his", "his too"]
        assert _number(his.events[0]) == 1
        assert not (await ends.source.snapshot(job_id, Cursor(epoch=hers.epoch, seq=1))).recovered

    @on_both_ends
    async def test_a_record_without_an_owner_takes_that_of_an_event(
        self, ends: Ends, job_id: str
    ) -> None:
        run = Run("aa", 1, "d1")
        await ends.publish(log(job_id))  # by an emit, before the job is sent
        before = await ends.wait_stored(job_id, 1)
        assert before.owner is None
        await ends.publish(queued(job_id), origin=Origin("alice", Run("aa")))
        snapshot = await ends.wait_stored(job_id, 2)
        await ends.publish(started(job_id), log(job_id), origin=Origin(run=run))
        await ends.publish(log(job_id), origin=Origin("mallory", run))
        await ends.publish(log(job_id), origin=Origin("mallory"))
        await ends.publish(log(job_id))
        later = await ends.wait_stored(job_id, 5)
        assert (snapshot.owner, later.owner, later.seq) == ("alice", "alice", 5)
        assert later.epoch == snapshot.epoch
        # Who was let in to a job of nobody is asked for again: the record is another one.
        assert before.epoch != snapshot.epoch
        assert [message.seq for message in snapshot.events] == [1, 2]
        assert {message.epoch for message in snapshot.events} == {snapshot.epoch}
        cursor = Cursor(epoch=before.epoch, seq=1)
        assert not (await ends.source.snapshot(job_id, cursor)).recovered
        assert await ends.source.owner(job_id) == "alice"

    @on_both_ends
    async def test_positions_are_where_records_are(self, ends: Ends, job_id: str) -> None:
        other, unknown = new_job_id(), new_job_id()
        await ends.publish(log(job_id), log(job_id), progress(other, 1))
        epochs = [
            (await ends.wait_stored(job_id, 2)).epoch,
            (await ends.wait_stored(other, 1)).epoch,
        ]
        assert await ends.source.positions([job_id, unknown, other]) == [
            Cursor(epoch=epochs[0], seq=2), Cursor(epoch="", seq=0), Cursor(epoch=epochs[1], seq=1),
        ]  # fmt: skip
        assert await ends.source.positions([]) == []

    @on_both_ends
    async def test_any_process_may_emit_to_a_jobs_room(self, ends: Ends, job_id: str) -> None:
        await ends.source.subscribe(job_id)
        room = f"job_{job_id}"
        data = {"percentage": 40, "message": "by hand"}
        await asyncio.to_thread(ends.publisher.emit, "job_progress", data, room=room)
        [message] = await ends.wait_received(1)
        assert '"percentage":40' in message.packet
        assert f'"job_id":"{job_id}"' in message.packet
        assert '"timestamp":"2' in message.packet
        for wrong in ({"percentage": 400, "message": None}, {"message": "x"}, "text"):
            with pytest.raises(InvalidMessage, match="job_progress"):
                ends.publisher.emit("job_progress", wrong, room=room)

    @on_both_ends
    async def test_the_socketio_process_may_emit_too(self, ends: Ends, job_id: str) -> None:
        await ends.source.subscribe(job_id)
        await ends.publish(started(job_id), first=1)
        assert isinstance(ends.manager, socketio.AsyncManager)
        await ends.manager.emit(
            "job_log", {"level": "info", "message": "from here"}, room=f"job_{job_id}"
        )
        messages = await ends.wait_received(2)
        assert [m.seq for m in messages] == [1, 2]
        assert '"from here"' in messages[1].packet

    @on_both_ends
    async def test_closing_twice_is_no_error(self, ends: Ends, job_id: str) -> None:
        await ends.source.aclose()
        await ends.source.aclose()
        ends.publisher.close()
        ends.publisher.close()

    @on_both_ends
    async def test_a_run_that_was_lost_before_its_first_word_was_begun(
        self, ends: Ends, job_id: str
    ) -> None:
        await ends.source.subscribe(job_id)
        origin, stalled = Origin(run=Run("aa", 1, "d1")), JobStatus(job_id=job_id, status="stalled")
        await ends.publish(queued(job_id), origin=Origin(run=Run("aa")))
        await ends.publish_if("started", stalled, origin)
        await ends.publish_if("started", stalled, origin)
        await ends.publish_if("stalled", failed(job_id), origin)
        await ends.publish_if("started", stalled, Origin(run=Run("aa", 1, "d2")))
        assert (await ends.wait_stored(job_id, 3)).state == "error"
        assert [m.kind for m in await ends.wait_received(3)] == ["s", "s", "t"]


class LeaseContract(TransportContract):
    """What a transport promises that keeps leases."""

    TERMS: ClassVar[LeaseTimeouts] = LeaseTimeouts(lease=0.6, lost_after=0.6)

    @on_both_ends
    async def test_a_lease_that_is_not_renewed_runs_out(self, ends: Ends, job_id: str) -> None:
        living, dead = Lease(job_id, Run("aa", 1, "d1")), Lease(job_id, Run("aa", 2, "d2", True))
        seen: list[Finding] = []

        async def living_goes_on() -> bool:
            await self._renew(ends, living)
            seen.extend(await self._look(ends))
            return {f.kind for f in seen} == {"stalled", "lost"}

        await self._renew(ends, living, dead)
        await _until(living_goes_on)
        assert {finding.lease for finding in seen} == {dead}
        assert [finding.kind for finding in seen] == ["stalled", "lost"]
        await asyncio.to_thread(self._holder(ends).release, [living])

    @on_both_ends
    async def test_who_renews_after_all_is_revived(self, ends: Ends, job_id: str) -> None:
        lease = Lease(job_id, Run("aa", 1, "d1"))
        seen: list[str] = []

        async def found(kind: str) -> bool:
            seen.extend(finding.kind for finding in await self._look(ends))
            return kind in seen

        await self._renew(ends, lease)
        await _until(lambda: found("stalled"))
        await self._renew(ends, lease, seconds=60)
        await _until(lambda: found("revived"))
        for _ in range(3):
            assert not await self._look(ends)
        assert seen == ["stalled", "revived"]
        await asyncio.to_thread(self._holder(ends).release, [lease])

    @on_both_ends
    async def test_a_lease_that_was_released_is_never_missed(self, ends: Ends, job_id: str) -> None:
        released, other = (Lease(job_id, Run("aa", n, f"d{n}")) for n in (1, 2))
        seen: list[Lease] = []

        async def other_is_lost() -> bool:
            found = await self._look(ends)
            seen.extend(finding.lease for finding in found)
            return any(finding.kind == "lost" for finding in found)

        await self._renew(ends, released, other)
        await asyncio.to_thread(self._holder(ends).release, [released])
        await _until(other_is_lost)
        assert set(seen) == {other}

    @on_both_ends
    async def test_prefixes_separate_leases(self, ends: Ends, job_id: str) -> None:
        mine, other = (Lease(job_id, Run("aa", n, f"d{n}")) for n in (1, 2))
        seen: list[Lease] = []

        async def mine_is_lost() -> bool:
            found = await self._look(ends)
            seen.extend(finding.lease for finding in found)
            return any(finding.kind == "lost" for finding in found)

        async with _other_deployment(ends) as deployment:
            await self._renew(deployment, other)
            await self._renew(ends, mine)
            await _until(mine_is_lost)
        assert set(seen) == {mine}

    def _holder(self, ends: Ends) -> SupportsLeaseRenewal:
        assert isinstance(ends.publisher, SupportsLeaseRenewal)
        return ends.publisher

    async def _renew(self, ends: Ends, *leases: Lease, seconds: float = 0.6) -> None:
        await asyncio.to_thread(self._holder(ends).renew, leases, seconds)

    async def _look(self, ends: Ends) -> list[Finding]:
        assert isinstance(ends.source, SupportsLeaseMonitoring)
        await asyncio.sleep(0.05)  # as a process does that looks again and again
        found = await ends.source.scan(self.TERMS)
        await ends.source.acknowledge(found, self.TERMS)
        return found


async def _until(condition: Callable[[], Awaitable[bool]]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not await condition():
        assert time.monotonic() < deadline, "it did not come to that"


class RevocationContract(TransportContract):
    """What a transport promises that keeps revoked tokens."""

    @on_both_ends
    async def test_a_revocation_reaches_every_server_process(self, ends: Ends, job_id: str) -> None:
        by_id = Revocation(jti=job_id, until=time.time() + 600)
        by_sub = Revocation(sub=f"{job_id} é", before=time.time(), until=time.time() + 600)
        received: list[Revocation] = []
        self._source(ends).watch_revocations(received.append)
        async with _both_ends(ends.url, ends.worker_url, DEFAULT_PREFIX) as other:
            others: list[Revocation] = []
            self._source(other).watch_revocations(others.append)
            for revocation in (by_id, by_sub):
                await self._revoke(ends, revocation)
            for came in (received, others):
                await eventually(lambda came=came: {by_id, by_sub} <= {*came}, "revocation")  # type: ignore[misc]

    @on_both_ends
    async def test_a_server_process_that_starts_later_reads_what_is_in_force(
        self, ends: Ends, job_id: str
    ) -> None:
        revoked = {Revocation(jti=f"{job_id}-{n}", until=time.time() + 600) for n in range(20)}
        for revocation in [*revoked, *revoked]:
            await self._revoke(ends, revocation)
        async with _both_ends(ends.url, ends.worker_url, DEFAULT_PREFIX) as later:
            assert revoked <= {*await self._source(later).revocations()}
            # Reading changes nothing, and several may read at once.
            reads = (self._source(some).revocations() for some in (ends, later, ends, later))
            assert all(revoked <= {*read} for read in await asyncio.gather(*reads))

    @on_both_ends
    async def test_a_revocation_is_forgotten_when_the_token_has_expired(
        self, ends: Ends, job_id: str
    ) -> None:
        short = Revocation(jti=f"{job_id}-short", until=time.time() + 0.5)
        long = Revocation(jti=f"{job_id}-long", until=time.time() + 100 * 24 * 3600)
        for revocation in (short, long):
            await self._revoke(ends, revocation)

        async def is_forgotten() -> bool:
            kept = await self._source(ends).revocations()
            assert long in kept
            return short not in kept

        await _until(is_forgotten)

    @on_both_ends
    async def test_prefixes_separate_revocations(self, ends: Ends, job_id: str) -> None:
        revocation = Revocation(jti=job_id, until=time.time() + 600)
        async with _other_deployment(ends) as other:
            received: list[Revocation] = []
            self._source(ends).watch_revocations(received.append)
            await self._revoke(other, revocation)
            last = Revocation(jti=f"{job_id}-last", until=time.time() + 600)
            await self._revoke(ends, last)
            await eventually(lambda: last in received, "revocation")
            assert revocation not in received
            assert revocation not in await self._source(ends).revocations()
            assert revocation in await self._source(other).revocations()

    def _source(self, ends: Ends) -> SupportsRevocations:
        assert isinstance(ends.source, SupportsRevocations)
        return ends.source

    async def _revoke(self, ends: Ends, revocation: Revocation) -> None:
        assert isinstance(ends.publisher, SupportsRevoking)
        await asyncio.to_thread(ends.publisher.revoke, revocation)


class InterruptionContract(TransportContract):
    """What a transport promises when its connections break."""

    @abstractmethod
    def interrupt(self) -> None:
        """Cut every connection to the server, or restart it. What it stored is not lost."""

    @on_both_ends
    async def test_nothing_is_lost_by_an_interruption(self, ends: Ends, job_id: str) -> None:
        await ends.source.subscribe(job_id)
        await ends.publish(started(job_id), log(job_id, 2), first=1)
        [first, _] = await ends.wait_received(2)
        await asyncio.to_thread(self.interrupt)
        for number in range(3, 23):
            await ends.publish_until_stored(log(job_id, number), first=number)
        snapshot = await ends.wait_stored(job_id, 22, Cursor(epoch=first.epoch, seq=2))
        await eventually(lambda: ends.source.ready, "source that is ready again")
        assert snapshot.recovered
        assert [_line(message) for message in snapshot.events] == [str(n) for n in range(3, 23)]
        await ends.publish_until_stored(log(job_id, "after"), first=23)
        await eventually(
            lambda: _line(ends.received[-1][1]) == "after", "event after the interruption"
        )
        # Live ones may be missing: they are read from the history when the source has resumed.
        seqs = [message.seq for _, message in ends.received]
        assert seqs == sorted(set(seqs))
        assert ends.resumed or len(seqs) == 23


def _number(message: Message) -> int | None:
    """The number of the run that a message says has started."""
    _, _, rest = message.packet.partition(',"run":')
    return int(rest.removesuffix("}]")) if rest else None


def _attempt(message: Message) -> int | None:
    """The attempt that logged a late line."""
    _, _, rest = message.packet.partition(',"attempt":')
    return int(rest.removesuffix("}]")) if rest else None


def _line(message: Message) -> str:
    _, _, rest = message.packet.partition('"message":"')
    return rest.partition('"')[0]
