"""The record of a job: which events it keeps, and which clients can resume."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobcast.events import Cursor, JobComplete, JobEvent, JobLog, JobProgress, JobStatus, RunStatus
from jobcast.transports import Message, Origin, Outgoing, Retention, Run
from jobcast.transports.base import can_resume
from jobcast.transports.cancellation import CancelAnswer, Cancellation
from jobcast.transports.record import Record, Records

JOB = "a"
RETENTION = Retention(ttl=60, size=5)
BEGIN: list[RunStatus] = ["queued", "started"]

event_lists = st.lists(
    st.one_of(
        st.builds(lambda text: JobLog(job_id=JOB, level="info", message=text), st.text(max_size=3)),
        st.builds(lambda n: JobProgress(job_id=JOB, percentage=n), st.integers(0, 100)),
        st.sampled_from([JobStatus(job_id=JOB, status="started")]),
        st.sampled_from([JobComplete(job_id=JOB, result=None)]),
    ),
    max_size=30,
)


def stored(record: Record, events: list[JobEvent]) -> list[Message]:
    return [message for event in events for message in record.add(Outgoing.of(event))]


retentions = st.builds(Retention, size=st.integers(1, 10), statuses=st.integers(1, 5))


@given(event_lists, st.integers(0, 40), retentions)
def test_resuming_client_misses_no_event(
    events: list[JobEvent], seq: int, retention: Retention
) -> None:
    record = Record(None, retention)
    messages = stored(record, events)
    snapshot = record.snapshot(Cursor(epoch=record.epoch, seq=seq))
    later = [m for m in messages if m.seq > seq]
    latest = [m for m in messages if m.kind == "p"][-1:]
    if snapshot.recovered:
        due = [m for m in later if m.kind != "p"]
        assert [m for m in snapshot.events if m.kind != "p"] == due
        # Progress is missing only if newer progress, or a new run, has replaced it.
        assert [m for m in snapshot.events if m.kind == "p"] in (
            [],
            [m for m in latest if m in later],
        )
    else:
        missing = {m.seq for m in later if m.kind != "p"} - {m.seq for m in snapshot.events}
        assert seq > record.seq or missing
        assert snapshot == record.snapshot(None)
    assert [m.seq for m in snapshot.events] == sorted({m.seq for m in snapshot.events})


@given(event_lists, retentions)
def test_history_is_complete_from_the_event_after_the_latest_trimmed_one(
    events: list[JobEvent], retention: Retention
) -> None:
    record = Record(None, retention)
    messages = stored(record, events)
    snapshot = record.snapshot(None)
    trimmed = {m.seq for m in messages if m.kind != "p"} - {m.seq for m in snapshot.events}
    assert snapshot.complete_from == max(trimmed, default=0) + 1
    assert sum(m.kind == "l" for m in snapshot.events) <= retention.size
    assert sum(m.kind in "st" for m in snapshot.events) <= retention.statuses


def test_long_log_keeps_the_statuses() -> None:
    record = Record(None, RETENTION)
    first = stored(record, [JobStatus(job_id=JOB, status=status) for status in BEGIN])
    lines = [JobLog(job_id=JOB, level="info", message=str(n)) for n in range(50)]
    last = stored(record, [*lines, JobComplete(job_id=JOB, result=None)])
    snapshot = record.snapshot(None)
    assert snapshot.events == (*first, *last[-RETENTION.size - 1 :])
    assert snapshot.complete_from == last[-1].seq - RETENTION.size


@given(event_lists, st.integers(0, 40))
def test_cursor_of_another_epoch_does_not_resume(events: list[JobEvent], seq: int) -> None:
    record = Record(None, RETENTION)
    stored(record, events)
    snapshot = record.snapshot(Cursor(epoch="another", seq=seq))
    assert not snapshot.recovered
    assert snapshot == record.snapshot(None)


@given(st.integers(0, 20), st.integers(0, 20), st.integers(1, 21))
def test_resume_needs_a_cursor_within_the_complete_history(
    at: int, seq: int, complete_from: int
) -> None:
    cursor = Cursor(epoch="e", seq=at)
    decided = can_resume(cursor, epoch="e", seq=seq, complete_from=complete_from)
    # No event is missing from ``complete_from`` to ``seq``.
    assert decided == (at <= seq and set(range(at + 1, complete_from)) == set())
    assert not can_resume(None, epoch="e", seq=seq, complete_from=complete_from)


@given(event_lists, st.lists(st.integers(1, 6), max_size=12))
def test_repeated_events_change_nothing(events: list[JobEvent], repeats: list[int]) -> None:
    single, repeated = Record(None, Retention()), Record(None, Retention())
    numbered = [Outgoing.of(event, number=n) for n, event in enumerate(events, 1)]
    for outgoing in numbered:
        single.add(outgoing, "p")
    for end, outgoing in enumerate(numbered, 1):
        repeated.add(outgoing, "p")
        if repeats:
            # A publisher that received no answer repeats its last events in order.
            for again in numbered[max(0, end - repeats.pop()) : end]:
                assert repeated.add(again, "p") == []
    kept = ([m.packet for m in record.history.events] for record in (single, repeated))
    assert next(kept) == next(kept)
    assert (repeated.seq, repeated.state) == (single.seq, single.state)


def test_records_past_a_limit_are_dropped_ended_ones_first() -> None:
    records = Records(Retention(ttl=60, size=100), max_records=3, max_events=1000)
    for name in "abcd":
        records.add(Outgoing.of(JobLog(job_id=name, level="info", message="x")))
        if name == "b":
            records.add(Outgoing.of(JobComplete(job_id=name, result=None)))
    assert len(records) == 3
    assert [records.get(name) is not None for name in "abcd"] == [True, False, True, True]

    records = Records(Retention(ttl=60, size=100), max_records=100, max_events=10)
    for n in range(8):
        for name in "ab":
            records.add(Outgoing.of(JobLog(job_id=name, level="info", message=str(n))))
    # The record with the oldest latest event was dropped.
    left = [name for name in "ab" if records.get(name) is not None]
    assert left
    assert sum(len(record.history) for name in left if (record := records.get(name))) <= 10


def test_records_expire() -> None:
    records = Records(Retention(ttl=0, size=100))
    records.add(Outgoing.of(JobComplete(job_id="a", result=None)))
    assert records.get("a") is None
    assert len(records) == 0
    assert records.snapshot("a", None).state == "pending"


@pytest.mark.parametrize(
    ("events", "sending", "outcome"), [
        (["queued", "started"], "aaaaaaaaaaaa", None),
        (["queued", "started"], "bbbbbbbbbbbb", "not_cancellable"),
        (["queued"], "aaaaaaaaaaaa", "not_cancellable"),
    ], ids=["running", "sent again", "waiting"],
)  # fmt: skip
def test_a_request_that_the_workers_have_is_not_refused_while_the_job_runs(
    events: list[RunStatus], sending: str, outcome: str | None
) -> None:
    """A run that received the request at its start has ended, although it is not cancellable."""
    records, run = Records(RETENTION), Run("aaaaaaaaaaaa")
    for status in events:
        event = JobStatus(job_id=JOB, status=status, cancellable=False)
        records.add(Outgoing.of(event, Origin(run=run)))
    request = Cancellation(job_id=JOB, sending=sending)
    answer = records.cancel_answer(request, is_passed_on=True)
    assert (answer and answer.outcome) == outcome
    assert records.cancel_answer(request) == CancelAnswer(outcome="not_cancellable")
