"""Summaries of records, as feeds show them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

import msgspec
from msgspec import UNSET, Struct, UnsetType

from jobcast.events import TERMINAL_STATES, Cursor, JobInfo, Time
from jobcast.feeds import JobSummary

MESSAGE_LIMIT: Final = 256  # characters of a message in a summary

_TIMESTAMP: Final = re.compile(r'"timestamp":"([^"]+)"')
_PREFIX: Final = len("42")


class _Event(Struct):
    """The fields of an event that a summary depends on."""

    timestamp: Time
    status: str = ""
    attempt: int | UnsetType = UNSET
    run: int | UnsetType = UNSET
    percentage: float | UnsetType | None = UNSET
    message: str | UnsetType = UNSET
    reason: str | UnsetType = UNSET


_decoder = msgspec.json.Decoder(tuple[str, _Event])


def timestamp_of(head: str) -> str:
    """Return the timestamp in an encoded event; an empty text if there is none.

    >>> timestamp_of('42["job_log",{"job_id":"7","timestamp":"2026-01-01T00:00:00Z"')
    '2026-01-01T00:00:00Z'
    """
    found = _TIMESTAMP.search(head)
    return found[1] if found else ""


def summarize(
    job_id: str, position: Cursor, state: str, info: JobInfo, began: str, packets: Iterable[str]
) -> JobSummary:
    """Return the summary of a job.

    Args:
        job_id: the job's id.
        position: the epoch of the record, and its latest seq.
        state: the state of the job.
        info: the description of the job.
        began: the timestamp of the record's first event.
        packets: statuses, terminal events and the latest progress, ordered by seq. Those before the
            latest run began are not needed.

    Raises:
        ValueError: a packet is not one of an event.
    """
    fold = _Fold()
    for packet in packets:
        fold.add(*_decoder.decode(packet[_PREFIX:]))
    if state not in TERMINAL_STATES:
        fold.fields.pop("ended_at", None)
    described = {name: value for name, value in info.fields.items() if name != "created_at"}
    return JobSummary(
        job_id=job_id,
        epoch=position.epoch,
        seq=position.seq,
        status=state,
        created_at=info.created_at or msgspec.convert(began, Time, strict=False),
        **{**described, **fold.fields},
    )


class _Fold:
    """The fields of a summary that come from the events of a job."""

    def __init__(self) -> None:
        self.fields: dict[str, Any] = {}
        self._run: int | UnsetType | None = None  # the number of the latest run

    def add(self, name: str, event: _Event) -> None:
        match name:
            case "job_status":
                self._add_status(event)
            case "job_progress":
                self._set(percentage=event.percentage, message=event.message)
            case "job_complete":
                self._set(ended_at=event.timestamp)
            case "job_error":
                self._set(ended_at=event.timestamp, message=event.message, reason=event.reason)

    def _add_status(self, event: _Event) -> None:
        if event.status == "queued":
            self.fields, self._run = {}, None
        elif event.status == "started" and (event.run is UNSET or event.run != self._run):
            self.fields, self._run = {"started_at": event.timestamp}, event.run
        if event.message is not UNSET:
            self._set(message=event.message)
        if event.attempt is not UNSET:
            self._set(attempt=event.attempt)

    def _set(self, **fields: Any) -> None:
        self.fields |= fields
        message = self.fields.get("message")
        if message and len(message) > MESSAGE_LIMIT:
            self.fields["message"] = message[: MESSAGE_LIMIT - 1] + "…"
