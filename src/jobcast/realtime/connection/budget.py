"""Budgets: limits on what one connection may request from the server.

The server first delays a client that exceeds a budget (it stops reading from it), then refuses its
requests with ``rate_limited``, and closes the connection if the client continues.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from jobcast.settings import Settings

SPARE_MESSAGES: Final = 100  # burst beyond two messages per job that a connection may follow
MESSAGE_BYTES: Final = 1024  # budgeted size of an average message
UNAUTHENTICATED_MESSAGES: Final = 10  # messages allowed before authentication
UNAUTHENTICATED_BYTES: Final = 16 * 1024  # burst before authentication: a token has up to 8 KiB
UNAUTHENTICATED_RATE: Final = 4 * 1024  # bytes per second before authentication, after the burst
MAX_PENDING: Final = 32  # unanswered requests per connection
CLOSE_AFTER: Final = 3  # multiple of JOBCAST_RATE_PATIENCE after which the connection is closed
HISTORY_BURST: Final = 16  # burst of history, in seconds of JOBCAST_HISTORY_RATE
HISTORY_PATIENCE: Final = 5.0  # seconds that a join waits for its budget
LONGEST_DEBT: Final = 60.0  # maximum debt of history, in seconds of JOBCAST_HISTORY_RATE


class BudgetExceeded(Exception):
    """A client has exceeded its budget for so long that its connection should be closed."""


class TokenBucket(Struct, gc=False, eq=False):
    """A token bucket: a rate limit that allows bursts.

    Each connection has four, which the garbage collector does not scan. The clock must therefore
    not refer to the owner of the bucket: the cycle would never be collected.

    Args:
        rate: tokens added per second.
        capacity: the maximum number of tokens in the bucket.
        clock: returns a monotonic time in seconds.

    >>> bucket = TokenBucket(rate=10, capacity=100)
    >>> bucket.take(110)
    >>> round(bucket.delay)
    1
    """

    rate: float
    capacity: float
    clock: Callable[[], float] = time.monotonic
    _level: float = 0.0
    _updated: float = 0.0

    def __post_init__(self) -> None:
        self._level = self.capacity
        self._updated = self.clock()

    @property
    def level(self) -> float:
        """The number of tokens in the bucket; negative if more were taken than available."""
        now = self.clock()
        level = self._level + (now - self._updated) * self.rate
        if level > self.capacity:
            level = self.capacity
        self._level, self._updated = level, now
        return level

    def take(self, tokens: float, max_debt: float = float("inf")) -> float:
        """Take tokens, even if there are too few, and return the new level.

        The debt does not exceed ``max_debt``.
        """
        level = self.level - tokens
        if level < -max_debt:
            level = -max_debt
        self._level = level
        return level

    def try_take(self) -> bool:
        """Take a token. Return False, and take nothing, if the bucket is empty."""
        if self.level < 1:
            return False
        self.take(1)
        return True

    @property
    def delay(self) -> float:
        """Seconds until the debt is repaid; 0 without a debt."""
        level = self.level
        return -level / self.rate if level < 0 else 0.0


class Budget:
    """The limits of one connection: messages, bytes, pending requests, characters of history.

    Args:
        settings: the limits.
        counts_messages: whether all messages count. If false, only requests count: the clients of
            an application that shares its server with jobcast may send any number of messages.
        clock: returns a monotonic time in seconds.
    """

    __slots__ = (
        "_authenticated", "_bytes", "_capacity_freed", "_clock", "_counts_messages", "_first_joins",
        "_history", "_max_jobs", "_messages", "_patience", "_pending", "_unauthenticated",
        "_unauthenticated_bytes", "_waiting_since", "bytes_in", "is_restricted",
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
        self._unauthenticated_bytes = TokenBucket(
            UNAUTHENTICATED_RATE, UNAUTHENTICATED_BYTES, clock
        )
        burst = 2 * settings.max_jobs + SPARE_MESSAGES
        self._messages = TokenBucket(settings.message_rate, burst, clock)
        self._history = TokenBucket(
            settings.history_rate, settings.history_rate * HISTORY_BURST, clock
        )
        self._first_joins: set[str] = set()
        self._pending = 0
        self._capacity_freed: asyncio.Event | None = None  # created when a request has to wait
        self._unauthenticated = 0  # messages before authentication
        self._waiting_since: float | None = None
        self.authenticated = False

    @property
    def authenticated(self) -> bool:
        """Whether the client has authenticated."""
        return self._authenticated

    @authenticated.setter
    def authenticated(self, value: bool) -> None:
        self._authenticated = value
        # Attributes, because the receiver of data reads them for each segment.
        #: Whether the stricter limits before authentication apply.
        self.is_restricted = self._counts_messages and not value
        #: The budget for all bytes from the client, including framing.
        self.bytes_in = self._unauthenticated_bytes if self.is_restricted else self._bytes

    @property
    def close_after(self) -> float:
        """Seconds of continuous delay after which the connection is closed."""
        return CLOSE_AFTER * self._patience

    async def admit(self, messages: int = 1) -> None:
        """Wait until the budget allows the handling of received messages.

        Args:
            messages: the number of messages.

        Raises:
            BudgetExceeded: the connection should be closed.
        """
        if not self._counts_messages:
            return
        if self.is_restricted:
            self._unauthenticated += messages
            if self._unauthenticated > UNAUTHENTICATED_MESSAGES:
                raise BudgetExceeded("the client sends too many messages before it authenticates")
        level = self._messages.take(messages)
        if level < 0:
            if self._waiting_since is None:
                self._waiting_since = self._clock()
            if self._waited > self.close_after:
                raise BudgetExceeded("the client sends too many messages (JOBCAST_MESSAGE_RATE)")
            await asyncio.sleep(-level / self._messages.rate)
        elif level > self._messages.capacity / 2:
            self._waiting_since = None

    @property
    def has_capacity(self) -> bool:
        """Whether the connection may make another request."""
        return self._pending < MAX_PENDING

    async def wait_for_capacity(self) -> None:
        """Wait until the connection may make another request."""
        while not self.has_capacity:
            if self._capacity_freed is None:
                self._capacity_freed = asyncio.Event()
            self._capacity_freed.clear()
            await self._capacity_freed.wait()

    def begin_request(self) -> None:
        """Count a request as pending until :meth:`end_request`."""
        self._pending += 1

    def end_request(self) -> None:
        """Stop counting a request that was answered or has failed."""
        self._pending -= 1
        if self._capacity_freed is not None:
            self._capacity_freed.set()

    def check_request(self) -> float | None:
        """Check a request against the budget.

        Returns:
            Seconds until the server answers requests again, or None to answer this one.
        """
        if not self._counts_messages:
            self._messages.take(1, max_debt=self.close_after * self._messages.rate)
            return self._messages.delay or None
        if self._waiting_since is None or self._waited <= self._patience:
            return None
        missing = self._messages.capacity / 2 - self._messages.level
        return max(0.0, missing / self._messages.rate)

    async def afford_history(self, job_id: str) -> float | None:
        """Wait for a bounded time until the budget allows a job's history.

        The first join of each job is free, because a client that reconnects joins all of its jobs
        at once.

        Returns:
            Seconds until the client should retry, or None if the history may be sent now.
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
        """Charge the history that a join has sent."""
        self._history.take(characters, max_debt=LONGEST_DEBT * self._history.rate)

    @property
    def _waited(self) -> float:
        return 0.0 if self._waiting_since is None else self._clock() - self._waiting_since
