"""The bounded queue of what one connection has yet to send, which replaces stale progress."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Final, Generic, TypeVar

from jobcast.realtime import metrics

DEFAULT_LIMIT: Final = 1024 * 1024  # maximum size of a connection's queue, in characters

T = TypeVar("T")


class SendMemory:
    """The memory limit for the queues of all connections of a process.

    Beyond the limit, the connection with the largest queue is cut. The queue of a client that
    reads is small.

    Args:
        limit: the maximum size of all queues, in characters.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: dict[SendQueue[Any], int] = {}
        self._total = 0
        self._cutting = False

    def clear(self) -> None:
        """Forget all queues, because their event loop has ended."""
        self._waiting.clear()
        self._total = 0

    def update(self, queue: SendQueue[Any]) -> None:
        """Update the size of one queue, and cut connections while the total exceeds the limit."""
        size = queue.pending
        self._total += size - self._waiting.get(queue, 0)
        if size:
            self._waiting[queue] = size
        else:
            self._waiting.pop(queue, None)
        if self._total <= self._limit or self._cutting:
            return  # cutting a connection calls this method recursively
        self._cutting = True
        try:
            while self._total > self._limit and len(self._waiting) > 1:
                max(self._waiting, key=self._waiting.__getitem__).cut()
        finally:
            self._cutting = False


class SendQueue(ABC, Generic[T]):
    """A bounded queue of packets.

    A newer progress event of a job replaces one that was not taken yet. If the queue still exceeds
    its limit, the connection is closed: the client reconnects with a cursor and reads the missed
    events from the history. A history is accepted as a whole, so that clients can read one that is
    larger than the limit.

    Args:
        limit: the maximum number of queued characters.
        memory: the memory limit for all connections.
    """

    __slots__ = (
        "_bound", "_keys", "_limit", "_low", "_memory", "_packets", "_ticket", "_values",
        "overflowed", "pending",
    )  # fmt: skip

    def __init__(self, limit: int = DEFAULT_LIMIT, memory: SendMemory | None = None) -> None:
        self._memory = memory
        self._packets: OrderedDict[int, T] = OrderedDict()
        self._limit = self._bound = limit
        self._ticket = 0
        self._values: dict[str, int] = {}  # key of a value: the ticket of its latest packet
        self._keys: dict[int, str] = {}
        # Created on demand: it is rarely needed, and an event is larger than all other state.
        self._low: asyncio.Event | None = None
        self.pending = 0  # characters
        self.overflowed = False

    @property
    def is_empty(self) -> bool:
        """Whether no packet is queued."""
        return not self._packets

    def offer(self, packet: T, replaces: str | None = None) -> None:
        """Queue the packet of a live event.

        Args:
            packet: the packet to send.
            replaces: the key of the value that the packet updates. A queued packet with the same
                key is removed.
        """
        if self.overflowed:
            return
        self._withdraw_stale(replaces)
        if self.pending > self._bound:
            self.cut()
            return
        self._add(packet)
        self._register(replaces)

    def offer_burst(self, packets: Sequence[T], values: Sequence[str | None]) -> None:
        """Queue live events beyond the limit that arrive before the writer has had a turn.

        A burst in one iteration of the event loop does not show that a client is slow.

        Args:
            packets: the packets to send.
            values: for each packet, the key of the value that it updates, or None.
        """
        for packet, value in zip(packets, values, strict=True):
            if self.overflowed:  # adding a packet may exceed the memory of all connections
                return
            self._withdraw_stale(value)
            self._add(packet)
            self._register(value)
        self._bound = max(self._bound, self.pending + self._limit)

    def offer_history(self, packets: Sequence[T]) -> None:
        """Queue all packets of a job's history."""
        if self.pending > self._limit and not self.overflowed:
            self.cut()
            return
        self.offer_burst(packets, [None] * len(packets))

    @property
    def is_low(self) -> bool:
        """Whether :meth:`drained` returns immediately."""
        return self._low is None

    async def drained(self) -> None:
        """Wait until the queue is short enough for another history."""
        if self._low is not None:
            await self._low.wait()

    def cut(self) -> None:
        """Discard the queue and close the connection, because the queue is too large."""
        self.overflowed = True
        pending = self.pending
        self.discard()
        metrics.SLOW.inc()
        self._overflow(pending)

    def discard(self) -> None:
        """Discard all queued packets."""
        while self._packets:
            self._pop()
            self._dropped()

    @abstractmethod
    def _overflow(self, pending: int) -> None:
        """Close the connection; called once, with the number of queued characters."""

    @abstractmethod
    def _size(self, packet: T) -> int:
        """Return the size of a packet in characters."""

    def _dropped(self) -> None:
        """Handle the removal of a packet that will not be sent."""

    def _add(self, packet: T) -> None:
        self._ticket += 1
        self._packets[self._ticket] = packet
        self._count(self._size(packet))

    def _withdraw_stale(self, key: str | None) -> None:
        """Remove the queued packet of a value that a newer packet updates."""
        if key is not None and (stale := self._values.get(key)) is not None:
            self._withdraw(stale)
            metrics.CONFLATED.inc()

    def _register(self, key: str | None) -> None:
        """Note that the packet that was added last updates a value."""
        if key is not None:
            self._values[key] = self._ticket
            self._keys[self._ticket] = key

    def _pop(self) -> T:
        ticket, packet = self._packets.popitem(last=False)
        self._forget(ticket, packet)
        return packet

    def _withdraw(self, ticket: int) -> None:
        self._forget(ticket, self._packets.pop(ticket))
        self._dropped()

    def _forget(self, ticket: int, packet: T) -> None:
        key = self._keys.pop(ticket, None)
        if key is not None:
            del self._values[key]
        self._count(-self._size(packet))

    def _count(self, change: int) -> None:
        self.pending += change
        if self._memory is not None:
            self._memory.update(self)
        if self.pending > self._limit // 2:
            if self._low is None:
                self._low = asyncio.Event()
            return
        self._bound = self._limit
        if self._low is not None:
            self._low.set()
            self._low = None
