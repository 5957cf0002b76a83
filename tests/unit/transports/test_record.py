"""The record of a job: which events it keeps, and which clients can resume."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from jobcast.events import Cursor, JobComplete, JobEvent, JobLog, JobProgress, JobStatus
from jobcast.transports import Message, Outgoing, Retention
from jobcast.transports.base import can_resume
from jobcast.transports.record import Record, Records

JOB = "a"
RETENTION = Retention(ttl=60, size=5)

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
    added = (record.add(Outgoing.of(event), RETENTION) for event in events)
    return [message for message in added if message is not None]


@given(event_lists, st.integers(0, 40), st.integers(1, 10))
def test_resuming_client_misses_no_event(events: list[JobEvent], seq: int, size: int) -> None:
    record = Record(None, size)
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
        # The events before the oldest kept one are unknown.
        assert seq > record.seq or seq < record.events[0].seq - 1
        assert snapshot == record.snapshot(None)
    assert [m.seq for m in snapshot.events] == sorted({m.seq for m in snapshot.events})


@given(event_lists, st.integers(0, 40))
def test_cursor_of_another_epoch_does_not_resume(events: list[JobEvent], seq: int) -> None:
    record = Record(None, 10)
    stored(record, events)
    snapshot = record.snapshot(Cursor(epoch="another", seq=seq))
    assert not snapshot.recovered
    assert snapshot == record.snapshot(None)


@given(st.integers(0, 20), st.integers(0, 20), st.integers(1, 21))
def test_resume_needs_a_cursor_between_the_oldest_and_latest_seq(
    at: int, seq: int, first: int
) -> None:
    cursor = Cursor(epoch="e", seq=at)
    decided = can_resume(cursor, epoch="e", seq=seq, first=first)
    # The events from ``first`` to ``seq`` are kept, and have to include all after the cursor.
    assert decided == (at <= seq and set(range(at + 1, first)) == set())
    assert not can_resume(None, epoch="e", seq=seq, first=first)


@given(event_lists, st.lists(st.integers(1, 6), max_size=12))
def test_repeated_events_change_nothing(events: list[JobEvent], repeats: list[int]) -> None:
    single, repeated = Record(None, 100), Record(None, 100)
    numbered = [Outgoing.of(event, number=n) for n, event in enumerate(events, 1)]
    for outgoing in numbered:
        single.add(outgoing, RETENTION, "p")
    for end, outgoing in enumerate(numbered, 1):
        repeated.add(outgoing, RETENTION, "p")
        if repeats:
            # A publisher that received no answer repeats its last events in order.
            for again in numbered[max(0, end - repeats.pop()) : end]:
                assert repeated.add(again, RETENTION, "p") is None
    assert [m.packet for m in repeated.events] == [m.packet for m in single.events]
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
    assert sum(len(record.events) for name in left if (record := records.get(name))) <= 10


def test_records_expire() -> None:
    records = Records(Retention(ttl=0, size=100))
    records.add(Outgoing.of(JobComplete(job_id="a", result=None)))
    assert records.get("a") is None
    assert len(records) == 0
    assert records.snapshot("a", None).state == "pending"
