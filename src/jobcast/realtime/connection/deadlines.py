"""Timeouts of one length for many connections, with one timer of the event loop."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Deadlines(Generic[K]):
    """Deadlines that all lie equally far ahead when they start, so that they expire in this order.

    A timer of the event loop for each would add four objects to a connection, which the garbage
    collector scans, although most connections meet their deadlines.

    Deadlines belong to the loop that they are started in. Those of a former loop are dropped.

    Args:
        timeout: seconds until a deadline expires.
        on_expiry: called with the key of each deadline that has expired.

    >>> deadlines = Deadlines(5.0, cut)
    >>> deadlines.start("a")
    >>> deadlines.stop("a")
    """

    __slots__ = ("_due", "_loop", "_on_expiry", "_timeout", "_timer")

    def __init__(self, timeout: float, on_expiry: Callable[[K], object]) -> None:
        self._timeout = timeout
        self._on_expiry = on_expiry
        # The oldest first. A dict would search for it among the entries removed before it.
        self._due: OrderedDict[K, float] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def __len__(self) -> int:
        return len(self._due)

    def __contains__(self, key: object) -> bool:
        return key in self._due

    def __iter__(self) -> Iterator[K]:
        """Iterate over the keys, the oldest deadline first."""
        return iter(self._due)

    @property
    def oldest(self) -> K:
        """The key of the deadline that expires first."""
        return next(iter(self._due))

    def start(self, key: K) -> None:
        """Start a deadline, or start it again."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self.clear()  # the timer of a loop that has ended would never fire
            self._loop = loop
        due = loop.time() + self._timeout
        self._due[key] = due
        self._due.move_to_end(key)
        self._arm(loop)

    def stop(self, key: K) -> None:
        """Stop a deadline, unless it has expired."""
        self._due.pop(key, None)

    def clear(self) -> None:
        """Stop all deadlines."""
        self._due.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._due and self._timer is None:
            self._timer = loop.call_at(self._due[self.oldest], self._expire, loop)

    def _expire(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now = loop.time()
        try:
            while self._due and self._due[self.oldest] <= now:
                key, _ = self._due.popitem(last=False)
                self._on_expiry(key)
        finally:
            self._arm(loop)
