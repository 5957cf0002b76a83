"""Budgets: how much one connection may ask of the server.

A client that exceeds a budget first waits (the server reads nothing more from it), then is refused
with ``rate_limited``, and is closed if it goes on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from jobcast.settings import Settings

SPARE_MESSAGES: Final = 100  # beyond two for each job that a connection may follow
MESSAGE_BYTES: Final = 1024  # that an average message may have
UNAUTHENTICATED_MESSAGES: Final = 10  # that a client may send before it has authenticated
UNAUTHENTICATED_BYTES: Final = 16 * 1024  # that it may send at once: a token has up to 8 KiB
UNAUTHENTICATED_RATE: Final = 4 * 1024  # bytes a second after them
MAX_PENDING: Final = 32  # requests of one connection that wait for their answers
CLOSE_AFTER: Final = 3  # times JOBCAST_RATE_PATIENCE of waiting, after which it is closed
HISTORY_BURST: Final = 16  # seconds of the history's rate that a connection may use at once
HISTORY_PATIENCE: Final = 5.0  # seconds that a join waits for its budget
LONGEST_DEBT: Final = 60.0  # seconds of the history's rate


class BudgetExceeded(Exception):
    """A client goes on although it has been refused for a while."""


class TokenBucket:
    """A rate with bursts.

    Args:
        rate: tokens that are added a second.
        capacity: tokens that may be saved.
        clock: seconds, from any start.

    >>> bucket = TokenBucket(rate=10, capacity=100)
    >>> bucket.take(110)
    >>> round(bucket.delay)
    1
    """

    __slots__ = ("_clock", "_level", "_updated", "capacity", "rate")

    def __init__(
        self, rate: float, capacity: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.rate = rate
        self.capacity = capacity
        self._clock = clock
        self._level = capacity
        self._updated = clock()

    @property
    def level(self) -> float:
        """Tokens that are left; negative if more were taken than there were."""
        now = self._clock()
        self._level = min(self.capacity, self._level + (now - self._updated) * self.rate)
        self._updated = now
        return self._level

    def take(self, tokens: float, most_owed: float = float("inf")) -> None:
        """Take tokens, also if there are too few; no more than ``most_owed`` are owed after it."""
        self._level = max(self.level - tokens, -most_owed)

    def try_take(self) -> bool:
        """Take a token. Returns False, and takes nothing, if there is none."""
        if self.level < 1:
            return False
        self.take(1)
        return True

    @property
    def delay(self) -> float:
        """Seconds until nothing is owed."""
        return max(0.0, -self.level / self.rate)


class Budget:
    """What one connection may ask for: messages, requests at once, characters of history.

    Args:
        settings: the limits.
        counts_messages: whether every message counts, or only requests do: an application that
            shares its server with jobcast may send as much as it likes.
        clock: seconds, from any start.
    """

    __slots__ = (
        "_bytes", "_clock", "_counts_messages", "_first_joins", "_history", "_max_jobs",
        "_messages", "_patience", "_pending", "_room", "_stranger_bytes", "_unauthenticated",
        "_waiting_since", "authenticated",
    )  # fmt: skip

    def __init__(
        self,
        settings: Settings,
        *,
        counts_messages: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._counts_messages = counts_messages
        self._max_jobs = settings.max_jobs
        self._patience = settings.rate_patience
        self._bytes = TokenBucket(
            settings.message_rate * MESSAGE_BYTES, 2 * settings.max_jobs * MESSAGE_BYTES, clock
        )
        self._stranger_bytes = TokenBucket(UNAUTHENTICATED_RATE, UNAUTHENTICATED_BYTES, clock)
        burst = 2 * settings.max_jobs + SPARE_MESSAGES
        self._messages = TokenBucket(settings.message_rate, burst, clock)
        self._history = TokenBucket(
            settings.history_rate, settings.history_rate * HISTORY_BURST, clock
        )
        self._first_joins: set[str] = set()
        self._pending = 0
        self._room: asyncio.Event | None = None  # made when a client has too many requests
        self._unauthenticated = 0  # messages
        self._waiting_since: float | None = None
        self.authenticated = False

    @property
    def is_stranger(self) -> bool:
        """Whether nobody knows yet who the client is, so that it is owed little."""
        return self._counts_messages and not self.authenticated

    @property
    def bytes_in(self) -> TokenBucket:
        """The bytes that the client may send, of messages and of everything else."""
        return self._stranger_bytes if self.is_stranger else self._bytes

    @property
    def close_after(self) -> float:
        """Seconds of waiting without pause, after which the connection is closed."""
        return CLOSE_AFTER * self._patience

    async def admit(self, messages: int = 1) -> None:
        """Wait until messages that have come may be handled.

        Raises:
            BudgetExceeded: the connection should be closed.
        """
        if not self._counts_messages:
            return
        if self.is_stranger:
            self._unauthenticated += messages
            if self._unauthenticated > UNAUTHENTICATED_MESSAGES:
                raise BudgetExceeded("it sends too much before it authenticates")
        self._messages.take(messages)
        delay = self._messages.delay
        if delay:
            if self._waiting_since is None:
                self._waiting_since = self._clock()
            if self._waited > self.close_after:
                raise BudgetExceeded("it sends too many messages (JOBCAST_MESSAGE_RATE)")
            await asyncio.sleep(delay)
        elif self._messages.level > self._messages.capacity / 2:
            self._waiting_since = None

    @property
    def has_room(self) -> bool:
        """Whether another request may come."""
        return self._pending < MAX_PENDING

    async def room(self) -> None:
        """Wait until another request may come."""
        while not self.has_room:
            if self._room is None:
                self._room = asyncio.Event()
            self._room.clear()
            await self._room.wait()

    @contextmanager
    def request(self) -> Iterator[None]:
        """Count a request until it is answered."""
        self._pending += 1
        try:
            yield
        finally:
            self._pending -= 1
            if self._room is not None:
                self._room.set()

    def check_request(self) -> float | None:
        """Whether a request is above the budget.

        Returns:
            Seconds after which requests are answered again; None if this one is answered.
        """
        if not self._counts_messages:
            self._messages.take(1, most_owed=self.close_after * self._messages.rate)
            return self._messages.delay or None
        if self._waiting_since is None or self._waited <= self._patience:
            return None
        missing = self._messages.capacity / 2 - self._messages.level
        return max(0.0, missing / self._messages.rate)

    async def afford_history(self, job_id: str) -> float | None:
        """Wait, for a bounded time, until a job's history may be sent.

        A client that comes back joins all of its jobs at once: the first join of each is free.

        Returns:
            Seconds after which to ask again; None if the history may be sent now.
        """
        if job_id not in self._first_joins and len(self._first_joins) < self._max_jobs:
            self._first_joins.add(job_id)
            return None
        delay = self._history.delay
        if delay > HISTORY_PATIENCE:
            return delay
        await asyncio.sleep(delay)
        return None

    def charge_history(self, characters: int) -> None:
        """Take what a join has cost."""
        self._history.take(characters, most_owed=LONGEST_DEBT * self._history.rate)

    @property
    def _waited(self) -> float:
        return 0.0 if self._waiting_since is None else self._clock() - self._waiting_since
