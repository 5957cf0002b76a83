"""The contract of transports that cancel jobs."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType, structs

from jobcast.errors import TransportUnavailable
from jobcast.events import JobComplete, JobError, JobStatus
from jobcast.feeds import JobSummary
from jobcast.testing.contracts import TransportContract
from jobcast.testing.ends import (
    TIMEOUT,
    Ends,
    batch_of,
    described,
    eventually,
    failed,
    log,
    new_job_id,
    on_both_ends,
    progress,
    publish_until_stored,
    queued,
    retrying,
    started,
    until,
)
from jobcast.testing.interruptions import InterruptionContract
from jobcast.transports import Message, Origin, Run, Snapshot, open_publisher
from jobcast.transports.cancellation import (
    CancelAnswer,
    Cancellation,
    SupportsCancellation,
    SupportsCancellationNotices,
)
from jobcast.transports.leases import Lease, SupportsLeaseRenewal

CANCELLED = CancelAnswer(outcome="cancelled")
REQUESTED = CancelAnswer(outcome="requested")
ALREADY_ENDED = CancelAnswer(outcome="already_ended")
NOT_CANCELLABLE = CancelAnswer(outcome="not_cancellable")
JOB_NOT_FOUND = CancelAnswer(outcome="job_not_found")

RACES = 50

SENT = Run("aa")  # by the process that sends the job
RESERVED = Run("aa", 0, "s1")
FIRST = Run("aa", 1, "d1")
SECOND = Run("aa", 2, "d2")
REDELIVERED = Run("aa", 1, "d2", True)
REPLACING = Run("aa.cc", 1, "d3")  # of a task that replaces the first one
SENT_AGAIN = Run("bb")


class CancellationContract(TransportContract):
    """The tests for transports that cancel jobs."""

    @on_both_ends
    async def test_job_without_a_record_cannot_be_cancelled(self, ends: Ends, job_id: str) -> None:
        assert await cancel(ends, job_id) == JOB_NOT_FOUND
        assert (await ends.source.snapshot(job_id)).state == "pending"

    @on_both_ends
    async def test_queued_job_ends_at_once(self, ends: Ends, job_id: str) -> None:
        await ends.source.subscribe(job_id)
        await _begin(ends, queued(job_id), run=SENT)
        assert await cancel(ends, job_id, by="alice", message="wrong file") == CANCELLED
        snapshot = await ends.wait_stored(job_id, 2)
        assert snapshot.state == "cancelled"
        event, kind = payload_of(snapshot.events[-1]), snapshot.events[-1].kind
        assert kind == "t"
        fields = {name: event[name] for name in ("error", "message", "reason", "by")}
        assert fields == {
            "error": "JobCancelled", "message": "wrong file", "reason": "cancelled", "by": "alice",
        }  # fmt: skip
        assert [m.packet for m in await ends.wait_received(2)] == packets(snapshot)

    @on_both_ends
    async def test_request_of_a_process_names_no_subject(self, ends: Ends, job_id: str) -> None:
        await _begin(ends, queued(job_id), run=SENT)
        assert await cancel(ends, job_id) == CANCELLED
        event = payload_of((await ends.wait_stored(job_id, 2)).events[-1])
        assert event["message"] == "Cancelled"
        assert "by" not in event

    @on_both_ends
    async def test_job_that_waits_for_a_retry_ends_at_once(self, ends: Ends, job_id: str) -> None:
        await _begin(ends, started(job_id), retrying(job_id, 1), run=FIRST)
        assert await cancel(ends, job_id) == CANCELLED
        assert (await ends.wait_stored(job_id, 3)).state == "cancelled"

    @on_both_ends
    async def test_stalled_reservation_ends_at_once(self, ends: Ends, job_id: str) -> None:
        await _begin(ends, queued(job_id), stalled(job_id), run=RESERVED)
        assert await cancel(ends, job_id) == CANCELLED
        assert (await ends.wait_stored(job_id, 3)).state == "cancelled"

    @on_both_ends
    async def test_running_job_is_asked_to_stop(self, ends: Ends, job_id: str) -> None:
        await ends.source.subscribe(job_id)
        await _begin(ends, started(job_id), run=FIRST)
        assert await cancel(ends, job_id, by="alice", message="wrong file") == REQUESTED
        snapshot = await ends.wait_stored(job_id, 2)
        assert snapshot.state == "cancelling"
        event = payload_of(snapshot.events[-1])
        assert snapshot.events[-1].kind == "s"
        fields = {name: event[name] for name in ("status", "message", "by")}
        assert fields == {"status": "cancelling", "message": "wrong file", "by": "alice"}
        assert [m.packet for m in await ends.wait_received(2)] == packets(snapshot)

    @on_both_ends
    async def test_answer_says_whether_the_run_is_terminated(self, ends: Ends, job_id: str) -> None:
        terminated = described(started(job_id), worker="w1", terminates=True)
        await _begin(ends, terminated, run=FIRST)
        assert await cancel(ends, job_id) == structs.replace(REQUESTED, terminates=True)
        assert await cancel(ends, job_id) == structs.replace(REQUESTED, terminates=True)
        other = new_job_id()  # retried by a worker with another pool
        terminated = described(started(other), worker="w1", terminates=True)
        await _begin(ends, terminated, retrying(other, 1), run=FIRST)
        await ends.publish(described(started(other, 2), worker="w2"), origin=Origin(run=SECOND))
        await ends.wait_stored(other, 3)
        assert await cancel(ends, other) == REQUESTED

    @on_both_ends
    async def test_second_request_publishes_nothing(self, ends: Ends, job_id: str) -> None:
        await _begin(ends, started(job_id), run=FIRST)
        assert await cancel(ends, job_id, by="alice") == REQUESTED
        assert await cancel(ends, job_id, by="bob") == REQUESTED
        assert (await ends.source.snapshot(job_id)).seq == 2
        await _publish(ends, failed(job_id), run=FIRST)
        await ends.wait_stored(job_id, 3)
        assert await cancel(ends, job_id, by="bob") == ALREADY_ENDED
        assert (await ends.source.snapshot(job_id)).seq == 3

    @on_both_ends
    async def test_ended_job_is_not_cancelled(self, ends: Ends, job_id: str) -> None:
        await _begin(ends, started(job_id), completed(job_id), run=FIRST)
        assert await cancel(ends, job_id) == ALREADY_ENDED
        snapshot = await ends.source.snapshot(job_id)
        assert (snapshot.state, snapshot.seq) == ("complete", 2)

    @on_both_ends
    async def test_job_can_refuse_to_be_cancelled(self, ends: Ends, job_id: str) -> None:
        await _begin(ends, described(queued(job_id), cancellable=False), run=SENT)
        assert await cancel(ends, job_id) == NOT_CANCELLABLE
        assert not (await ends.source.info(job_id)).cancellable
        await ends.publish(described(started(job_id), worker="w"), origin=Origin(run=FIRST))
        await ends.wait_stored(job_id, 2)
        assert await cancel(ends, job_id) == NOT_CANCELLABLE
        await ends.publish(completed(job_id), origin=Origin(run=FIRST))
        await ends.wait_stored(job_id, 3)
        assert await cancel(ends, job_id) == ALREADY_ENDED

    @on_both_ends
    async def test_late_start_of_a_cancelled_job_is_dropped(self, ends: Ends, job_id: str) -> None:
        await _begin(ends, queued(job_id), run=SENT)
        assert await cancel(ends, job_id) == CANCELLED
        for run in (FIRST, REDELIVERED, SECOND, REPLACING):
            await _publish(ends, started(job_id), progress(job_id, 1), run=run)
            await _publish(ends, completed(job_id), run=run)
        await _publish(ends, log(job_id), run=FIRST)
        snapshot = await ends.wait_stored(job_id, 3)
        assert [message.kind for message in snapshot.events] == ["s", "t", "l"]
        assert snapshot.state == "cancelled"

    @on_both_ends
    async def test_task_that_replaces_a_cancelled_one_does_not_begin(
        self, ends: Ends, job_id: str
    ) -> None:
        await _begin(ends, started(job_id), queued(job_id), run=FIRST)
        assert await cancel(ends, job_id) == CANCELLED
        await _publish(ends, started(job_id), progress(job_id, 1), run=REPLACING)
        await _publish(ends, completed(job_id), run=REPLACING)
        await _publish(ends, log(job_id), run=REPLACING)
        snapshot = await ends.wait_stored(job_id, 4)
        assert [message.kind for message in snapshot.events] == ["s", "s", "t", "l"]
        assert snapshot.state == "cancelled"

    @on_both_ends
    async def test_task_that_replaces_another_one_is_asked_to_stop(
        self, ends: Ends, job_id: str
    ) -> None:
        await _begin(ends, started(job_id), queued(job_id), run=FIRST)
        await _publish(ends, started(job_id), run=REPLACING)
        await ends.wait_stored(job_id, 3)
        assert await cancel(ends, job_id) == REQUESTED
        await _publish(ends, retrying(job_id, 1), run=REPLACING)
        assert (await ends.wait_stored(job_id, 6)).state == "cancelled"

    @on_both_ends
    async def test_job_that_is_sent_again_is_not_cancelled(self, ends: Ends, job_id: str) -> None:
        await _begin(ends, queued(job_id), run=SENT)
        assert await cancel(ends, job_id) == CANCELLED
        await _publish(ends, queued(job_id), run=SENT_AGAIN)
        assert (await ends.wait_stored(job_id, 3)).state == "queued"
        await _publish(ends, started(job_id), run=Run("bb", 1, "d9"))
        assert (await ends.wait_stored(job_id, 4)).state == "started"
        assert await cancel(ends, job_id) == REQUESTED

    @on_both_ends
    async def test_result_wins_if_it_is_stored_first(self, ends: Ends, job_id: str) -> None:
        await _begin(ends, started(job_id), run=FIRST)
        assert await cancel(ends, job_id) == REQUESTED
        await _publish(ends, completed(job_id), run=FIRST)
        assert (await ends.wait_stored(job_id, 3)).state == "complete"
        await _publish(ends, failed(job_id), run=FIRST)
        await _publish(ends, log(job_id), run=FIRST)
        assert (await ends.wait_stored(job_id, 4)).state == "complete"

    @on_both_ends
    async def test_cancelled_run_reports_its_own_end(self, ends: Ends, job_id: str) -> None:
        await _begin(ends, started(job_id), run=FIRST)
        assert await cancel(ends, job_id) == REQUESTED
        end = JobError(job_id=job_id, error="JobCancelled", message="Cancelled", reason="cancelled")
        await _publish(ends, progress(job_id, 50), log(job_id), end, run=FIRST)
        snapshot = await ends.wait_stored(job_id, 5)
        assert [message.kind for message in snapshot.events] == ["s", "s", "p", "l", "t"]
        assert snapshot.state == "cancelled"

    @on_both_ends
    async def test_revoked_job_is_cancelled_too(self, ends: Ends, job_id: str) -> None:
        end = JobError(job_id=job_id, error="TaskRevokedError", message="", reason="revoked")
        await _begin(ends, queued(job_id), end, run=SENT)
        assert (await ends.source.snapshot(job_id)).state == "cancelled"
        assert await cancel(ends, job_id) == ALREADY_ENDED
        await _publish(ends, progress(job_id, 50), run=SENT)
        await _publish(ends, log(job_id), run=SENT)
        assert [m.kind for m in (await ends.wait_stored(job_id, 3)).events] == ["s", "t", "l"]

    @on_both_ends
    async def test_cancelled_run_that_retries_ends(self, ends: Ends, job_id: str) -> None:
        await ends.source.subscribe(job_id)
        await _begin(ends, started(job_id), run=FIRST)
        assert await cancel(ends, job_id, by="alice") == REQUESTED
        late = structs.replace(retrying(job_id, 1), retry_at=retrying(job_id, 1).timestamp)
        await _publish(ends, late, run=FIRST)
        snapshot = await ends.wait_stored(job_id, 4)
        assert snapshot.state == "cancelled"
        end = payload_of(snapshot.events[-1])
        assert (end["reason"], end["by"]) == ("cancelled", "alice")
        assert end["timestamp"] == payload_of(snapshot.events[-2])["timestamp"]
        assert [m.packet for m in await ends.wait_received(4)] == packets(snapshot)

    @on_both_ends
    async def test_cancelled_run_that_is_queued_again_ends(self, ends: Ends, job_id: str) -> None:
        await _begin(ends, started(job_id), run=FIRST)
        assert await cancel(ends, job_id) == REQUESTED
        await _publish(ends, queued(job_id), run=FIRST)
        snapshot = await ends.wait_stored(job_id, 4)
        assert snapshot.state == "cancelled"
        assert [message.kind for message in snapshot.events] == ["s", "s", "s", "t"]

    @on_both_ends
    async def test_redelivered_run_of_a_cancelled_job_does_not_begin(
        self, ends: Ends, job_id: str
    ) -> None:
        await _begin(ends, started(job_id), run=FIRST)
        assert await cancel(ends, job_id) == REQUESTED
        await _publish(ends, started(job_id), run=REDELIVERED)
        snapshot = await ends.wait_stored(job_id, 3)
        assert snapshot.state == "cancelled"
        assert [message.kind for message in snapshot.events] == ["s", "s", "t"]

    @on_both_ends
    async def test_cancelled_run_can_stall_and_revive(self, ends: Ends, job_id: str) -> None:
        origin = Origin(run=FIRST)
        await _begin(ends, started(job_id), run=FIRST)
        assert await cancel(ends, job_id, by="alice") == REQUESTED
        await ends.publish_if("started", stalled(job_id), origin)
        assert (await ends.wait_stored(job_id, 3)).state == "stalled"
        await ends.publish_if("stalled", started(job_id), origin)
        snapshot = await ends.wait_stored(job_id, 5)
        assert snapshot.state == "cancelling"
        statuses = [payload_of(message)["status"] for message in snapshot.events]
        assert statuses == ["started", "cancelling", "stalled", "started", "cancelling"]
        assert payload_of(snapshot.events[-1])["by"] == "alice"
        assert await cancel(ends, job_id) == REQUESTED

    @on_both_ends
    async def test_cancelled_run_can_be_lost(self, ends: Ends, job_id: str) -> None:
        origin = Origin(run=FIRST)
        await _begin(ends, started(job_id), run=FIRST)
        assert await cancel(ends, job_id) == REQUESTED
        await ends.publish_if("started", stalled(job_id), origin)
        await ends.wait_stored(job_id, 3)
        await ends.publish_if("stalled", failed(job_id), origin)
        assert (await ends.wait_stored(job_id, 4)).state == "error"

    @on_both_ends
    async def test_stalled_run_can_be_cancelled_and_lost(self, ends: Ends, job_id: str) -> None:
        origin = Origin(run=FIRST)
        await _begin(ends, started(job_id), run=FIRST)
        await ends.publish_if("started", stalled(job_id), origin)
        await ends.wait_stored(job_id, 2)
        assert await cancel(ends, job_id) == REQUESTED
        assert (await ends.source.snapshot(job_id)).state == "cancelling"
        await ends.publish_if("stalled", started(job_id), origin)
        await ends.publish_if("stalled", failed(job_id), origin)
        snapshot = await ends.wait_stored(job_id, 4)
        assert snapshot.state == "error"
        assert [message.kind for message in snapshot.events] == ["s", "s", "s", "t"]

    @on_both_ends
    async def test_new_owners_job_is_not_cancelled(self, ends: Ends, job_id: str) -> None:
        await ends.publish(started(job_id), origin=Origin("alice", FIRST))
        await ends.wait_stored(job_id, 1)
        assert await cancel(ends, job_id) == REQUESTED
        await ends.publish(queued(job_id), origin=Origin("bob", SENT_AGAIN))
        await until(lambda: _is_in_state(ends, job_id, "queued"))
        assert await cancel(ends, job_id, by="bob") == CANCELLED
        assert payload_of((await ends.source.snapshot(job_id)).events[-1])["by"] == "bob"

    @on_both_ends
    async def test_request_for_another_owner_cancels_nothing(self, ends: Ends, job_id: str) -> None:
        """The id is used again while the rights of the subject are checked."""
        unowned = new_job_id()
        await _begin(ends, queued(unowned), run=SENT)
        await ends.publish(queued(job_id), origin=Origin("alice", SENT))
        await ends.wait_stored(job_id, 1)
        assert await cancel(ends, unowned, owner="alice") == JOB_NOT_FOUND
        assert await cancel(ends, unowned, owner=None) == CANCELLED
        for owner in ("bob", "", None):
            assert await cancel(ends, job_id, owner=owner) == JOB_NOT_FOUND, owner
        assert (await ends.source.snapshot(job_id)).seq == 1
        await ends.publish(started(job_id), origin=Origin("bob", Run("bb", 1, "d9")))
        await until(lambda: _is_in_state(ends, job_id, "started"))
        assert await cancel(ends, job_id, owner="alice") == JOB_NOT_FOUND
        assert (await ends.source.snapshot(job_id)).state == "started"
        assert await cancel(ends, job_id, owner="bob") == REQUESTED
        assert await cancel(ends, job_id, owner="alice") == JOB_NOT_FOUND

    @on_both_ends
    async def test_feeds_show_cancelled_jobs(self, ends: Ends, job_id: str) -> None:
        other = new_job_id()
        await _begin(ends, described(queued(job_id), tags=(job_id,)), run=SENT)
        await _begin(ends, described(started(other), tags=(job_id,)), run=FIRST)
        assert await cancel(ends, job_id, message="wrong file") == CANCELLED
        assert await cancel(ends, other) == REQUESTED
        jobs: dict[str, JobSummary] = {}

        async def are_shown() -> bool:
            listed: list[JobSummary] = await _source(ends).read_feed(f"tag:{job_id}")
            jobs.update({job.job_id: job for job in listed})
            return {job.status for job in listed} == {"cancelled", "cancelling"}

        await until(are_shown)
        assert (jobs[job_id].reason, jobs[job_id].message) == ("cancelled", "wrong file")
        assert jobs[job_id].ended_at is not UNSET
        assert jobs[other].ended_at is UNSET

    @on_both_ends
    async def test_publisher_learns_at_the_start_of_a_cancelled_run(
        self, ends: Ends, job_id: str
    ) -> None:
        seen = _notices(ends)
        running = new_job_id()
        await _begin(ends, started(running), run=FIRST)
        await _begin(ends, queued(job_id), run=SENT)
        assert await cancel(ends, job_id, by="alice", message="wrong file") == CANCELLED
        assert await cancel(ends, running, by="bob") == REQUESTED
        for run in (FIRST, SECOND, REDELIVERED):
            await _publish(ends, started(job_id), run=run)
            assert _take(seen) == (job_id, "alice", "wrong file", "aa"), run
        await _publish(ends, started(running), run=REDELIVERED)
        assert _take(seen) == (running, "bob", "", "aa")
        await _publish(ends, started(job_id), run=Run("bb", 1, "d9"))
        assert seen == []

    @on_both_ends
    async def test_no_run_begins_unnoticed_after_its_job_has_ended(
        self, ends: Ends, job_id: str
    ) -> None:
        """Requests race with starts. A run that loses has to know it before its body begins."""
        seen = _notices(ends)
        for number in range(RACES):
            raced = f"{job_id}-{number}"
            await _begin(ends, queued(raced), run=SENT)
            cancelling = asyncio.create_task(cancel(ends, raced))
            await asyncio.sleep(number % 10 / 1000)
            await _publish(ends, started(raced), run=FIRST)
            heard = {notice.job_id for notice in seen}
            answer = await cancelling
            assert answer in (CANCELLED, REQUESTED)
            assert answer == REQUESTED or raced in heard, number

    @on_both_ends
    async def test_request_after_the_end_does_not_cancel_a_redelivered_run(
        self, ends: Ends, job_id: str
    ) -> None:
        """Requests race with results. A client that is answered "already ended" has no effect."""
        seen = _notices(ends)
        for number in range(RACES):
            raced = f"{job_id}-{number}"
            await _begin(ends, started(raced), run=FIRST)
            cancelling = asyncio.create_task(cancel(ends, raced))
            await asyncio.sleep(number % 10 / 1000)
            await _publish(ends, completed(raced), run=FIRST)
            answer = await cancelling
            await _publish(ends, started(raced), run=REDELIVERED)
            heard = {notice.job_id for notice in seen}
            assert answer in (REQUESTED, ALREADY_ENDED)
            assert (raced in heard) == (answer == REQUESTED), number

    @on_both_ends
    async def test_new_publisher_learns_at_the_start_of_a_cancelled_run(
        self, ends: Ends, job_id: str
    ) -> None:
        """A worker that starts after the request gets the message of the job."""
        await _begin(ends, queued(job_id), run=SENT)
        assert await cancel(ends, job_id, by="alice", message="wrong file") == CANCELLED
        for _ in range(2):
            seen: list[Cancellation] = []
            publisher = open_publisher(ends.worker_url)
            assert isinstance(publisher, SupportsCancellationNotices)
            publisher.on_cancelled = seen.append
            batch = batch_of([started(job_id)], Origin(run=FIRST), 1)
            await publish_until_stored(publisher, batch)
            assert _take(seen) == (job_id, "alice", "wrong file", "aa")
            await asyncio.to_thread(publisher.close)

    @on_both_ends
    async def test_publishers_of_other_jobs_learn_nothing(self, ends: Ends, job_id: str) -> None:
        seen, other = _notices(ends), new_job_id()
        await _begin(ends, queued(job_id), run=SENT)
        assert await cancel(ends, job_id) == CANCELLED
        await _begin(ends, started(other), progress(other, 1), run=FIRST)
        await _publish(ends, queued(job_id), progress(job_id, 1), run=SENT_AGAIN)
        await ends.wait_stored(job_id, 4)
        assert seen == []

    @on_both_ends
    async def test_failing_handler_does_not_disturb_the_publisher(
        self, ends: Ends, job_id: str
    ) -> None:
        def fail(cancellation: Cancellation) -> None:
            raise ValueError(cancellation.job_id)

        _publisher(ends).on_cancelled = fail
        await _begin(ends, started(job_id), run=FIRST)
        assert await cancel(ends, job_id) == REQUESTED
        await _publish(ends, progress(job_id, 1), run=FIRST)
        assert (await ends.wait_stored(job_id, 3)).state == "cancelling"

    @on_both_ends
    async def test_control_channel_carries_accepted_requests(self, ends: Ends, job_id: str) -> None:
        seen: list[Cancellation] = []
        waiting, ended, unknown = (new_job_id() for _ in range(3))
        listener = await asyncio.to_thread(_publisher(ends).listen, seen.append)
        try:
            await _until_listening(ends, seen)
            await _begin(ends, started(job_id), run=FIRST)
            await _begin(ends, described(queued(waiting), task="files.convert"), run=SENT)
            await _begin(ends, started(ended), completed(ended), run=FIRST)
            for target in (unknown, ended, job_id, waiting):
                await cancel(ends, target, by="alice", message="wrong file")
            await eventually(lambda: len(_accepted(seen)) == 2, "two notices")
        finally:
            await asyncio.to_thread(listener.close)
        heard = [(notice.job_id, notice.outcome) for notice in _accepted(seen)]
        assert heard == [(job_id, "requested"), (waiting, "cancelled")]
        for notice in _accepted(seen):
            assert (notice.by, notice.message, notice.sending) == ("alice", "wrong file", "aa")
        assert [notice.task for notice in _accepted(seen)] == ["", "files.convert"]

    @on_both_ends
    async def test_closed_listener_hears_nothing(self, ends: Ends, job_id: str) -> None:
        closed: list[Cancellation] = []
        heard: list[Cancellation] = []
        one = await asyncio.to_thread(_publisher(ends).listen, closed.append)
        other = await asyncio.to_thread(_publisher(ends).listen, heard.append)
        try:
            await _until_listening(ends, closed)
            await _until_listening(ends, heard)
            await asyncio.to_thread(one.close)
            closed.clear()
            await _begin(ends, queued(job_id), run=SENT)
            assert await cancel(ends, job_id) == CANCELLED
            await eventually(lambda: job_id in {notice.job_id for notice in heard}, "a notice")
        finally:
            await asyncio.to_thread(other.close)
        assert job_id not in {notice.job_id for notice in closed}


class AnsweredCancellationContract(CancellationContract):
    """The tests for transports that answer events and renewals with the request in force."""

    @on_both_ends
    async def test_publisher_learns_that_its_job_is_cancelled(
        self, ends: Ends, job_id: str
    ) -> None:
        seen = _notices(ends)
        await _begin(ends, started(job_id), run=FIRST)
        assert await cancel(ends, job_id, by="alice", message="wrong file") == REQUESTED
        for event in (progress(job_id, 1), log(job_id), started(job_id), retrying(job_id, 1)):
            await _publish(ends, event, run=FIRST)
            assert _take(seen) == (job_id, "alice", "wrong file", "aa"), event
        for run in (FIRST, SECOND, REDELIVERED, REPLACING):  # after the end
            for event in (started(job_id), progress(job_id, 1)):
                await _publish(ends, event, run=run)
                assert _take(seen) == (job_id, "alice", "wrong file", "aa"), event
        await ends.publish_if("stalled", failed(job_id), Origin(run=FIRST))  # dropped at once
        assert _take(seen) == (job_id, "alice", "wrong file", "aa")
        assert seen == []

    @on_both_ends
    async def test_publisher_of_another_owners_job_learns_nothing(
        self, ends: Ends, job_id: str
    ) -> None:
        seen, cancelled = _notices(ends), Origin("bob")
        await ends.publish(queued(job_id), origin=cancelled)
        await ends.wait_stored(job_id, 1)
        assert await cancel(ends, job_id) == CANCELLED
        run = Run("", 1, "d1")
        await ends.publish_if("stalled", queued(job_id), Origin("alice", run))
        assert seen == []

    @on_both_ends
    async def test_renewal_says_that_a_job_is_cancelled(self, ends: Ends, job_id: str) -> None:
        seen, other = _notices(ends), new_job_id()
        await _begin(ends, started(job_id), run=FIRST)
        await _begin(ends, started(other), run=FIRST)
        leases = [Lease(job_id, FIRST), Lease(other, FIRST)]
        await _renew(ends, *leases)
        assert seen == []
        assert await cancel(ends, job_id, by="alice", message="wrong file") == REQUESTED
        await _renew(ends, *leases)
        assert _take(seen) == (job_id, "alice", "wrong file", "aa")
        await _renew(ends, Lease(job_id, REPLACING))
        assert _take(seen) == (job_id, "alice", "wrong file", "aa")
        await _renew(ends, Lease(job_id, Run("bb", 1, "d9")), leases[1])
        assert seen == []
        await asyncio.to_thread(_renewing(ends).release, leases)


class RepeatedCancellationContract(CancellationContract):
    """The tests for transports that repeat a request on the control channel."""

    @on_both_ends
    async def test_control_channel_repeats_requests_whose_jobs_go_on(
        self, ends: Ends, job_id: str
    ) -> None:
        seen: list[Cancellation] = []
        await _begin(ends, queued(job_id), run=SENT)
        assert await cancel(ends, job_id, by="alice") == CANCELLED
        listener = await asyncio.to_thread(_publisher(ends).listen, seen.append)
        try:
            await _until_listening(ends, seen)
            await _publish(ends, started(job_id), run=FIRST)
            await eventually(lambda: seen, "a notice for the run that begins")
            seen.clear()
            await _renew(ends, Lease(job_id, FIRST))
            await eventually(lambda: seen, "a notice for the run that goes on")
        finally:
            await asyncio.to_thread(listener.close)
        assert {(c.job_id, c.by, c.outcome, c.sending) for c in seen} == {
            (job_id, "alice", "requested", "aa")
        }


class InterruptedCancellationContract(InterruptionContract, CancellationContract):
    """The tests for transports that cancel jobs, and whose connections can break."""

    @on_both_ends
    async def test_listener_hears_of_requests_after_an_interruption(
        self, ends: Ends, job_id: str
    ) -> None:
        del job_id
        seen: list[Cancellation] = []
        listener = await asyncio.to_thread(_publisher(ends).listen, seen.append)
        try:
            await _until_listening(ends, seen)
            await asyncio.to_thread(self.interrupt)
            await eventually(lambda: ends.resumed or ends.source.ready, "source that is ready")
            await _until_listening(ends, seen)
        finally:
            await asyncio.to_thread(listener.close)

    @on_both_ends
    async def test_requests_survive_an_interruption(self, ends: Ends, job_id: str) -> None:
        await _begin(ends, queued(job_id), run=SENT)
        await asyncio.to_thread(self.interrupt)
        assert await _cancel_until_available(ends, job_id) in (CANCELLED, ALREADY_ENDED)
        assert (await ends.source.snapshot(job_id)).state == "cancelled"


async def cancel(
    ends: Ends,
    job_id: str,
    *,
    by: str | None = None,
    message: str = "",
    owner: str | UnsetType | None = UNSET,
) -> CancelAnswer:
    """Cancel a job like a server process."""
    assert isinstance(ends.source, SupportsCancellation)
    request = Cancellation(job_id=job_id, by=by, message=message, owner=owner)
    return await ends.source.cancel(request)


def stalled(job_id: str) -> JobStatus:
    """Return the event of a run whose lease has expired."""
    return JobStatus(job_id=job_id, status="stalled")


def completed(job_id: str) -> JobComplete:
    """Return the event of a job that has succeeded."""
    return JobComplete(job_id=job_id, result=None)


def payload_of(message: Message) -> dict[str, Any]:
    """Return the payload of an event."""
    _, payload = msgspec.json.decode(message.packet[2:], type=tuple[str, dict[str, Any]])
    return payload


def packets(snapshot: Snapshot) -> list[str]:
    return [message.packet for message in snapshot.events]


async def _is_in_state(ends: Ends, job_id: str, state: str) -> bool:
    return (await ends.source.snapshot(job_id)).state == state


async def _cancel_until_available(ends: Ends, job_id: str) -> CancelAnswer:
    """Repeat a request, like a client, until the transport answers."""
    deadline = time.monotonic() + TIMEOUT
    while True:
        try:
            return await cancel(ends, job_id)
        except TransportUnavailable:
            assert time.monotonic() < deadline, "the transport did not answer"
            await asyncio.sleep(0.1)


def _accepted(seen: list[Cancellation]) -> list[Cancellation]:
    """Return the requests that have taken effect. A listener may read kept requests late."""
    return [cancellation for cancellation in seen if not cancellation.is_for_later_messages]


async def _until_listening(ends: Ends, seen: list[Cancellation]) -> None:
    """Cancel jobs until a listener receives a request, and clear what it has received.

    A subscription may begin with kept requests.
    """
    deadline = time.monotonic() + TIMEOUT
    while not _accepted(seen):
        assert time.monotonic() < deadline, "the listener heard nothing"
        probe = new_job_id()
        batch = batch_of([queued(probe)], Origin(run=SENT), 1)
        await publish_until_stored(ends.publisher, batch)
        await ends.wait_stored(probe, 1)
        assert await _cancel_until_available(ends, probe) in (CANCELLED, ALREADY_ENDED)
        await asyncio.sleep(0.1)
    seen.clear()


async def _begin(ends: Ends, *events: Any, run: Run) -> None:
    """Publish the first events of a job, and wait until they are stored."""
    await ends.publish(*events, origin=Origin(run=run))
    await ends.wait_stored(events[0].job_id, len(events))


async def _publish(ends: Ends, *events: Any, run: Run) -> None:
    await ends.publish(*events, origin=Origin(run=run))


async def _renew(ends: Ends, *leases: Lease) -> None:
    await asyncio.to_thread(_renewing(ends).renew, leases, 60)


def _notices(ends: Ends) -> list[Cancellation]:
    """Return a list of what the publisher learns from now on."""
    seen: list[Cancellation] = []
    _publisher(ends).on_cancelled = seen.append
    return seen


def _take(seen: list[Cancellation]) -> tuple[str, str | None, str, str] | None:
    """Return what the publisher has learned, which is one request, and forget it."""
    found = {(c.job_id, c.by, c.message, c.sending) for c in seen}
    seen.clear()
    assert len(found) <= 1
    return found.pop() if found else None


def _publisher(ends: Ends) -> SupportsCancellationNotices:
    assert isinstance(ends.publisher, SupportsCancellationNotices)
    return ends.publisher


def _renewing(ends: Ends) -> SupportsLeaseRenewal:
    assert isinstance(ends.publisher, SupportsLeaseRenewal)
    return ends.publisher


def _source(ends: Ends) -> Any:
    return ends.source
