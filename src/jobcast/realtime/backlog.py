"""What waits to be written to one connection: bounded, in order, with nothing stale in it."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Final

from engineio.packet import PING, Packet

from jobcast.realtime import metrics

DEFAULT_LIMIT: Final = 1024 * 1024  # characters that may wait for one connection
CHUNK: Final = 64 * 1024  # characters that the writer takes at once, and cannot give back
PAYLOAD: Final = 16  # packets that it takes at once: in a long poll, Python's client reads no more


class Backlog(asyncio.Queue[Packet | None]):
    """A queue for an Engine.IO socket, in the place of its own, which has no bound.

    A progress that was not written yet is replaced by a newer one of its job. What is still too
    much closes the connection: the client comes back with a cursor and reads what it has missed
    from the history. A history is taken as a whole, so that one that is larger than the limit can
    be read at all.

    Args:
        on_overflow: closes the connection; is called once.
        limit: characters that may wait.
    """

    def __init__(self, on_overflow: Callable[[int], None], limit: int = DEFAULT_LIMIT) -> None:
        self._packets: OrderedDict[int, Packet | None] = OrderedDict()
        super().__init__()
        self._on_overflow = on_overflow
        self._limit = self._bound = limit
        self._ticket = 0
        self._values: dict[str, int] = {}  # key of a value: the ticket of its latest
        self._keys: dict[int, str] = {}
        self._taken = 0  # characters since the writer waited last
        self._taken_packets = 0
        self.pending = 0  # characters
        self.overflowed = False
        self._low = asyncio.Event()
        self._low.set()

    def offer(self, packet: Packet, replaces: str | None = None) -> None:
        """Add a packet of a live event.

        Args:
            packet: what to write.
            replaces: names a value that this packet is the newest of; an older one that waits
                is taken back.
        """
        if self.overflowed:
            return
        if replaces is not None and (stale := self._values.get(replaces)) is not None:
            self._withdraw(stale)
            metrics.CONFLATED.inc()
        if self.pending > self._bound:
            self._overflow()
            return
        self.put_nowait(packet)
        if replaces is not None:
            self._values[replaces] = self._ticket
            self._keys[self._ticket] = replaces

    def offer_history(self, packets: Sequence[Packet]) -> None:
        """Add what a job's history has for the connection, all of it."""
        if self.overflowed:
            return
        if self.pending > self._limit:
            self._overflow()
            return
        for packet in packets:
            self.put_nowait(packet)
        self._bound = max(self._bound, self.pending + self._limit)

    async def drained(self) -> None:
        """Wait until so little is left that another history may be added."""
        await self._low.wait()

    def discard(self) -> None:
        """Forget what waits: the connection is gone."""
        while self._packets:
            self._get()
            self.task_done()
        self._low.set()

    async def get(self) -> Packet | None:
        self._taken = self._taken_packets = 0
        return await super().get()

    def get_nowait(self) -> Packet | None:
        if self._taken >= CHUNK or self._taken_packets >= PAYLOAD:
            # What is left here may still be conflated; what the writer holds may not.
            raise asyncio.QueueEmpty
        packet = super().get_nowait()
        self._taken += _size(packet)
        self._taken_packets += 1
        return packet

    def qsize(self) -> int:
        return len(self._packets)

    def empty(self) -> bool:
        return not self._packets

    def _init(self, maxsize: int) -> None:
        del maxsize

    def _put(self, packet: Packet | None) -> None:
        self._ticket += 1
        self._packets[self._ticket] = packet
        if packet is not None and packet.packet_type == PING:
            # Behind much data, it would make a slow client look like one that is gone.
            self._packets.move_to_end(self._ticket, last=False)
        self._count(_size(packet))

    def _get(self) -> Packet | None:
        ticket, packet = self._packets.popitem(last=False)
        self._forget(ticket, packet)
        return packet

    def _withdraw(self, ticket: int) -> None:
        self._forget(ticket, self._packets.pop(ticket))
        self.task_done()

    def _forget(self, ticket: int, packet: Packet | None) -> None:
        key = self._keys.pop(ticket, None)
        if key is not None:
            del self._values[key]
        self._count(-_size(packet))

    def _count(self, change: int) -> None:
        self.pending += change
        if self.pending <= self._limit // 2:
            self._bound = self._limit
            self._low.set()
        else:
            self._low.clear()

    def _overflow(self) -> None:
        self.overflowed = True
        pending = self.pending
        self.discard()
        metrics.SLOW.inc()
        self._on_overflow(pending)


def _size(packet: Any) -> int:
    data = None if packet is None else packet.data
    return len(data) if isinstance(data, str | bytes) else 0
