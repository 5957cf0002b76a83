from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from jobcast.events import (
    JobComplete,
    JobError,
    JobEvent,
    JobInfo,
    JobInfoUpdate,
    JobLog,
    JobProgress,
    JobStatus,
    info_of,
)
from jobcast.publishing import buffer as buffer_module
from jobcast.publishing.buffer import SHORT, Buffer, encode
from jobcast.publishing.sanitize import safe_result
from jobcast.transports import Origin, Run


def log(message: str, job_id: str = "a") -> JobLog:
    return JobLog(job_id=job_id, level="info", message=message)


def progress(percentage: float, job_id: str = "a") -> JobProgress:
    return JobProgress(job_id=job_id, percentage=percentage)


def take_values(buffer: Buffer, count: int = 1_000_000) -> list[object]:
    return [
        event.message if isinstance(event, JobLog) else getattr(event, "percentage", event.name)
        for event in (entry.event for entry in buffer.take(count))
    ]


def filled(*events: JobEvent, **bounds: int) -> Buffer:
    buffer = Buffer(**bounds)
    for event in events:
        buffer.add(event)
    return buffer


def is_note(event: JobEvent) -> bool:
    return isinstance(event, JobLog) and "dropped here" in event.message


def test_newer_progress_replaces_an_unsent_one_at_its_own_position() -> None:
    buffer = filled(progress(1), log("x"), progress(2), progress(3, "b"), log("y"))
    assert take_values(buffer) == ["x", 2, 3, "y"]
    assert len(buffer) == 0


def test_newer_info_event_contains_an_unsent_one_of_the_same_run() -> None:
    def info(**changes: Any) -> JobInfoUpdate:
        return JobInfoUpdate(job_id="a", **changes)

    buffer = filled(info(title="old", tags=("a",)), log("x"), info(tags=("b",)), info(title="new"))
    later = Origin(run=Run("s", 1, "d"))
    buffer.add(info(tags=("c",)), later)
    buffer.add(info(tags=("d",)), later)
    events = [entry.event for entry in buffer.take(9)]
    infos = [event for event in events if isinstance(event, JobInfoUpdate)]
    assert [event.name for event in events] == ["job_log", "job_info", "job_info"]
    assert [(event.title, event.tags) for event in infos] == [
        ("new", ("a", "b")), (UNSET, ("c", "d")),
    ]  # fmt: skip
    buffer.add(info(title="after"))
    [entry] = buffer.take(9)
    assert info_of(entry.event) == JobInfo(title="after")


def test_taken_progress_is_not_replaced() -> None:
    buffer = filled(progress(1))
    assert take_values(buffer) == [1]
    buffer.add(progress(2))
    assert take_values(buffer) == [2]


def test_oldest_logs_are_dropped_and_counted_in_one_line() -> None:
    status, end = JobStatus(job_id="a", status="started"), JobComplete(job_id="a", result=1)
    buffer = filled(status, *(log(str(n)) for n in range(10)), end, max_events=5)
    assert len(buffer) == 5
    assert take_values(buffer) == [
        "job_status",
        "7 log lines were dropped here: they could not be sent in time",
        "7",
        "8",
        "9",
        "job_complete",
    ]


def test_dropped_logs_are_counted_per_job() -> None:
    buffer = filled(log("1"), log("2", "b"), log("3"), log("4", "b"), log("5"), max_events=2)
    notes = [entry.event for entry in buffer.take(9) if is_note(entry.event)]
    lines = {note.job_id: getattr(note, "message", "") for note in notes}
    assert lines["a"].startswith("2 log lines were")
    assert lines["b"].startswith("1 log line was")


def test_statuses_and_final_events_outlast_logs_and_progress() -> None:
    events: list[JobEvent] = []
    for n in range(50):
        events += [progress(1, str(n)), log("x", str(n)), JobComplete(job_id=str(n), result=None)]
    buffer = filled(*events, max_events=5)
    assert len(buffer) == 50
    kept = [entry.event for entry in buffer.take(999)]
    assert [event.job_id for event in kept if event.kind == "t"] == [str(n) for n in range(50)]
    assert all(event.kind == "t" or is_note(event) for event in kept)


