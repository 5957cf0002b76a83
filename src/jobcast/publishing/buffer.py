"""A bounded, ordered buffer of unpublished events, without superseded progress."""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from collections.abc import Container, Iterator, Mapping
from itertools import islice
from typing import Final

from msgspec import Raw, Struct, structs

from jobcast.events import (
    INFO,
    NO_INFO,
    PROGRESS,
    TERMINAL,
    JobComplete,
    JobError,
    JobEvent,
    JobInfo,
    JobLog,
    JobStatus,
    info_of,
)
from jobcast.publishing.sanitize import safe_text
from jobcast.transports import NO_ORIGIN, Origin, Outgoing
from jobcast.transports.base import Required
from jobcast.transports.leases import Lease

MAX_EVENTS: Final = 10_000
MAX_LOG_CHARACTERS: Final = 8 * 1024 * 1024  # of all buffered log lines together
MAX_KEPT: Final = 100_000  # statuses and final events
MAX_LOST: Final = 100_000  # runs whose final events were dropped
SHORT: Final = 200  # characters of a shortened error message
MAX_KEPT_CHARACTERS: Final = 64 * 1024 * 1024  # of all buffered results and errors together

logger = logging.getLogger(__name__)


class Entry(Struct, frozen=True, gc=False):
    ticket: int
    event: JobEvent
    origin: Origin
    requires: Required = ""
    info: JobInfo = NO_INFO  # the description of the job, on endings and retries
    characters: int = 0  # size of the payload fields that may be large


class TicketQueue:
    """Tickets of one kind of event, oldest first. Skips tickets without an entry."""

    def __init__(self) -> None:
        self.tickets: OrderedDict[int, None] = OrderedDict()
        self.characters = 0

    def add(self, entry: Entry) -> None:
        self.characters += entry.characters
        self.tickets[entry.ticket] = None

    def remove(self, entry: Entry) -> None:
        self.characters -= entry.characters
        self.tickets.pop(entry.ticket, None)

    def oldest(self, entries: Mapping[int, Entry]) -> int | None:
        while self.tickets:
            ticket = next(iter(self.tickets))
            if ticket in entries:
                return ticket
            del self.tickets[ticket]
        return None


