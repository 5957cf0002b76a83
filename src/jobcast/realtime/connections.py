"""The authenticated connections of a process, of every kind."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from jobcast.realtime.connection.budget import Budget
from jobcast.realtime.connection.frames import FrameBatch
from jobcast.tokens import Subject

if TYPE_CHECKING:
    from jobcast.realtime.feeds.follower import FeedFollower
    from jobcast.realtime.feeds.sender import FeedSender


class Connection(ABC):
    """An authenticated connection: its subject, followed jobs and feeds, budget and token timer.

    The connection is the :class:`~jobcast.realtime.outlet.Outlet` that its rooms send to. A
    subclass exists for each protocol that clients use.
    """

    __slots__ = (
        "budget",
        "ended",
        "feeds",
        "history",
        "jobs",
        "requests",
        "sid",
        "since",
        "subject",
        "timer",
    )

    def __init__(self, sid: str, subject: Subject, budget: Budget) -> None:
        self.sid = sid
        self.subject = subject
        self.budget = budget
        self.history = 0  # characters of history sent so far
        self.jobs: set[str] = set()
        self.feeds: FeedSender | None = None  # created for the first feed
        self.ended = False  # nothing more is sent, although the socket may still be open
        self.requests = asyncio.Lock()  # requests run one at a time, in order of arrival
        self.timer: asyncio.TimerHandle | None = None  # for the token's expiry
        self.since = time.monotonic()

    @property
    @abstractmethod
    def address(self) -> str:
        """The client's address, for logs."""

    @property
    @abstractmethod
    def closed(self) -> bool:
        """Whether the connection can no longer send."""

    @property
    @abstractmethod
    def waiting(self) -> int:
        """The number of characters that wait until the client reads."""

    def follower_of(self, feed: str) -> FeedFollower | None:
        """Return the connection's follower of a feed; None if it does not follow the feed."""
        return None if self.feeds is None else self.feeds.followers.get(feed)

    def send(self, batch: FrameBatch) -> None:
        """Send packets of live events."""
        if not self.ended:
            self._send(batch)

    def send_history(self, batch: FrameBatch) -> None:
        """Send a job's history, which may exceed the limit for live events."""
        if not self.ended:
            self.history += batch.size
            self._send_history(batch)

    @abstractmethod
    async def drained(self) -> None:
        """Wait until the connection accepts another history."""

    @abstractmethod
    async def joined(self, job_id: str) -> None:
        """Handle the start of following a job: the relay sends its events to the connection."""

    @abstractmethod
    async def left(self, job_id: str) -> None:
        """Handle the end of following a job."""

    def left_feed(self, feed: str) -> None:  # noqa: B027  (most connections have nothing to do)
        """Handle the end of the right to list a followed feed."""

    @abstractmethod
    async def disconnect(self) -> None:
        """Close the connection after all queued packets. Its client may not stay connected."""

    @abstractmethod
    async def release(self) -> None:
        """Close the connection after all queued packets, so that its client reconnects."""

    @abstractmethod
    def abort(self) -> None:
        """Close the connection immediately, and discard all queued packets."""

    @abstractmethod
    def _send(self, batch: FrameBatch) -> None: ...

    @abstractmethod
    def _send_history(self, batch: FrameBatch) -> None: ...


class Connections:
    """The connections by id, with the number of connections per subject."""

    def __init__(self) -> None:
        self._by_sid: dict[str, Connection] = {}
        self._of_subject: Counter[str] = Counter()
        self._empty: asyncio.Event | None = None

    def __len__(self) -> int:
        return len(self._by_sid)

    def __iter__(self) -> Iterator[Connection]:
        return iter(list(self._by_sid.values()))

    def get(self, sid: str) -> Connection | None:
        return self._by_sid.get(sid)

    def count_of(self, subject: Subject) -> int:
        """Return the number of a subject's connections."""
        return self._of_subject[subject.sub]

    def count(self, subject: Subject) -> None:
        """Count a connection that is about to open; :meth:`remove` ends the count."""
        self._of_subject[subject.sub] += 1

    def uncount(self, subject: Subject) -> None:
        """Stop counting a connection that did not open or was removed."""
        self._of_subject[subject.sub] -= 1
        if not self._of_subject[subject.sub]:
            del self._of_subject[subject.sub]

    def add(self, connection: Connection) -> None:
        """Add a connection that :meth:`count` has counted."""
        self._by_sid[connection.sid] = connection

    def remove(self, sid: str) -> Connection | None:
        """Remove and return a connection, or return None if the id is unknown."""
        connection = self._by_sid.pop(sid, None)
        if connection is None:
            return None
        self.uncount(connection.subject)
        if not self._by_sid and self._empty is not None:
            self._empty.set()
        return connection

    async def wait_empty(self, seconds: float) -> None:
        """Wait until no connection is left, for at most ``seconds``."""
        if not self._by_sid:
            return
        self._empty = asyncio.Event()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._empty.wait()
        self._empty = None