def test_excess_statuses_and_final_events_are_dropped_and_counted() -> None:
    buffer = filled(*(JobComplete(job_id=str(n), result=None) for n in range(50)), max_kept=20)
    assert buffer.lost == 30
    assert [lease.job_id for lease in buffer.take_lost_endings()] == [str(n) for n in range(30)]
    assert buffer.take_lost_endings() == []
    assert [entry.event.job_id for entry in buffer.take(99)] == [str(n) for n in range(30, 50)]
    assert (buffer.first_ticket(), buffer.last_ticket) == (51, 50)


def test_large_results_are_shortened_before_final_events_are_dropped() -> None:
    big = safe_result("x" * 100, limit=1000)
    error = JobError(job_id="b", error="E", message="y" * 300, reason="failure")
    ends = [JobComplete(job_id="a", result=big), error] * 50
    buffer = filled(*ends, max_kept_characters=1000)
    assert (len(buffer), buffer.lost) == (100, 0)
    entries = buffer.take(100)
    assert sum(entry.characters for entry in entries) <= 1000
    assert entries[0].event == JobComplete(
        job_id="a", timestamp=entries[0].event.timestamp, result={"omitted": "outage", "bytes": 102}
    )
    first, *_, last = (entry.event for entry in entries if isinstance(entry.event, JobError))
    assert (len(first.message), len(last.message)) == (SHORT, 300)
    assert len(encode(entries)) == 100
    buffer.add(error)
    assert len(buffer) == 1


def test_size_of_log_lines_is_bounded() -> None:
    buffer = filled(*(log("x" * 100) for _ in range(100)), max_log_characters=1000)
    assert len(buffer) == 10


def test_first_ticket_marks_events_that_have_left() -> None:
    buffer = filled(log("a"), progress(1), progress(2))
    assert (buffer.first_ticket(), buffer.last_ticket) == (1, 3)
    buffer.take(1)
    assert buffer.first_ticket() == 3
    buffer.take(1)
    assert buffer.first_ticket() == 4


class Interrupted(Exception):
    """The exception that the simulated signal handler raises."""


@contextmanager
def interrupted_at(line: int) -> Iterator[None]:
    """Raise ``Interrupted`` before the given executed line of the buffer module, from 1."""
    lines = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal lines
        if frame.f_code.co_filename != buffer_module.__file__:
            return None
        lines += event == "line"
        if event == "line" and lines == line:
            raise Interrupted
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


@pytest.mark.parametrize(
    "event",
    [log("x"), progress(3), JobStatus(job_id="a", status="started")],
    ids=["log", "progress", "status"],
)
def test_buffer_survives_an_interruption_at_any_line(event: JobEvent) -> None:
    bounds = {"max_events": 4, "max_kept": 2, "max_log_characters": 6}
    before = [
        JobStatus(job_id="a", status="queued"), log("1"), log("2"), progress(1),
        JobStatus(job_id="b", status="started"),
    ]  # fmt: skip
    after = [log("3"), progress(4), log("4"), log("5"), JobComplete(job_id="a", result=None)]
    line = 0
    while True:
        line += 1
        buffer = filled(*before, **bounds)
        try:
            with interrupted_at(line):
                buffer.add(event)
            break
        except Interrupted:
            pass
        for later in after:
            buffer.add(later)
        assert len(buffer) <= bounds["max_events"] + 1
        kept = [entry.event for entry in buffer.take(99) if not is_note(entry.event)]
        order = {id(added): number for number, added in enumerate([*before, event, *after])}
        places = [order[id(added)] for added in kept]
        assert places == sorted(places)
        assert kept[-1] is after[-1]
        assert (len(buffer), buffer.first_ticket()) == (0, buffer.last_ticket + 1)
        for later in after:
            buffer.add(later)
        assert [entry.event for entry in buffer.take(99) if not is_note(entry.event)][-1] is (
            after[-1]
        )
    assert line > 10


