"""The state of a job as a function of its record."""

from __future__ import annotations

from typing import Any

from jobcast.events import (
    JobComplete,
    JobError,
    JobEvent,
    JobLog,
    JobProgress,
    JobStatus,
    now,
    packet_head,
    packet_tail,
)
from jobcast.realtime.http.state import etag_of, state_of
from jobcast.transports.base import Message, Snapshot

JOB = "42"


def snapshot_of(*events: JobEvent, state: Any = "started") -> Snapshot:
    messages = tuple(
        Message("e", seq, event.kind, packet_head(event) + packet_tail(seq))
        for seq, event in enumerate(events, 1)
    )
    return Snapshot(epoch="e", seq=len(messages), state=state, events=messages)


def status(name: str, **fields: Any) -> JobStatus:
    return JobStatus(job_id=JOB, status=name, **fields)


def test_job_without_a_record_is_pending() -> None:
    assert state_of(JOB, Snapshot()) == {"job_id": JOB, "status": "pending", "log_lines": 0}


def test_another_run_replaces_the_outcome_of_the_one_before() -> None:
    first = (
        status("queued", task="t"),
        status("started", attempt=1),
        JobProgress(job_id=JOB, percentage=90),
        JobError(job_id=JOB, error="KeyError", message="x", reason="failure"),
    )
    failed = state_of(JOB, snapshot_of(*first, state="error"))
    assert failed["error"] == {"error": "KeyError", "message": "x", "reason": "failure"}
    assert failed["progress"] == {"percentage": 90}
    again = state_of(JOB, snapshot_of(*first, status("queued", task="t")))
    assert not {"error", "ended_at", "progress", "started_at"} & again.keys()
    assert again["queued_at"]


def test_retry_is_part_of_the_state_until_the_next_attempt() -> None:
    retrying = (
        status("started", attempt=1),
        status("retrying", attempt=2, retry_at=now(), error="OSError", message="later"),
    )
    state = state_of(JOB, snapshot_of(*retrying, state="retrying"))
    assert state["retry"].keys() == {"retry_at", "error", "message"}
    assert state["attempt"] == 2
    assert "retry" not in state_of(JOB, snapshot_of(*retrying, status("started", attempt=2)))
    ended = snapshot_of(*retrying, JobComplete(job_id=JOB, result=1), state="complete")
    assert "retry" not in state_of(JOB, ended)


def test_unknown_status_is_passed_on() -> None:
    state = state_of(JOB, snapshot_of(status("paused"), state="paused"))
    assert state["status"] == "paused"
    assert "ended_at" not in state


def test_logs_are_the_latest_lines() -> None:
    lines = [JobLog(job_id=JOB, level="info", message=str(number)) for number in range(5)]
    snapshot = snapshot_of(status("started"), *lines)
    state = state_of(JOB, snapshot, 2)
    assert [line["message"] for line in state["logs"]] == ["3", "4"]
    assert state["log_lines"] == 5
    assert "logs" not in state_of(JOB, snapshot)


def test_entity_tag_depends_on_the_position_and_on_the_lines() -> None:
    before, after = snapshot_of(status("queued")), snapshot_of(status("queued"), status("started"))
    tags = {etag_of(before, 0), etag_of(before, 5), etag_of(after, 0), etag_of(Snapshot(), 0)}
    assert len(tags) == 4
