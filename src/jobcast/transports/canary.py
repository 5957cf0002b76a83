"""Canaries: notes that a process publishes to itself, to prove that it hears what is published.

A connection that is up proves little. Subscriptions get lost, an operator deletes an exchange, a
broker stops to read from publishers, a client publishes to another server than it listens to. Each
of these is silence, and so are jobs without events. A note tells the two apart. None is
sent while other messages arrive by the same way.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, Protocol, runtime_checkable

from msgspec import Struct

from jobcast.errors import TransportUnavailable

INTERVAL: Final = 1.0  # seconds of silence after which a note is sent
UNANSWERED: Final = 5  # notes that were sent and did not arrive: the process is deaf
SILENCE: Final = 15.0  # seconds without a note that arrives: the process is not ready

logger = logging.getLogger(__name__)


class Deaf(Exception):
    """Nothing arrives by a way, although it is published there.

    ``way`` is its name; ``reaches_nobody`` says that no other process receives anything either.
    """

    def __init__(self, way: str, *, reaches_nobody: bool) -> None:
        super().__init__(f"this process does not receive what is published by way of {way}")
        self.way = way
        self.reaches_nobody = reaches_nobody


class _Way(Struct):
    heard_at: float
    waiting_since: float | None = None  # when the first note was sent that did not arrive
    unanswered: int = 0  # notes that were sent, and did not arrive


class Canary:
    """Watches the ways by which a process receives.

    Args:
        send: sends a note by a way; it returns False if no process can receive the note.
        is_online: whether the process is connected, and notes may arrive.
        clock: seconds.
    """

    def __init__(
        self,
        send: Callable[[str], Awaitable[bool]],
        is_online: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._send = send
        self._is_online = is_online
        self._clock = clock
        self._since = clock()
        self._ways: dict[str, _Way] = {}
        self._deaf: dict[str, float] = {}  # ways that were found deaf, and since when
        self._fresh: set[str] = set()  # ways by which something has arrived since the last look
        self._error = ""  # of the last note that could not be sent
        self._has_warned = False

    def watch(self, names: Iterable[str]) -> None:
        """Watch these ways from now on: their connection is new.

        One that was deaf has to be heard on before it counts as a good one.
        """
        now = self._clock()
        self._ways = {name: _Way(now, self._deaf.get(name)) for name in names}

    def heard(self, name: str) -> None:
        """Note that something has arrived by a way."""
        self._fresh.add(name)

    @property
    def age(self) -> float:
        """Seconds since something arrived, of the way that is silent for longest."""
        self._look()
        heard_at = (way.heard_at for way in self._ways.values())
        return self._clock() - min(heard_at, default=self._since)

    @property
    def silence(self) -> float:
        """Seconds that a note has been waited for.

        It counts from when a note was sent, so that a process which had no time to listen is not
        taken for deaf.
        """
        self._look()
        now = self._clock()
        waits = [now - way.waiting_since for way in self._ways.values() if way.waiting_since]
        return max(waits, default=0.0)

    @property
    def problem(self) -> str:
        """Why the process hears nothing; empty if it does."""
        silence = self.silence
        if silence < SILENCE:
            return ""
        return f"nothing that is published has arrived for {silence:.0f} s" + (
            f" ({self._error})" if self._error else ""
        )

    async def run(self) -> None:
        """Send notes where it is silent.

        Raises:
            Deaf: they do not arrive.
        """
        while True:
            # Processes that share a server send at different moments: a note is heard by all.
            await asyncio.sleep(INTERVAL * random.uniform(0.7, 1.3))
            if self._is_online():
                await self._send_where_silent()
            self._warn()

    async def _send_where_silent(self) -> None:
        self._look()
        for name, way in [*self._ways.items()]:
            if self._clock() - way.heard_at < INTERVAL / 2:
                continue
            way.waiting_since = way.waiting_since or self._clock()
            try:
                arrives = await self._send(name)
            except TransportUnavailable as exc:
                self._error = str(exc)
                continue
            self._error = ""
            way.unanswered += 1
            if not arrives or way.unanswered > UNANSWERED:
                way.unanswered = 0
                self._deaf[name] = way.waiting_since
                raise Deaf(name, reaches_nobody=not arrives)

    def _look(self) -> None:
        fresh, self._fresh = self._fresh, set()
        now = self._clock()
        for name in fresh & self._ways.keys():
            self._ways[name] = _Way(now)
            self._deaf.pop(name, None)

    def _warn(self) -> None:
        problem = self.problem
        if problem and not self._has_warned:
            logger.warning("%s: this process is not ready until something does", problem)
        elif self._has_warned and not problem:
            logger.warning("published events arrive again: this process is ready")
        self._has_warned = bool(problem)


@runtime_checkable
class SupportsCanary(Protocol):
    """A source that proves to itself that it hears."""

    @property
    def canary(self) -> Canary:
        """What it knows of that."""