def test_held_jobs_are_skipped() -> None:
    ends = [JobComplete(job_id=name, result=name) for name in "ab"]
    buffer = filled(log("1"), log("2", "b"), progress(3), progress(4, "b"), *ends)
    assert buffer.first_ticket(skip={"a"}) == 2
    assert [entry.ticket for entry in buffer.take(2, skip={"a"})] == [2, 4]
    assert [entry.ticket for entry in buffer.take(9, skip={"a", "c"})] == [6]
    assert (buffer.first_ticket(), buffer.first_ticket(skip={"a"})) == (1, 7)
    assert [entry.ticket for entry in buffer.take(9)] == [1, 3, 5]


def test_events_taken_past_a_held_job_free_their_space() -> None:
    """Events that have been sent must not count towards the bound on final events."""
    started = JobStatus(job_id="a", status="started")
    buffer = filled(started, log("waits"), max_kept=3, max_log_characters=20)
    for n in range(10):
        buffer.add(log("passes", "b"))
        buffer.add(JobComplete(job_id="b", result=n))
        assert len(buffer.take(9, skip={"a"})) == 2
    assert next(entry.event for entry in buffer.take(9)) is started
    assert buffer.lost == 0


def test_events_that_cannot_be_encoded_are_left_out() -> None:
    bad = JobLog(job_id="a", level="info", message="\ud800")
    buffer = filled(log("before"), bad, log("after"))
    assert len(encode(buffer.take(9))) == 2


events = st.lists(
    st.one_of(
        st.builds(log, st.text(max_size=5), st.sampled_from("ab")),
        st.builds(progress, st.integers(0, 100), st.sampled_from("ab")),
        st.sampled_from([JobStatus(job_id="a", status="started")]),
        st.sampled_from([JobComplete(job_id="b", result=None)]),
    )
)


@given(events, st.integers(1, 20), st.integers(1, 7))
def test_events_stay_in_order_and_losses_are_counted(
    added: list[JobEvent], max_events: int, batch: int
) -> None:
    buffer = filled(*added, max_events=max_events)
    taken: list[JobEvent] = []
    while len(buffer):
        taken += [entry.event for entry in buffer.take(batch)]
    kept = [event for event in taken if not is_note(event)]
    order = {id(event): position for position, event in enumerate(added)}
    positions = [order[id(event)] for event in kept if event.kind in "pl"]
    assert positions == sorted(positions)
    for job_id in "ab":
        logs = [e for e in added if e.job_id == job_id and e.kind == "l"]
        survivors = [e for e in kept if e.job_id == job_id and e.kind == "l"]
        assert survivors == logs[len(logs) - len(survivors) :]
        latest = [e for e in added if e.job_id == job_id and e.kind == "p"][-1:]
        shown = [e for e in kept if e.job_id == job_id and e.kind == "p"]
        # Progress is dropped only if dropping all logs is not enough.
        assert shown == latest or (not shown and len(added) > max_events)
    for kind in "st":
        assert [e for e in kept if e.kind == kind] == [e for e in added if e.kind == kind]


class Mark(str):
    """A str that cannot be encoded."""


def test_statuses_and_final_events_that_cannot_be_encoded_are_reduced() -> None:
    started = JobStatus(job_id="a", status="started", task=Mark("t"), attempt=2)
    end = JobComplete(job_id="a", result=object())
    error = JobError(job_id="b", error=Mark("E"), message=Mark("\ud800"), reason="revoked")
    encoded = encode(filled(started, end, error, progress(Mark("x"))).take(9))  # type: ignore[arg-type]
    payloads = [msgspec.json.decode(f"{outgoing.head[2:]}0}}]")[1] for outgoing in encoded]
    fields = [{k: v for k, v in p.items() if k not in ("timestamp", "seq")} for p in payloads]
    assert fields == [
        {"job_id": "a", "status": "started", "attempt": 2},
        {"job_id": "a", "result": {"omitted": "unserializable", "type": "object"}},
        {"job_id": "b", "error": "E", "message": "?", "reason": "revoked"},
    ]
    assert [outgoing.number for outgoing in encoded] == [1, 2, 3]


def test_encoding_error_does_not_affect_other_events() -> None:
    class Raises:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError("no such thing")

    circle: list[Any] = []
    circle.append(circle)
    ends = [JobComplete(job_id="a", result=result) for result in (Raises(), circle, 1)]
    assert len(encode(filled(*ends).take(9))) == 3
