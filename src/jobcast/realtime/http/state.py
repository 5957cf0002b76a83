"""The state of a job as one JSON document."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from jobcast.events import LOG, JobComplete, JobError, JobProgress, JobStatus
from jobcast.transports.base import NO_RECORD, Message, Snapshot

# The fields of the latest run that each status sets.
_STATUS_FIELDS: Final = ("task", "attempt", "run")
# The fields that another run of an ended job removes.
_RUN_FIELDS: Final = (
    "ended_at", "result", "error", "progress", "started_at", "queued_at", "cancellation",
)  # fmt: skip
_CANCELLATION_FIELDS: Final = ("by", "message")
_RETRY_FIELDS: Final = ("retry_at", "error", "message")
_EVENT_FIELDS: Final = ("job_id", "timestamp", "seq")  # fields that every event has


def state_of(job_id: str, snapshot: Snapshot, lines: int = 0) -> dict[str, Any]:
    """Return the state of a job.

    Args:
        job_id: the job.
        snapshot: the job's whole record.
        lines: the number of latest log lines to include.
    """
    state: dict[str, Any] = {
        "job_id": job_id,
        "status": snapshot.state,
        **msgspec.to_builtins(snapshot.info),
    }
    logs = [message for message in snapshot.events if message.kind == LOG]
    for message in snapshot.events:
        if message.kind != LOG:
            _apply(state, *_decode(message))
    if snapshot.events:
        state["updated_at"] = _decode(snapshot.events[-1])[1]["timestamp"]
    if snapshot.epoch != NO_RECORD:
        state["cursor"] = f"{snapshot.epoch}:{snapshot.seq}"
    state["log_lines"] = len(logs)
    if lines:
        state["logs"] = [_line(_decode(message)[1]) for message in logs[-lines:]]
    return state


def etag_of(snapshot: Snapshot, lines: int) -> str:
    """Return the entity tag of a job's state."""
    return f'"{snapshot.epoch}:{snapshot.seq}:{len(snapshot.events)}:{lines}"'


def is_known(etag: str, known: Iterable[str]) -> bool:
    """Return whether one of the values of ``If-None-Match`` names an entity tag.

    The comparison is weak (RFC 9110, section 13.1.2): a proxy that compresses an answer marks its
    tag as weak.

    >>> is_known('"a:1"', ['"b:1", W/"a:1"'])
    True
    """
    tags = {tag.strip().removeprefix("W/") for value in known for tag in value.split(",")}
    return etag in tags or "*" in tags


def _decode(message: Message) -> tuple[str, dict[str, Any]]:
    # The first two characters of a packet are the types of Engine.IO and Socket.IO.
    name, payload = msgspec.json.decode(message.packet[2:], type=tuple[str, dict[str, Any]])
    return name, payload


def _apply(state: dict[str, Any], name: str, event: Mapping[str, Any]) -> None:
    """Update a state by an event."""
    if name == JobStatus.name:
        _apply_status(state, event)
    elif name == JobProgress.name:
        state["progress"] = _without(event, _EVENT_FIELDS)
    elif name == JobComplete.name:
        _end(state, event)
        state["result"] = event["result"]
    elif name == JobError.name:
        _end(state, event)
        state["error"] = _without(event, _EVENT_FIELDS)


def _end(state: dict[str, Any], event: Mapping[str, Any]) -> None:
    state["ended_at"] = event["timestamp"]
    state.pop("retry", None)


def _apply_status(state: dict[str, Any], event: Mapping[str, Any]) -> None:
    status = event["status"]
    if "ended_at" in state and status in ("queued", "started"):
        # Another run of the job begins.
        for field in _RUN_FIELDS:
            state.pop(field, None)
    state.update({field: event[field] for field in _STATUS_FIELDS if field in event})
    if status in ("queued", "started"):
        state[f"{status}_at"] = event["timestamp"]
    state.pop("retry", None)
    if status == "cancelling":
        asked = {name: event[name] for name in _CANCELLATION_FIELDS if name in event}
        state["cancellation"] = {**asked, "requested_at": event["timestamp"]}
    if status == "retrying":
        state["retry"] = {name: event[name] for name in _RETRY_FIELDS if name in event}


def _line(event: Mapping[str, Any]) -> dict[str, Any]:
    return _without(event, ("job_id",))


def _without(event: Mapping[str, Any], fields: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in event.items() if name not in fields}