class Buffer:
    """The unpublished events of all jobs, in the order in which the jobs published them.

    A newer progress event of a job replaces an older one, and a newer info event contains the
    older one. Above a bound, the buffer drops the oldest log lines and puts one line with their
    number in their place; then it drops progress. It keeps statuses, info events and final events.
    If results and errors use too much memory, the buffer replaces the oldest results by
    descriptions and truncates the oldest error messages. If there are still too many events to
    keep, it drops and counts the oldest ones.

    Not thread-safe. A signal handler, such as that of a soft time limit, may raise anywhere in
    this class. ``_entries`` is therefore the only source of truth; every other index follows it.

    Args:
        max_events: number of events of all kinds above which logs and progress are dropped.
        max_log_characters: size of all log lines above which log lines are dropped.
        max_kept: number of statuses, info events and final events above which these are dropped.
        max_kept_characters: size of all results and errors above which these are shortened.
    """

    def __init__(
        self,
        max_events: int = MAX_EVENTS,
        max_log_characters: int = MAX_LOG_CHARACTERS,
        max_kept: int = MAX_KEPT,
        max_kept_characters: int = MAX_KEPT_CHARACTERS,
    ) -> None:
        self.max_events = max_events
        self._max_log_characters = max_log_characters
        self._max_kept = max_kept
        self._max_kept_characters = max_kept_characters
        self._entries: OrderedDict[int, Entry] = OrderedDict()
        self._logs = TicketQueue()
        self._kept = TicketQueue()  # statuses, info events and final events
        self._large = TicketQueue()  # the subset of _kept with a large payload
        self._progress: dict[str, int] = {}  # job id: ticket of its unsent progress, oldest first
        self._infos: dict[str, int] = {}  # job id: ticket of its unsent info event
        self._dropped: dict[str, tuple[int, int]] = {}  # job id: dropped lines, their last ticket
        self.last_ticket = 0
        self.lost = 0  # number of dropped statuses and final events
        self._lost_endings: deque[Lease] = deque(maxlen=MAX_LOST)

    def __len__(self) -> int:
        return len(self._entries)

    def first_ticket(self, skip: Container[str] = ()) -> int:
        """Return the lowest ticket in the buffer, ignoring the jobs ``skip``.

        Every event with a lower ticket has left the buffer.
        """
        return next(self._tickets(skip), self.last_ticket + 1)

    def add(
        self,
        event: JobEvent,
        origin: Origin = NO_ORIGIN,
        requires: Required = "",
        *,
        info: JobInfo = NO_INFO,
        ticket: int = 0,
    ) -> None:
        """Add an event.

        Args:
            event: the event.
            origin: the owner and the run that it belongs to.
            requires: the state that its job must be in for the event to be stored.
            info: the description of the job, for an ending and for a retry.
            ticket: the event's ticket; by default the next one. An interrupted call can be
                repeated with the same ticket.
        """
        ticket = ticket or self.last_ticket + 1
        older_info = self._unsent_info(event.job_id, origin) if event.kind == INFO else None
        if older_info is not None:
            known = info_of(older_info.event).updated(info_of(event))
            event = structs.replace(event, **known.fields)
        entry = Entry(ticket, event, origin, requires, info, _characters(event))
        queue = self._queue_of(event)
        self.last_ticket = ticket
        self._entries[ticket] = entry
        if queue is None:
            older = self._progress.pop(event.job_id, 0)
            self._progress[event.job_id] = ticket
            self._entries.pop(older, None)
        else:
            queue.add(entry)
            if queue is self._kept and entry.characters:
                self._large.add(entry)
        if event.kind == INFO:
            self._infos[event.job_id] = ticket
        if older_info is not None and older_info.ticket != ticket:
            self._remove(older_info.ticket)
        self._keep_bounds()

    def _unsent_info(self, job_id: str, origin: Origin) -> Entry | None:
        """Return the latest unsent info event of a job, if it is of the same run."""
        entry = self._entries.get(self._infos.get(job_id, 0))
        return entry if entry is not None and entry.origin == origin else None

    def take(self, count: int, skip: Container[str] = ()) -> list[Entry]:
        """Remove and return up to ``count`` events, and log lines that replace dropped ones.

        Events of the jobs ``skip`` stay in the buffer.
        """
        taken: list[Entry] = []
        for ticket in [*islice(self._tickets(skip), count)]:
            entry = self._remove(ticket)
            job_id = entry.event.job_id
            dropped, last = self._dropped.get(job_id, (0, 0))
            if 0 < last < entry.ticket:
                del self._dropped[job_id]
                taken.append(Entry(last, _gap(entry.event, dropped), entry.origin))
            taken.append(entry)
        if not self._entries:
            self._logs, self._kept, self._large = TicketQueue(), TicketQueue(), TicketQueue()
        return taken

    def _tickets(self, skip: Container[str]) -> Iterator[int]:
        entries = self._entries.items()
        return (ticket for ticket, entry in entries if entry.event.job_id not in skip)

    def _queue_of(self, event: JobEvent) -> TicketQueue | None:
        if event.kind == PROGRESS:
            return None
        return self._logs if isinstance(event, JobLog) else self._kept

    def _remove(self, ticket: int) -> Entry:
        entry = self._entries.pop(ticket)
        queue = self._queue_of(entry.event)
        if queue is not None:
            queue.remove(entry)
            self._large.remove(entry)
        elif self._progress.get(entry.event.job_id) == ticket:
            del self._progress[entry.event.job_id]
        if self._infos.get(entry.event.job_id) == ticket:
            del self._infos[entry.event.job_id]
        return entry

    def _keep_bounds(self) -> None:
        logs, kept = self._logs, self._kept
        while logs.characters > self._max_log_characters and self._drop_oldest_log():
            pass
        while len(self._entries) > self.max_events and (
            self._drop_oldest_log() or self._drop_oldest_progress()
        ):
            pass
        while kept.characters > self._max_kept_characters and self._shorten_oldest():
            pass
        while len(kept.tickets) > self._max_kept:
            ticket = kept.oldest(self._entries)
            if ticket is None:
                break
            entry = self._remove(ticket)
            self._dropped.pop(entry.event.job_id, None)
            self.lost += 1
            if entry.event.kind == TERMINAL:
                self._lost_endings.append(Lease(entry.event.job_id, entry.origin.run))

    def take_lost_endings(self) -> list[Lease]:
        """Return the leases of the runs whose final event was dropped since the last call."""
        leases = [*self._lost_endings]
        self._lost_endings.clear()
        return leases

    def ended_jobs(self) -> list[str]:
        """Return the ids of the jobs whose final event is in the buffer."""
        events = (entry.event for entry in self._entries.values())
        return [event.job_id for event in events if event.kind == TERMINAL]

    def _shorten_oldest(self) -> bool:
        """Shorten the payload of the oldest large event. Return whether there was one."""
        ticket = self._large.oldest(self._entries)
        if ticket is None:
            return False
        entry = self._entries[ticket]
        self._entries[ticket] = structs.replace(entry, event=_short(entry.event), characters=0)
        self._kept.characters -= entry.characters
        self._large.remove(entry)
        return True

    def _drop_oldest_log(self) -> bool:
        ticket = self._logs.oldest(self._entries)
        if ticket is None:
            return False
        job_id = self._remove(ticket).event.job_id
        count, _ = self._dropped.get(job_id, (0, 0))
        self._dropped[job_id] = count + 1, ticket
        return True

    def _drop_oldest_progress(self) -> bool:
        if not self._progress:
            return False
        job_id = next(iter(self._progress))
        self._entries.pop(self._progress.pop(job_id), None)
        return True


