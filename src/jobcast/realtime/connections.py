"""The authenticated connections of a process."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from jobcast.realtime.connection.budget import Budget
from jobcast.realtime.connection.frames import FrameBatch
from jobcast.realtime.connection.outbox import Outbox
from jobcast.tokens import Subject


class Connection:
    """An authenticated connection: its subject, followed jobs, budget and token timer.

    The connection is the :class:`~jobcast.realtime.outlet.Outlet` that its rooms send to.
    """

    __slots__ = (
        "_outbox", "_socket", "budget", "eio_sid", "ended", "history", "jobs", "requests", "sid",
        "since", "subject", "timer",
    )  # fmt: skip

    def __init__(
        self,
        sid: str,
        eio_sid: str,
        subject: Subject,
        *,
        socket: Any,
        outbox: Outbox,
        budget: Budget,
    ) -> None:
        self.sid = sid
        self.eio_sid = eio_sid
        self.subject = subject
        self.budget = budget
        self.history = 0  # characters of history sent so far
        self.jobs: set[str] = set()
        self.ended = False  # nothing more is sent, although the socket may still be open
        self._socket = socket
        self._outbox = outbox
        self.requests = asyncio.Lock()  # requests run one at a time, in order of arrival
        self.timer: asyncio.TimerHandle | None = None  # for the token's expiry
        self.since = time.monotonic()

    @property
    def closed(self) -> bool:
        """Whether the connection can no longer send."""
        socket = self._socket
        return bool(self.ended or socket.closed or socket.closing or self._outbox.overflowed)

    def send(self, batch: FrameBatch) -> None:
        """Send packets of live events."""
        if self.ended:
            return
        if not (self._outbox.write(batch.frames) or self.closed):
            self._outbox.offer_batch(batch)

    def send_history(self, batch: FrameBatch) -> None:
        """Send a job's history, which may exceed the outbox's limit."""
        if self.ended:
            return
        self.history += batch.size
        if not (self._outbox.write(batch.frames) or self.closed):
            self._outbox.offer_history(batch.packets)

    async def drained(self) -> None:
        """Wait until the outbox accepts another history."""
        await self._outbox.drained()


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
