"""The contract of every transport."""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from datetime import timedelta
from typing import Any

import pytest
import socketio
from msgspec import structs

from jobcast.errors import InvalidMessage
from jobcast.events import (
    MAX_TAGS,
    NO_INFO,
    Cursor,
    JobComplete,
    JobEvent,
    JobInfo,
    JobStatus,
    now,
)
from jobcast.testing.ends import (
    KEPT,
    Ends,
    attempt_of,
    batch_of,
    described,
    failed,
    line_of,
    log,
    new_job_id,
    number_of,
    on_both_ends,
    other_deployment,
    progress,
    publish_until_stored,
    queued,
    retitled,
    retrying,
    started,
    title_and_tags_of,
    until,
)
from jobcast.transports import (
    Origin,
    Outgoing,
    Run,
    open_publisher,
)
from jobcast.transports.base import MAX_TRANSIT, NO_RECORD, Predecessor


class TransportContract:
    """The tests for every transport. Subclass it and define the fixture ``transport_url``."""

    @pytest.fixture
    @abstractmethod
    def transport_url(self) -> str:
        """The URL of the transport under test, whose server is running."""

    @pytest.fixture
    def worker_url(self, transport_url: str) -> str:
        """The URL for workers; override it if workers have fewer permissions than servers."""
        return transport_url

    @on_both_ends
    async def test_managers_are_python_socketio_managers(self, ends: Ends, job_id: str) -> None:
        assert isinstance(ends.publisher, socketio.PubSubManager)
        assert ends.publisher.write_only
        assert isinstance(ends.manager, socketio.AsyncManager)

    @on_both_ends
    async def test_subscriber_receives_ready_packets_in_order(
        self, ends: Ends, job_id: str
    ) -> None:
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
    async def test_unsubscribed_jobs_are_not_received(self, ends: Ends, job_id: str) -> None:
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
        async with other_deployment(ends) as other:
            for deployment in (ends, other):
                await deployment.source.subscribe(job_id)
            await other.publish(log(job_id, "other"), log(job_id, "other"))
            await other.wait_received(2)
            await ends.publish(log(job_id, "mine"))
            assert [(m.seq, line_of(m)) for m in await ends.wait_received(1)] == [(1, "mine")]
            assert (await ends.wait_stored(job_id, 1)).seq == 1
            assert (await other.wait_stored(job_id, 2)).seq == 2

    @on_both_ends
    async def test_job_can_be_unsubscribed_and_subscribed_again(
        self, ends: Ends, job_id: str
    ) -> None:
        for count in range(1, 4):
            await ends.source.subscribe(job_id)
            await ends.publish(log(job_id, count))
            await ends.wait_received(count)
            await ends.source.unsubscribe(job_id)
        assert [message.seq for _, message in ends.received] == [1, 2, 3]

    @on_both_ends
    async def test_batch_with_many_jobs_keeps_the_order_of_each(
        self, ends: Ends, job_id: str
    ) -> None:
        ids = [new_job_id() for _ in range(200)]
        await asyncio.gather(*(ends.source.subscribe(some) for some in ids))
        await ends.publish(*(log(some, n) for n in range(3) for some in ids))
        await ends.wait_received(600)
        for some in ids:
            assert [m.seq for job, m in ends.received if job == some] == [1, 2, 3]

    @on_both_ends
    async def test_snapshot_has_logs_statuses_latest_progress_and_outcome(
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
    async def test_unknown_job_is_pending(self, ends: Ends, job_id: str) -> None:
        snapshot = await ends.source.snapshot(job_id)
        assert (snapshot.epoch, snapshot.seq, snapshot.state) == ("", 0, "pending")
        assert snapshot.events == ()
        assert await ends.source.info(job_id) == NO_INFO
        after = await ends.source.snapshot(job_id, Cursor(epoch="another", seq=7))
        assert (after.epoch, after.recovered) == ("", False)

    @on_both_ends
    async def test_job_without_a_start_event_is_started(self, ends: Ends, job_id: str) -> None:
        await ends.publish(log(job_id))
        assert (await ends.wait_stored(job_id, 1)).state == "started"

    @on_both_ends
    async def test_cursor_returns_only_later_events(self, ends: Ends, job_id: str) -> None:
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
    async def test_bounded_history_resumes_only_cursors_within_it(
        self, ends: Ends, job_id: str
    ) -> None:
        await ends.publish(*(log(job_id, n) for n in range(1000)))
        snapshot = await ends.wait_stored(job_id, 1000)
        # Some stores trim in larger steps.
        assert KEPT.size <= len(snapshot.events) <= 2 * KEPT.size
        assert snapshot.events[-1].seq == 1000
        trimmed = await ends.source.snapshot(job_id, Cursor(epoch=snapshot.epoch, seq=5))
        assert trimmed.recovered is False
        assert len(trimmed.events) == len(snapshot.events)
        enough = await ends.source.snapshot(job_id, Cursor(epoch=snapshot.epoch, seq=990))
        assert enough.recovered is True
        assert [m.seq for m in enough.events] == list(range(991, 1001))

    @on_both_ends
    async def test_long_log_keeps_how_the_job_began(self, ends: Ends, job_id: str) -> None:
        begun = JobStatus(job_id=job_id, status="started", task="reports.build", attempt=1)
        lines = 10 * KEPT.size
        await ends.publish(queued(job_id), begun)
        await ends.publish(*(log(job_id, n) for n in range(lines)))
        await ends.publish(JobComplete(job_id=job_id, result=1))
        snapshot = await ends.wait_stored(job_id, lines + 3)
        first, second, *kept, last = snapshot.events
        assert [(m.seq, m.kind) for m in (first, second)] == [(1, "s"), (2, "s")]
        assert '"task":"reports.build","attempt":1' in second.packet
        assert [m.seq for m in kept] == [*range(snapshot.complete_from, lines + 3)]
        assert KEPT.size <= len(kept) <= 2 * KEPT.size
        assert (last.seq, last.kind) == (lines + 3, "t")

    @on_both_ends
    async def test_trimming_is_reported_exactly(self, ends: Ends, job_id: str) -> None:
        """Replaced progress leaves holes in the seqs, and is not trimmed history."""
        for _ in range(3):
            await ends.publish(
                *(
                    event
                    for n in range(KEPT.size)
                    for event in (progress(job_id, 1), log(job_id, n))
                )
            )
        seq = 6 * KEPT.size
        snapshot = await ends.wait_stored(job_id, seq)
        lines = [m.seq for m in snapshot.events if m.kind == "l"]
        assert lines == [*range(lines[0], seq + 1, 2)]
        trimmed = lines[0] - 2
        assert trimmed > 0
        assert snapshot.complete_from == trimmed + 1
        for cursor, recovered in ((trimmed - 1, False), (trimmed, True), (lines[0], True)):
            found = await ends.source.snapshot(job_id, Cursor(epoch=snapshot.epoch, seq=cursor))
            assert (found.recovered, found.complete_from) == (recovered, snapshot.complete_from)
            after = cursor if recovered else 0
            assert [m.seq for m in found.events] == [
                m.seq for m in snapshot.events if m.seq > after
            ]

    @on_both_ends
    async def test_history_within_its_bounds_is_complete(self, ends: Ends, job_id: str) -> None:
        assert (await ends.source.snapshot(job_id)).complete_from == 1
        await ends.publish(progress(job_id, 1), progress(job_id, 2), started(job_id))
        await ends.publish(*(log(job_id, n) for n in range(KEPT.size)))
        await ends.publish(progress(job_id, 3), JobComplete(job_id=job_id, result=None))
        snapshot = await ends.wait_stored(job_id, KEPT.size + 5)
        assert (snapshot.complete_from, len(snapshot.events)) == (1, KEPT.size + 3)

    @on_both_ends
    async def test_statuses_have_a_bound_of_their_own(self, ends: Ends, job_id: str) -> None:
        await ends.publish(log(job_id, "first"))
        attempts = range(1, KEPT.statuses + 1)
        await ends.publish(
            *(event for n in attempts for event in (started(job_id, n), retrying(job_id, n + 1)))
        )
        seq = 1 + 2 * KEPT.statuses
        snapshot = await ends.wait_stored(job_id, seq)
        line, *statuses = snapshot.events
        assert line_of(line) == "first"
        assert [m.seq for m in statuses] == [*range(seq - KEPT.statuses + 1, seq + 1)]
        assert snapshot.complete_from == statuses[0].seq

    @on_both_ends
    async def test_new_run_after_the_end_is_reported_as_trimming(
        self, ends: Ends, job_id: str
    ) -> None:
        await ends.publish(started(job_id), log(job_id), JobComplete(job_id=job_id, result=1))
        before = await ends.wait_stored(job_id, 3)
        await ends.publish(started(job_id), log(job_id))
        again = await ends.wait_stored(job_id, 5)
        assert (before.complete_from, again.complete_from) == (1, 4)
        resumed = [
            (await ends.source.snapshot(job_id, Cursor(epoch=again.epoch, seq=seq))).recovered
            for seq in (2, 3)
        ]
        assert resumed == [False, True]

    @on_both_ends
    async def test_new_record_is_complete_though_the_former_one_was_trimmed(
        self, ends: Ends, job_id: str
    ) -> None:
        alice, bob = (Origin(owner, Run(owner, 1, owner)) for owner in ("alice", "bob"))
        await ends.publish(*(log(job_id, n) for n in range(3 * KEPT.size)), origin=alice)
        hers = await ends.wait_stored(job_id, 3 * KEPT.size)
        assert hers.complete_from > 1
        await ends.publish(started(job_id), log(job_id), origin=bob)

        async def is_his() -> bool:
            return (await ends.source.info(job_id)).owner == "bob"

        await until(is_his)
        his = await ends.wait_stored(job_id, 2)
        assert (his.complete_from, [m.seq for m in his.events]) == (1, [1, 2])

    @on_both_ends
    async def test_only_late_log_lines_and_new_runs_follow_the_end(
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
        # Progress of the first run is not kept for the second.
        assert [(m.seq, m.kind) for m in again.events] == [(5, "s"), (6, "l")]
        assert [m.seq for m in await ends.wait_received(6)] == [1, 2, 3, 4, 5, 6]

    @on_both_ends
    async def test_late_log_lines_keep_the_end_in_the_history(
        self, ends: Ends, job_id: str
    ) -> None:
        await ends.publish(started(job_id), JobComplete(job_id=job_id, result=1))
        for _ in range(3):
            await ends.publish(*(log(job_id, n) for n in range(KEPT.size)))
        snapshot = await ends.wait_stored(job_id, 2 + KEPT.size)
        assert snapshot.events[-1].seq == 2 + KEPT.size  # at most this many lines after the end
        assert [m.seq for m in snapshot.events if m.kind == "t"] == [2]
        await ends.publish(started(job_id))
        again = await ends.wait_stored(job_id, 3 + KEPT.size)
        assert [m.kind for m in again.events] == ["s"]

    @on_both_ends
    async def test_late_log_lines_are_counted_for_each_run(self, ends: Ends, job_id: str) -> None:
        end = JobComplete(job_id=job_id, result=1)
        await ends.publish(started(job_id), end)
        late = (log(job_id, n) for n in range(KEPT.size))
        await ends.publish(*late, started(job_id), end)
        await ends.publish(log(job_id, "late"))
        snapshot = await ends.wait_stored(job_id, KEPT.size + 5)
        assert [m.kind for m in snapshot.events] == ["s", "t", "l"]

    @on_both_ends
    async def test_repeated_events_are_stored_once(self, ends: Ends, job_id: str) -> None:
        """A publisher that receives no answer cannot know whether its events were stored."""
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
        """The sender of a task, its worker and a retry's worker are different publishers."""
        sent, first, second = (Origin(run=Run("aa", n, f"d{n}" if n else "")) for n in range(3))
        await ends.source.subscribe(job_id)
        await ends.publish(started(job_id), log(job_id), origin=first)
        await ends.publish(queued(job_id), origin=sent)  # late
        await ends.publish(progress(job_id, 1), retrying(job_id, 2), origin=first)
        await ends.publish(started(job_id, 2), log(job_id), origin=second)
        await ends.publish(log(job_id), retrying(job_id, 2), failed(job_id), origin=first)
        await ends.publish(JobComplete(job_id=job_id, result=1), failed(job_id), origin=second)
        # So late that the former run would begin after the end of the latter.
        await ends.publish(queued(job_id), origin=sent)
        await ends.publish(started(job_id), started(job_id), log(job_id), origin=first)
        await ends.publish(started(job_id, 2), log(job_id), origin=second)
        assert (await ends.wait_stored(job_id, 10)).state == "complete"
        messages = await ends.wait_received(10)
        assert [m.kind for m in messages] == ["s", "l", "p", "s", "s", "l", "l", "t", "l", "l"]
        assert [m.seq for m in messages] == [*range(1, 11)]
        assert [number_of(m) for m in messages if m.kind == "s"] == [1, None, 2]
        # A late line carries the attempt that logged it.
        assert [attempt_of(m) for m in messages if m.kind == "l"] == [None, None, 1, 1, 2]

    @on_both_ends
    async def test_resent_task_begins_a_new_run(self, ends: Ends, job_id: str) -> None:
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
        assert [number_of(m) for m in messages] == [1, None, None, None, 2, None]
        assert [attempt_of(m) for m in messages if m.kind == "l"] == [1, None]

    @on_both_ends
    async def test_redelivered_task_begins_a_new_run(self, ends: Ends, job_id: str) -> None:
        """The first worker was lost, or is slow and runs the task at the same time."""
        lost = Origin(run=Run("aa", 1, "dead"))
        again = Origin(run=Run("aa", 1, "alive", redelivered=True))
        await ends.source.subscribe(job_id)
        await ends.publish(started(job_id), progress(job_id, 70), origin=lost)
        await ends.publish(started(job_id), origin=again)
        await ends.publish(log(job_id), failed(job_id), origin=lost)
        await ends.publish(JobComplete(job_id=job_id, result=1), origin=again)
        assert (await ends.wait_stored(job_id, 5)).state == "complete"
        # Only the broker knows which delivery is the later one.
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
        assert [attempt_of(m) for m in messages if m.kind == "l"] == [1, 1, None]

    @on_both_ends
    async def test_job_can_end_without_a_start_event(self, ends: Ends, job_id: str) -> None:
        """A task that is revoked in the queue is ended by a worker that never runs it."""
        await ends.source.subscribe(job_id)
        await ends.publish(queued(job_id), origin=Origin(run=Run("aa")))
        await ends.publish(failed(job_id), origin=Origin(run=Run("aa", 1, "d1")))
        await ends.publish(queued(job_id), failed(job_id), origin=Origin(run=Run("aa")))
        await ends.publish(failed(job_id), log(job_id))
        assert (await ends.wait_stored(job_id, 3)).state == "error"
        assert [m.kind for m in await ends.wait_received(3)] == ["s", "t", "l"]

    @on_both_ends
    async def test_event_with_a_required_state_is_stored_only_in_that_state(
        self, ends: Ends, job_id: str
    ) -> None:
        await ends.source.subscribe(job_id)
        origin = Origin(run=Run("aa", 1, "d1"))
        stalled = JobStatus(job_id=job_id, status="stalled")
        await ends.publish_if("stalled", failed(job_id), origin)  # the job has no record
        await ends.publish(started(job_id), progress(job_id, 5), origin=origin)
        await ends.publish_if("stalled", started(job_id), origin)
        await ends.publish_if("started", stalled, origin)
        await ends.publish_if("started", stalled, origin)
        await ends.publish_if("stalled", started(job_id), origin)  # revives, without a new run
        await ends.publish_if("stalled", failed(job_id), origin)
        await ends.publish_if("started", stalled, Origin(run=Run("aa")))  # a past run
        await ends.publish_if("started", stalled, origin)
        await ends.publish_if("stalled", failed(job_id), origin)
        snapshot = await ends.wait_stored(job_id, 6)
        assert snapshot.state == "error"
        messages = await ends.wait_received(6)
        assert [(m.seq, m.kind) for m in messages] == [
            (1, "s"), (2, "p"), (3, "s"), (4, "s"), (5, "s"), (6, "t"),
        ]  # fmt: skip
        assert [number_of(m) for m in messages] == [1, None, None, 1, None, None]
        assert [m.seq for m in snapshot.events] == [1, 2, 3, 4, 5, 6]

    @on_both_ends
    async def test_event_waits_for_its_predecessor_of_another_publisher(
        self, ends: Ends, job_id: str
    ) -> None:
        """The worker of a retry may reach the transport before the previous worker does."""
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
                publish_until_stored(latter, [then[0], Outgoing.of(log(other)), *then[1:]])
            )
            assert (await ends.wait_stored(other, 1)).seq == 1  # other jobs do not wait
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
        assert [line_of(m) for m in messages if m.kind == "l"] == ["first", "second"]

    def _run(self, job_id: str) -> list[JobEvent]:
        return [started(job_id), log(job_id, "first"), retrying(job_id, 2)]

    @on_both_ends
    async def test_event_without_a_record_does_not_wait_for_an_old_predecessor(
        self, ends: Ends, job_id: str
    ) -> None:
        """The record expired while the task waited for its retry."""
        long_ago = int(time.time()) - 2 * MAX_TRANSIT
        origin = Origin(after=str(Predecessor("another", 7, long_ago)))
        await ends.publish(started(job_id, 2), JobComplete(job_id=job_id, result=2), origin=origin)
        assert (await ends.wait_stored(job_id, 2)).state == "complete"

    @on_both_ends
    async def test_retry_without_a_record_waits_for_the_previous_attempt(
        self, ends: Ends, job_id: str
    ) -> None:
        """The transport was unavailable during the whole first attempt."""
        await ends.source.subscribe(job_id)
        former, latter = ends.publisher, open_publisher(ends.url, KEPT)
        runs = [Run("aa", attempt, f"d{attempt}") for attempt in (1, 2)]
        first = batch_of(self._run(job_id), Origin(run=runs[0]), 1)
        after = str(Predecessor(former.publisher_id, 3, int(time.time())))
        second = [started(job_id, 2), log(job_id, "second"), JobComplete(job_id=job_id, result=2)]
        then = batch_of(second, Origin(run=runs[1], after=after), 1)
        other = new_job_id()
        try:
            publishing = asyncio.create_task(
                publish_until_stored(latter, [*then, Outgoing.of(log(other))])
            )
            assert (await ends.wait_stored(other, 1)).seq == 1  # other jobs do not wait
            assert (await ends.source.snapshot(job_id)).epoch == NO_RECORD
            await asyncio.to_thread(former.publish, first)
            await publishing
            messages = await ends.wait_received(6)
        finally:
            latter.close()
        assert [m.kind for m in messages] == ["s", "l", "s", "s", "l", "t"]
        assert [line_of(m) for m in messages if m.kind == "l"] == ["first", "second"]

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
        # Alice's run continues, and its start event arrives once more.
        await ends.publish(log(job_id, "late"), failed(job_id), started(job_id), origin=alice)
        await ends.publish(log(job_id, "his too"), origin=bob)
        await ends.wait_received(6)
        his = await ends.source.snapshot(job_id)
        assert his.epoch != hers.epoch
        assert (hers.owner, his.owner) == ("alice", "bob")
        assert (his.seq, his.state) == (3, "started")
        assert [m.kind for m in his.events] == ["s", "l", "l"]
        assert [line_of(m) for m in his.events if m.kind == "l"] == ["his", "his too"]
        assert number_of(his.events[0]) == 1
        assert not (await ends.source.snapshot(job_id, Cursor(epoch=hers.epoch, seq=1))).recovered

    @on_both_ends
    async def test_record_without_an_owner_takes_the_owner_of_an_event(
        self, ends: Ends, job_id: str
    ) -> None:
        run = Run("aa", 1, "d1")
        await ends.publish(log(job_id))  # from an emit, before the job is sent
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
        # The followers of the unowned job have to be authorized again, so the epoch changes.
        assert before.epoch != snapshot.epoch
        assert [message.seq for message in snapshot.events] == [1, 2]
        assert {message.epoch for message in snapshot.events} == {snapshot.epoch}
        cursor = Cursor(epoch=before.epoch, seq=1)
        assert not (await ends.source.snapshot(job_id, cursor)).recovered
        assert (await ends.source.info(job_id)).owner == "alice"

    @on_both_ends
    async def test_description_is_merged_from_the_events_of_a_job(
        self, ends: Ends, job_id: str
    ) -> None:
        sent, began = now(), now() + timedelta(seconds=1)
        sending, run = Origin("alice", Run("aa")), Origin("alice", Run("aa", 1, "d1"))
        by_sender: dict[str, Any] = {
            "task": "reports.build", "title": "March report", "tags": ("project:7",),
        }  # fmt: skip
        await ends.publish(
            described(queued(job_id), **by_sender, queue="slow", parent="42", created_at=sent),
            origin=sending,
        )
        await ends.publish(
            described(started(job_id), **by_sender, worker="celery@a", created_at=began), origin=run
        )
        await ends.publish(progress(job_id, 5), retrying(job_id, 2), origin=run)
        expected = JobInfo(
            **by_sender, queue="slow", parent="42", created_at=sent, worker="celery@a",
            owner="alice",
        )  # fmt: skip
        assert (await ends.wait_stored(job_id, 4)).info == expected
        assert await ends.source.info(job_id) == expected

    @on_both_ends
    async def test_job_info_is_sent_with_all_tags_and_is_no_history(
        self, ends: Ends, job_id: str
    ) -> None:
        await ends.source.subscribe(job_id)
        run = Origin("alice", Run("aa", 1, "d1"))
        tags = tuple(f"tag {n}" for n in range(MAX_TAGS))
        await ends.publish(described(started(job_id), title="old", tags=tags[:2]), origin=run)
        await ends.publish(
            log(job_id), retitled(job_id, title='2 "new" über', tags=tags[1:3]), origin=run
        )
        await ends.publish(retitled(job_id, tags=(*tags[2:], "one more")), origin=run)
        await ends.publish(retitled(job_id, title="late"), origin=Origin("alice", Run("aa", 0)))
        await ends.publish(log(job_id), origin=run)
        messages = await ends.wait_received(5)
        assert [(m.seq, m.kind) for m in messages] == [
            (1, "s"), (2, "l"), (3, "i"), (4, "i"), (5, "l"),
        ]  # fmt: skip
        assert [title_and_tags_of(m) for m in messages if m.kind == "i"] == [
            ('2 "new" über', list(tags[:3])), ('2 "new" über', list(tags)),
        ]  # fmt: skip
        snapshot = await ends.wait_stored(job_id, 5)
        assert snapshot.info == JobInfo(title='2 "new" über', tags=tags, owner="alice")
        assert [m.seq for m in snapshot.events] == [1, 2, 5]
        assert snapshot.complete_from == 1
        resumed = await ends.source.snapshot(job_id, Cursor(epoch=snapshot.epoch, seq=3))
        assert (resumed.recovered, [m.seq for m in resumed.events]) == (True, [5])

    @on_both_ends
    async def test_run_after_the_end_begins_another_description(
        self, ends: Ends, job_id: str
    ) -> None:
        alice = Origin("alice", Run("aa", 1, "d1"))
        again, then = now(), Origin("alice", Run("bb"))
        await ends.publish(
            described(started(job_id), title="first", tags=("a",), created_at=now()), origin=alice
        )
        await ends.publish(JobComplete(job_id=job_id, result=None), origin=alice)
        await ends.publish(retitled(job_id, title="after the end"), origin=alice)
        ended = await ends.wait_stored(job_id, 2)
        await ends.publish(described(queued(job_id), tags=("b",), created_at=again), origin=then)
        begun = await ends.wait_stored(job_id, 3)
        await ends.publish(failed(job_id), origin=then)
        await ends.publish(started(job_id), origin=Origin("alice", Run("cc", 1, "d2")))
        undescribed = await ends.wait_stored(job_id, 5)
        assert (ended.info.title, ended.info.tags) == ("first", ("a",))
        assert begun.info == JobInfo(tags=("b",), created_at=again, owner="alice")
        assert undescribed.info == JobInfo(owner="alice")

    @on_both_ends
    async def test_record_that_begins_with_its_ending_has_the_description_of_the_ending(
        self, ends: Ends, job_id: str
    ) -> None:
        """The main process of a worker may store the ending before anything else of the job."""
        sent = now()
        known = JobInfo(
            task="reports.build", title="March", tags=("a",), worker="w", created_at=sent
        )
        run = Origin("alice", Run("aa", 1, "d1"))
        await ends.publish_with(known, log(job_id), failed(job_id), origin=run)
        await ends.wait_stored(job_id, 2)
        await ends.publish(
            described(queued(job_id), title="late", queue="slow"),
            origin=Origin("alice", Run("aa")),
        )
        await ends.publish(log(job_id), origin=run)
        snapshot = await ends.wait_stored(job_id, 3)
        assert snapshot.info == structs.replace(known, queue="slow", owner="alice")
        assert [m.kind for m in snapshot.events] == ["l", "t", "l"]

    @on_both_ends
    async def test_description_of_an_ending_replaces_nothing(self, ends: Ends, job_id: str) -> None:
        run, other = Origin("alice", Run("aa", 1, "d1")), JobInfo(title="b", tags=("y",), task="t")
        began = now()
        await ends.publish(
            described(started(job_id), title="a", tags=("x",), created_at=began), origin=run
        )
        await ends.publish_with(
            structs.replace(other, created_at=now(), queue="q"), retrying(job_id, 2), origin=run
        )
        retried = await ends.wait_stored(job_id, 2)
        assert retried.info == JobInfo(
            title="a", tags=("x",), task="t", queue="q", created_at=began, owner="alice"
        )
        again = Origin("alice", Run("aa", 2, "d2"))
        await ends.publish_with(
            structs.replace(other, worker="w"), started(job_id, 2), progress(job_id, 1),
            failed(job_id), origin=again,
        )  # fmt: skip
        ended = await ends.wait_stored(job_id, 5)
        assert ended.info == structs.replace(retried.info, worker="w")
        assert ended.epoch == retried.epoch

    @on_both_ends
    async def test_late_description_completes_a_record_in_another_epoch(
        self, ends: Ends, job_id: str
    ) -> None:
        """The monitor of leases, which knows no description, may have stored all events before."""
        run = Origin(run=Run("aa", 1, "d1"))
        stalled = JobStatus(job_id=job_id, status="stalled")
        await ends.publish_if("started", stalled, run)
        await ends.publish_if("stalled", failed(job_id), run)
        before = await ends.wait_stored(job_id, 2)
        sending, other = Origin(run=Run("aa")), Origin(run=Run("bb", 1, "d1"))
        await ends.publish(described(queued(job_id), title="a", tags=("x",)), origin=sending)
        await ends.publish(described(queued(job_id), title="b", tags=("y",)), origin=sending)
        await ends.publish(retitled(job_id, title="c"), origin=other)
        await ends.publish(log(job_id), origin=run)
        snapshot = await ends.wait_stored(job_id, 3)
        assert before.info == NO_INFO
        assert snapshot.info == JobInfo(title="a", tags=("x",))
        assert [m.kind for m in snapshot.events] == ["s", "t", "l"]
        # There is no message, so followers notice the change by the epoch.
        assert snapshot.epoch != before.epoch
        resumed = await ends.source.snapshot(job_id, Cursor(epoch=before.epoch, seq=2))
        assert not resumed.recovered

    @on_both_ends
    async def test_events_that_are_published_together_may_end_a_description(
        self, ends: Ends, job_id: str
    ) -> None:
        await ends.publish(
            described(started(job_id), title="first"),
            JobComplete(job_id=job_id, result=None),
            started(job_id),
        )
        assert (await ends.wait_stored(job_id, 3)).info == NO_INFO

    @on_both_ends
    async def test_record_of_another_owner_begins_another_description(
        self, ends: Ends, job_id: str
    ) -> None:
        alice, bob = (Origin(owner, Run(owner, 1, owner)) for owner in ("alice", "bob"))
        await ends.publish(described(started(job_id), title="hers", tags=("a",)), origin=alice)
        await ends.publish(described(started(job_id), tags=("b",)), origin=bob)
        await ends.publish(retitled(job_id, title="hers"), origin=alice)
        await ends.publish(log(job_id), origin=bob)
        snapshot = await ends.wait_stored(job_id, 2)
        assert snapshot.info == JobInfo(tags=("b",), owner="bob")

    @on_both_ends
    async def test_description_of_a_record_survives_its_first_owner(
        self, ends: Ends, job_id: str
    ) -> None:
        await ends.publish(described(queued(job_id), title="a title"))
        await ends.publish(log(job_id), origin=Origin("alice", Run("aa", 1, "d1")))
        snapshot = await ends.wait_stored(job_id, 2)
        assert snapshot.info == JobInfo(title="a title", owner="alice")

    @on_both_ends
    async def test_positions_are_the_latest_seqs_of_the_records(
        self, ends: Ends, job_id: str
    ) -> None:
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
        null = {"percentage": 4, "message": None}
        for wrong in ({"percentage": 400}, null, {"message": "x"}, "text"):
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
    async def test_closing_twice_succeeds(self, ends: Ends, job_id: str) -> None:
        await ends.source.aclose()
        await ends.source.aclose()
        ends.publisher.close()
        ends.publisher.close()

    @on_both_ends
    async def test_run_can_stall_before_its_start_event(self, ends: Ends, job_id: str) -> None:
        await ends.source.subscribe(job_id)
        origin, stalled = Origin(run=Run("aa", 1, "d1")), JobStatus(job_id=job_id, status="stalled")
        await ends.publish(queued(job_id), origin=Origin(run=Run("aa")))
        await ends.publish_if("started", stalled, origin)
        await ends.publish_if("started", stalled, origin)
        await ends.publish_if("stalled", failed(job_id), origin)
        await ends.publish_if("started", stalled, Origin(run=Run("aa", 1, "d2")))
        assert (await ends.wait_stored(job_id, 3)).state == "error"
        assert [m.kind for m in await ends.wait_received(3)] == ["s", "s", "t"]

    @on_both_ends
    async def test_reservation_stalls_and_ends_while_the_job_is_queued(
        self, ends: Ends, job_id: str
    ) -> None:
        await ends.source.subscribe(job_id)
        origin, stalled = Origin(run=Run("aa", 0, "d1")), JobStatus(job_id=job_id, status="stalled")
        await ends.publish_if("queued", stalled, origin)  # the job has no record
        await ends.publish(queued(job_id), origin=origin)
        await ends.publish_if("queued", stalled, origin)
        await ends.publish_if("stalled", queued(job_id), origin)  # revives, without a new run
        await ends.publish_if("queued", stalled, origin)
        await ends.publish_if("stalled", failed(job_id), origin)
        assert (await ends.wait_stored(job_id, 5)).state == "error"
        assert [m.kind for m in await ends.wait_received(5)] == ["s", "s", "s", "s", "t"]

    @on_both_ends
    async def test_reservation_is_past_once_a_worker_has_started_the_job(
        self, ends: Ends, job_id: str
    ) -> None:
        await ends.source.subscribe(job_id)
        origin, stalled = Origin(run=Run("aa", 0, "d1")), JobStatus(job_id=job_id, status="stalled")
        run = Origin(run=Run("aa", 1, "d2"))
        await ends.publish(queued(job_id), origin=origin)
        await ends.publish(started(job_id), origin=run)
        await ends.publish_if("queued", stalled, origin)
        await ends.publish(failed(job_id), origin=origin)
        await ends.publish(log(job_id), origin=run)
        snapshot = await ends.wait_stored(job_id, 3)
        assert (snapshot.seq, snapshot.state) == (3, "started")
        assert [m.kind for m in await ends.wait_received(3)] == ["s", "s", "l"]
