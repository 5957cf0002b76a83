"""What all transports with feeds share: summaries of records, their order, and their throttle."""

from __future__ import annotations

import logging
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from heapq import heappop, heappush
from typing import Any, Final

import msgspec
from msgspec import UNSET, Struct, UnsetType

from jobcast.events import LOG, PROGRESS, TERMINAL_STATES, Cursor, JobInfo, Time
from jobcast.feeds import JobSummary
from jobcast.transports.base import Outgoing

PROGRESS_INTERVAL: Final = 1.0  # seconds between two summaries of a job that only reports progress
MAX_DIRTY: Final = 10_000  # jobs whose summaries wait to be written
MESSAGE_LIMIT: Final = 256  # characters of a message in a summary

_TIMESTAMP: Final = re.compile(r'"timestamp":"([^"]+)"')
_PREFIX: Final = len("42")

logger = logging.getLogger(__name__)


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


def newest_first(jobs: Iterable[JobSummary]) -> list[JobSummary]:
    """Return the jobs in the order of feeds: the latest ``created_at`` first, then by id."""
    by_id = sorted(jobs, key=lambda job: job.job_id)
    return sorted(by_id, key=lambda job: job.created_at, reverse=True)


class DirtyJobs:
    """The jobs whose summaries have to be written: at once, or for progress once a second.

    Not thread-safe.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, max_dirty: int = MAX_DIRTY
    ) -> None:
        self._clock = clock
        self._max_dirty = max_dirty
        self._due: dict[str, float] = {}  # by job, when its summary has to be written
        self._queue: list[tuple[float, str]] = []  # a heap; entries that differ from _due are void
        self._written: OrderedDict[str, float] = OrderedDict()  # by job, in the last interval
        self._has_warned = False

    def __len__(self) -> int:
        return len(self._due)

    def mark(self, outgoing: Outgoing) -> None:
        """Note that an event may have changed its job's summary."""
        if outgoing.kind == PROGRESS:
            written = self._written.get(outgoing.job_id, float("-inf"))
            self._set_due(outgoing.job_id, max(self._clock(), written + PROGRESS_INTERVAL))
        elif outgoing.kind != LOG:
            self.retry(outgoing.job_id)

    def retry(self, job_id: str) -> None:
        """Note that the summary of a job has to be written at once."""
        self._set_due(job_id, self._clock())

    def take(self) -> list[str]:
        """Return the jobs whose summaries are due, and regard them as written."""
        now = self._clock()
        while self._written and next(iter(self._written.values())) <= now - PROGRESS_INTERVAL:
            self._written.popitem(last=False)
        jobs = []
        while self._queue and self._queue[0][0] <= now:
            due, job_id = heappop(self._queue)
            if self._due.get(job_id) == due:
                del self._due[job_id]
                self._written[job_id] = now
                self._written.move_to_end(job_id)
                jobs.append(job_id)
        return jobs

    @property
    def due_in(self) -> float | None:
        """Seconds until the next summary is due; None if no job is dirty."""
        if not self._due:
            return None
        return max(0.0, self._queue[0][0] - self._clock())

    def _set_due(self, job_id: str, due: float) -> None:
        if due < self._due.get(job_id, float("inf")):
            self._due[job_id] = due
            heappush(self._queue, (due, job_id))
            if len(self._due) > self._max_dirty:
                self._drop_oldest()

    def _drop_oldest(self) -> None:
        del self._due[next(iter(self._due))]
        if not self._has_warned:
            self._has_warned = True
            logger.warning(
                "the feeds of more than %d jobs could not be written; the oldest changes are"
                " dropped, and feeds show them after the jobs' next events", self._max_dirty,
            )  # fmt: skip