def encode(entries: list[Entry]) -> list[Outgoing]:
    """Return the events as the transport takes them.

    Log an event that cannot be encoded. Replace a status or a final event by a reduced one,
    because clients wait for it; leave out a progress event or a log line.
    """
    encoded: list[Outgoing] = []
    for entry in entries:
        outgoing = _outgoing(entry, entry.event)
        if outgoing is None and (plain := _plain(entry.event)) is not None:
            outgoing = _outgoing(entry, plain)
        if outgoing is not None:
            encoded.append(outgoing)
    return encoded


def _outgoing(entry: Entry, event: JobEvent) -> Outgoing | None:
    try:
        return Outgoing.of(event, entry.origin, entry.ticket, entry.requires, entry.info)
    except Exception:
        # An encoder may raise any exception for a foreign value; the publisher's thread survives.
        logger.exception(
            "job %s: could not encode a %s event; statuses and final events are sent without"
            " the values that failed, others are dropped", event.job_id, event.name,
        )  # fmt: skip
        return None


def _plain(event: JobEvent) -> JobEvent | None:
    """Return a reduced status or final event that can be encoded; None for other events."""
    match event:
        case JobStatus():
            return JobStatus(
                job_id=event.job_id,
                timestamp=event.timestamp,
                status=event.status,
                attempt=event.attempt,
            )
        case JobComplete(result=result):
            described = {"omitted": "unserializable", "type": type(result).__name__}
            return structs.replace(event, result=described)
        case JobError(error=error, message=message):
            return structs.replace(event, error=safe_text(error), message=safe_text(message))
    return None


def _short(event: JobEvent) -> JobEvent:
    """Return a final event with its result described or its message truncated."""
    match event:
        case JobComplete(result=result):
            described = {"omitted": "outage", "bytes": _characters(event)}
            return structs.replace(event, result=described) if isinstance(result, Raw) else event
        case JobError(message=message):
            return structs.replace(event, message=message[:SHORT])
    return event


def _characters(event: JobEvent) -> int:
    """Return the size of the fields of an event that may be large."""
    if isinstance(event, JobLog | JobError):
        return len(event.message)
    if isinstance(event, JobComplete) and isinstance(event.result, Raw):
        return len(event.result)
    return 0


def _gap(before: JobEvent, dropped: int) -> JobLog:
    lines = "1 log line was" if dropped == 1 else f"{dropped} log lines were"
    return JobLog(
        job_id=before.job_id,
        timestamp=before.timestamp,
        level="warning",
        message=f"{lines} dropped here: they could not be sent in time",
    )
