"""What waits to be published: bounded, in order, with nothing stale in it."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Container, Iterator, Mapping
from itertools import islice
from typing import Final

from msgspec import UNSET, Raw, Struct, structs

from jobcast.events import PROGRESS, TERMINAL, JobComplete, JobError, JobEvent, JobLog, JobStatus
from jobcast.publishing.sanitize import safe_text
from jobcast.transports import NO_ORIGIN, Origin, Outgoing
from jobcast.transports.base import Required

MAX_EVENTS: Final = 10_000
MAX_LOG_CHARACTERS: Final = 8 * 1024 * 1024  # of all buffered log lines together
MAX_KEPT: Final = 100_000  # statuses and endings
SHORT: Final = 200  # characters that are left of an error's message when there are too many
MAX_KEPT_CHARACTERS: Final = 64 * 1024 * 1024  # of all buffered results and errors together

logger = logging.getLogger(__name__)


class Entry(Struct, frozen=True, gc=False):
    ticket: int
    event: JobEvent
    origin: Origin
    requires: Required = ""
    characters: int = 0  # of what it carries that may be large


class TicketQueue:
    """Tickets of one kind, oldest first. One whose entry has gone is passed over."""

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
    """Events of all jobs in the order they were said.

    A newer progress of a job removes an older one. When a bound is reached the oldest log lines
    go, and one line in their place says how many, then progress. Statuses and endings stay. Where
    results and errors would fill the memory, the oldest are described, or cut; where there are too
    many endings for even that, the oldest are counted and go too.

    Not thread-safe. A signal's handler may raise anywhere in it, as that of a soft time limit
    does: the entries alone say what there is, and the rest follows them.

    Args:
        max_events: events of all kinds, above which logs and progress go.
        max_log_characters: of log lines, above which they go.
        max_kept: statuses and endings, above which these go.
        max_kept_characters: of results and errors, above which they are described.
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
        self._kept = TicketQueue()  # statuses and endings
        self._large = TicketQueue()  # those of them that carry what may be large
        self._progress: dict[str, int] = {}  # job id: ticket of its unsent progress, oldest first
        self._dropped: dict[str, tuple[int, int]] = {}  # job id: how many lines, the last ticket
        self.last_ticket = 0
        self.lost = 0  # statuses and endings that had to go

    def __len__(self) -> int:
        return len(self._entries)

    def first_ticket(self, but: Container[str] = ()) -> int:
        """Everything with a lower ticket has left the buffer, ``but`` for what is of these jobs."""
        return next(self._tickets(but), self.last_ticket + 1)

    def add(
        self,
        event: JobEvent,
        origin: Origin = NO_ORIGIN,
        requires: Required = "",
        *,
        ticket: int = 0,
    ) -> None:
        """Keep an event.

        Args:
            event: the next one.
            origin: where it comes from.
            requires: the state that its job has to be in.
            ticket: by default the next one. Adding an event again under its ticket, because that
                was interrupted, changes nothing.
        """
        ticket = ticket or self.last_ticket + 1
        entry = Entry(ticket, event, origin, requires, _characters(event))
        shelf = self._shelf(event)
        self.last_ticket = ticket
        self._entries[ticket] = entry
        if shelf is None:
            older = self._progress.pop(event.job_id, 0)
            self._progress[event.job_id] = ticket
            self._entries.pop(older, None)
        else:
            shelf.add(entry)
            if shelf is self._kept and entry.characters:
                self._large.add(entry)
        self._keep_bounds()

    def take(self, count: int, but: Container[str] = ()) -> list[Entry]:
        """Remove and return up to ``count`` events, and what has to be said of dropped ones.

        What is of the jobs ``but`` stays.
        """
        taken: list[Entry] = []
        for ticket in [*islice(self._tickets(but), count)]:
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

    def _tickets(self, but: Container[str]) -> Iterator[int]:
        entries = self._entries.items()
        return (ticket for ticket, entry in entries if entry.event.job_id not in but)

    def _shelf(self, event: JobEvent) -> TicketQueue | None:
        if event.kind == PROGRESS:
            return None
        return self._logs if isinstance(event, JobLog) else self._kept

    def _remove(self, ticket: int) -> Entry:
        entry = self._entries.pop(ticket)
        shelf = self._shelf(entry.event)
        if shelf is not None:
            shelf.remove(entry)
            self._large.remove(entry)
        elif self._progress.get(entry.event.job_id) == ticket:
            del self._progress[entry.event.job_id]
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
            self._dropped.pop(self._remove(ticket).event.job_id, None)
            self.lost += 1

    def ended_jobs(self) -> list[str]:
        """Return the jobs whose ending is here."""
        events = (entry.event for entry in self._entries.values())
        return [event.job_id for event in events if event.kind == TERMINAL]

    def _shorten_oldest(self) -> bool:
        """Keep an ending without what it carries."""
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
    """The events as the transport takes them.

    One that does not encode is logged. A status or an ending becomes a plain one that does, for
    somebody waits for it; a progress or a line is left out.
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
        return Outgoing.of(event, entry.origin, entry.ticket, entry.requires)
    except Exception:
        # Whatever a value is, the publisher's thread goes on.
        logger.exception("a %s of job %s could not be encoded", event.name, event.job_id)
        return None


def _plain(event: JobEvent) -> JobEvent | None:
    """What can be said of a status or an ending that does not encode."""
    match event:
        case JobStatus():
            return structs.replace(event, task=UNSET, eta=UNSET, error=UNSET, message=UNSET)
        case JobComplete(result=result):
            described = {"omitted": "unserializable", "type": type(result).__name__}
            return structs.replace(event, result=described)
        case JobError(error=error, message=message):
            return structs.replace(event, error=safe_text(error), message=safe_text(message))
    return None


def _short(event: JobEvent) -> JobEvent:
    """What is kept of an ending when there are too many."""
    match event:
        case JobComplete(result=result):
            described = {"omitted": "outage", "bytes": _characters(event)}
            return structs.replace(event, result=described) if isinstance(result, Raw) else event
        case JobError(message=message):
            return structs.replace(event, message=message[:SHORT])
    return event


def _characters(event: JobEvent) -> int:
    """Of what an event carries that may be large."""
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
