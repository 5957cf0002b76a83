"""Summaries of jobs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from jobcast.events import (
    Cursor,
    JobComplete,
    JobError,
    JobEvent,
    JobInfo,
    JobProgress,
    JobStatus,
    packet_head,
    packet_tail,
)
from jobcast.feeds import JobSummary
from jobcast.transports.summaries import MESSAGE_LIMIT, summarize, timestamp_of

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
POSITION = Cursor(epoch="e", seq=9)


def at(seconds: int) -> datetime:
    return BEGAN + timedelta(seconds=seconds)


def summary_of(*events: JobEvent, state: str = "started", info: JobInfo | None = None) -> Any:
    packets = [packet_head(event) + packet_tail(n) for n, event in enumerate(events, 1)]
    began = timestamp_of(packets[0])
    return summarize("7", POSITION, state, info or JobInfo(), began, packets)


def status(status: str, seconds: int, **fields: Any) -> JobStatus:
    return JobStatus(job_id="7", timestamp=at(seconds), status=status, **fields)


def progress(percentage: float, seconds: int, **fields: Any) -> JobProgress:
    return JobProgress(job_id="7", timestamp=at(seconds), percentage=percentage, **fields)


def test_summary_has_the_description_the_latest_events_and_the_position() -> None:
    info = JobInfo(
        created_at=at(-5), task="a.b", title="T", tags=("x",), owner="alice", queue="q",
        worker="w", parent="6",
    )  # fmt: skip
    summary = summary_of(
        status("queued", 0), status("started", 1, attempt=1, run=1),
        progress(50, 2, message="half"), JobComplete(job_id="7", timestamp=at(3), result=[1]),
        state="complete", info=info,
    )  # fmt: skip
    assert summary == JobSummary(
        job_id="7", epoch="e", seq=9, status="complete", created_at=at(-5), task="a.b", title="T",
        tags=("x",), owner="alice", queue="q", worker="w", parent="6", started_at=at(1),
        ended_at=at(3), attempt=1, percentage=50, message="half",
    )  # fmt: skip


def test_summary_of_a_failure_has_its_reason_and_message() -> None:
    error = JobError(job_id="7", timestamp=at(9), error="E", message="no", reason="revoked")
    summary = summary_of(status("started", 1, run=1), progress(1, 2, message="m"), error)
    assert summary.message == "no"
    assert summary.reason == "revoked"


def test_first_event_dates_a_job_that_was_never_queued() -> None:
    assert summary_of(progress(1, 4)).created_at == at(4)


def test_retry_keeps_the_start_until_the_next_attempt_begins() -> None:
    events = [
        status("started", 1, attempt=1, run=1),
        progress(70, 2, message="old"),
        status("retrying", 3, attempt=2, message="later"),
    ]
    waiting = summary_of(*events, state="retrying")
    assert (waiting.started_at, waiting.attempt, waiting.message) == (at(1), 2, "later")
    again = summary_of(*events, status("started", 4, attempt=2, run=2))
    assert (again.started_at, again.attempt) == (at(4), 2)
    assert "message" not in _fields(again)
    assert "percentage" not in _fields(again)


def test_revived_run_keeps_its_start_and_its_progress() -> None:
    summary = summary_of(
        status("started", 1, attempt=1, run=1), progress(70, 2), status("stalled", 3),
        status("started", 4, attempt=1, run=1),
    )  # fmt: skip
    assert (summary.started_at, summary.percentage) == (at(1), 70)


def test_job_that_is_queued_again_has_not_started() -> None:
    summary = summary_of(status("started", 1, run=1), status("queued", 2), state="queued")
    assert _fields(summary) == {"job_id", "epoch", "seq", "status", "created_at"}


def test_progress_without_a_message_removes_the_former_message() -> None:
    summary = summary_of(progress(1, 1, message="a"), progress(2, 2))
    assert _fields(summary) == {"job_id", "epoch", "seq", "status", "created_at", "percentage"}


def test_summary_cuts_a_long_message() -> None:
    summary = summary_of(progress(1, 1, message="x" * 8000))
    assert (len(summary.message), summary.message[-2:]) == (MESSAGE_LIMIT, "x…")


def test_invalid_packet_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="JSON"):
        summarize("7", POSITION, "started", JobInfo(created_at=at(0)), "", ["42garbage"])
    with pytest.raises(ValueError, match="RFC3339"):
        summarize("7", POSITION, "started", JobInfo(), "", [])


def _fields(summary: JobSummary) -> set[str]:
    return {*msgspec.to_builtins(summary)}
