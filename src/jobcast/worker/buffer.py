"""What waits to be published: bounded, in order, with nothing stale in it."""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from typing import Final

from msgspec import Struct

from jobcast.events import PROGRESS, JobEvent, JobLog
from jobcast.transports import NO_ORIGIN, Origin, Outgoing

MAX_EVENTS: Final = 10_000
MAX_LOG_CHARACTERS: Final = 8 * 1024 * 1024  # of all buffered log lines together

logger = logging.getLogger(__name__)


class Entry(Struct, frozen=True, gc=False):
    ticket: int
    event: JobEvent
    origin: Origin


class Buffer:
    """Events of all jobs in the order they were said.

    A newer progress of a job removes an older one. When a bound is reached the oldest log lines
    go, and one line in their place says how many; statuses and endings stay. Not thread-safe.
    """

    def __init__(
        self, max_events: int = MAX_EVENTS, max_log_characters: int = MAX_LOG_CHARACTERS
    ) -> None:
        self._max_events = max_events
        self._max_log_characters = max_log_characters
        self._entries: OrderedDict[int, Entry] = OrderedDict()
        self._logs: deque[int] = deque()  # tickets, oldest first
        self._log_characters = 0
        self._progress: dict[str, int] = {}  # job id: ticket of its unsent progress
        self._dropped: dict[str, tuple[int, int]] = {}  # job id: how many lines, the last ticket
        self.last_ticket = 0

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
            self._entries.pop(self._progress.get(event.job_id, 0), None)
            self._progress[event.job_id] = ticket
        elif isinstance(event, JobLog):
            self._logs.append(ticket)
            self._log_characters += len(event.message)
        self._entries[ticket] = Entry(ticket, event, origin)
        while self._logs and (
            len(self._entries) > self._max_events or self._log_characters > self._max_log_characters
        ):
            self._drop_oldest_log()

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
            dropped, last = self._dropped.get(event.job_id, (0, 0))
            if 0 < last < ticket:
                del self._dropped[event.job_id]
                taken.append(Entry(last, _gap(event, dropped), entry.origin))
            taken.append(entry)
        return taken

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


def _gap(before: JobEvent, dropped: int) -> JobLog:
    lines = "1 log line was" if dropped == 1 else f"{dropped} log lines were"
    return JobLog(
        job_id=before.job_id,
        timestamp=before.timestamp,
        level="warning",
        message=f"{lines} dropped here: they could not be sent in time",
    )
