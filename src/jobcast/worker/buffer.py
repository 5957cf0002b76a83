"""What waits to be published: bounded, in order, with nothing stale in it."""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from typing import Final

from msgspec import Raw, Struct

from jobcast.events import PROGRESS, JobComplete, JobError, JobEvent, JobLog
from jobcast.transports import NO_ORIGIN, Origin, Outgoing

MAX_EVENTS: Final = 10_000
MAX_LOG_CHARACTERS: Final = 8 * 1024 * 1024  # of all buffered log lines together
MAX_KEPT: Final = 100_000  # statuses and endings
MAX_KEPT_CHARACTERS: Final = 64 * 1024 * 1024  # of all buffered results and errors together

logger = logging.getLogger(__name__)


class Entry(Struct, frozen=True, gc=False):
    ticket: int
    event: JobEvent
    origin: Origin


class Buffer:
    """Events of all jobs in the order they were said.

    A newer progress of a job removes an older one. When a bound is reached the oldest log lines
    go, and one line in their place says how many, then progress. Statuses and endings stay; where
    there are so many of them that they would fill the memory, the oldest are counted and go too.
    Not thread-safe.

    Args:
        max_events: events of all kinds, above which logs and progress go.
        max_log_characters: of log lines, above which they go.
        max_kept: statuses and endings, above which these go.
        max_kept_characters: of results and errors, above which they go.
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
        self._logs: deque[int] = deque()  # tickets, oldest first
        self._log_characters = 0
        self._kept: deque[int] = deque()  # tickets of statuses and endings, oldest first
        self._kept_characters = 0
        self._progress: dict[str, int] = {}  # job id: ticket of its unsent progress, oldest first
        self._dropped: dict[str, tuple[int, int]] = {}  # job id: how many lines, the last ticket
        self.last_ticket = 0
        self.lost = 0  # statuses and endings that had to go

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def first_ticket(self) -> int:
        """Everything with a lower ticket has left the buffer."""
        return next(iter(self._entries), self.last_ticket + 1)

    def add(self, event: JobEvent, origin: Origin = NO_ORIGIN) -> None:
        self.last_ticket += 1
        ticket = self.last_ticket
        if event.kind == PROGRESS:
            self._entries.pop(self._progress.pop(event.job_id, 0), None)
            self._progress[event.job_id] = ticket
        elif isinstance(event, JobLog):
            self._logs.append(ticket)
            self._log_characters += len(event.message)
        else:
            self._kept.append(ticket)
            self._kept_characters += _weight(event)
        self._entries[ticket] = Entry(ticket, event, origin)
        self._keep_bounds()

    def take(self, count: int) -> list[Entry]:
        """Remove and return up to ``count`` events, and what has to be said of dropped ones."""
        taken: list[Entry] = []
        while self._entries and len(taken) < count:
            ticket, entry = self._entries.popitem(last=False)
            event = entry.event
            if event.kind == PROGRESS:
                del self._progress[event.job_id]
            elif isinstance(event, JobLog):
                self._logs.popleft()
                self._log_characters -= len(event.message)
            else:
                self._kept.popleft()
                self._kept_characters -= _weight(event)
            dropped, last = self._dropped.get(event.job_id, (0, 0))
            if 0 < last < ticket:
                del self._dropped[event.job_id]
                taken.append(Entry(last, _gap(event, dropped), entry.origin))
            taken.append(entry)
        return taken

    def _keep_bounds(self) -> None:
        while self._logs and self._log_characters > self._max_log_characters:
            self._drop_oldest_log()
        while len(self._entries) > self.max_events and (self._logs or self._progress):
            if self._logs:
                self._drop_oldest_log()
            else:
                job_id = next(iter(self._progress))
                del self._entries[self._progress.pop(job_id)]
        while self._kept and (
            len(self._kept) > self._max_kept or self._kept_characters > self._max_kept_characters
        ):
            event = self._entries.pop(self._kept.popleft()).event
            self._kept_characters -= _weight(event)
            self._dropped.pop(event.job_id, None)
            self.lost += 1

    def _drop_oldest_log(self) -> None:
        ticket = self._logs.popleft()
        event = self._entries.pop(ticket).event
        if isinstance(event, JobLog):
            self._log_characters -= len(event.message)
            count, _ = self._dropped.get(event.job_id, (0, 0))
            self._dropped[event.job_id] = count + 1, ticket


def encode(entries: list[Entry]) -> list[Outgoing]:
    """The events as the transport takes them. One that does not encode is logged and left out."""
    encoded: list[Outgoing] = []
    for entry in entries:
        try:
            encoded.append(Outgoing.of(entry.event, entry.origin, entry.ticket))
        except (TypeError, ValueError):
            name, job_id = entry.event.name, entry.event.job_id
            logger.exception("a %s of job %s could not be encoded", name, job_id)
    return encoded


def _weight(event: JobEvent) -> int:
    """Characters of what an event carries that may be large."""
    if isinstance(event, JobComplete) and isinstance(event.result, Raw):
        return len(event.result)
    return len(event.message) if isinstance(event, JobError) else 0


def _gap(before: JobEvent, dropped: int) -> JobLog:
    lines = "1 log line was" if dropped == 1 else f"{dropped} log lines were"
    return JobLog(
        job_id=before.job_id,
        timestamp=before.timestamp,
        level="warning",
        message=f"{lines} dropped here: they could not be sent in time",
    )
