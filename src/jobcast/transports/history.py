"""The retained events of a record in memory, with the bounds of ``publish.lua``."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from heapq import merge
from operator import attrgetter

from msgspec import structs

from jobcast.events import INFO, LOG, PROGRESS
from jobcast.transports.base import Message, Retention


class History:
    """The latest log lines, the latest statuses and terminal events, and the latest progress."""

    def __init__(self, retention: Retention) -> None:
        self.progress: Message | None = None
        self._retention = retention
        self._lines: deque[Message] = deque()
        self._statuses: deque[Message] = deque()  # and terminal events
        self._trimmed = 0  # the latest seq among the removed events, except replaced progress

    def __len__(self) -> int:
        """Return the number of events, without the progress."""
        return len(self._lines) + len(self._statuses)

    @property
    def complete_from(self) -> int:
        """The seq from which on no event was removed, except replaced progress."""
        return self._trimmed + 1

    @property
    def events(self) -> list[Message]:
        """The events, ordered by seq, without the progress."""
        return [*merge(self._lines, self._statuses, key=attrgetter("seq"))]

    @property
    def summarized(self) -> Iterator[Message]:
        """The events that a summary of the job depends on, ordered by seq."""
        progress = [] if self.progress is None else [self.progress]
        return merge(self._statuses, progress, key=attrgetter("seq"))

    def after(self, seq: int) -> list[Message]:
        """Return the later events and progress, ordered by seq."""
        progress = [] if self.progress is None else [self.progress]
        events = merge(self._lines, self._statuses, progress, key=attrgetter("seq"))
        return [message for message in events if message.seq > seq]

    def add(self, message: Message) -> None:
        """Retain a message, instead of the oldest one of its kind if there are too many."""
        if message.kind == PROGRESS:
            self.progress = message
        elif message.kind == LOG:
            self._lines.append(message)
            self._trim(self._lines, self._retention.size)
        elif message.kind != INFO:
            self._statuses.append(message)
            self._trim(self._statuses, self._retention.statuses)

    def clear(self) -> None:
        """Remove all events except the progress."""
        self._trim(self._lines, 0)
        self._trim(self._statuses, 0)

    def renew_epoch(self, epoch: str) -> None:
        """Move the events to another epoch."""
        for events in (self._lines, self._statuses):
            for index, message in enumerate(events):
                events[index] = structs.replace(message, epoch=epoch)
        if self.progress is not None:
            self.progress = structs.replace(self.progress, epoch=epoch)

    def _trim(self, events: deque[Message], size: int) -> None:
        while len(events) > size:
            self._trimmed = max(self._trimmed, events.popleft().seq)
