"""The bounded queue of outgoing packets of one connection, which replaces stale progress."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from engineio.packet import PING, Packet

from jobcast.aio import cancel_and_wait
from jobcast.realtime import metrics
from jobcast.realtime.connection.frames import FrameBatch, frame

DEFAULT_LIMIT: Final = 1024 * 1024  # maximum size of a connection's queue, in characters
CHUNK: Final = 64 * 1024  # characters that the writer takes at once, which cannot be conflated
MAX_PACKETS: Final = 16  # packets that it takes at once: Python's client reads no more per poll

logger = logging.getLogger(__name__)


class Sink(Protocol):
    """The destination of an outbox's packets: a WebSocket."""

    def write(self, frames: bytes) -> bool:
        """Write frames immediately. Return False if that is not possible now."""

    async def send(self, data: str | bytes) -> None:
        """Write a message as soon as the client reads.

        Raises:
            TimeoutError: the client does not read.
        """

    async def close(self) -> None:
        """Close the WebSocket with a closing handshake."""

    def abort(self) -> None:
        """Close the WebSocket immediately."""


class SendMemory:
    """The memory limit for the outboxes of all connections of a process.

    Beyond the limit, the connection with the largest outbox is cut. The outbox of a client that
    reads is small.

    Args:
        limit: the maximum size of all outboxes, in characters.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: dict[Outbox, int] = {}
        self._total = 0
        self._cutting = False

    def clear(self) -> None:
        """Forget all outboxes, because their event loop has ended."""
        self._waiting.clear()
        self._total = 0

    def update(self, outbox: Outbox) -> None:
        """Update the size of one outbox, and cut connections while the total exceeds the limit."""
        size = outbox.pending
        self._total += size - self._waiting.get(outbox, 0)
        if size:
            self._waiting[outbox] = size
        else:
            self._waiting.pop(outbox, None)
        if self._total <= self._limit or self._cutting:
            return  # cutting a connection calls this method recursively
        self._cutting = True
        try:
            while self._total > self._limit and len(self._waiting) > 1:
                max(self._waiting, key=self._waiting.__getitem__).cut()
        finally:
            self._cutting = False


class Outbox:
    """A bounded queue for an Engine.IO socket, in place of python-engineio's unbounded one.

    A newer progress event of a job replaces one that was not written yet. If the queue still
    exceeds its limit, the connection is closed: the client reconnects with a cursor and reads the
    missed events from the history. A history is accepted as a whole, so that clients can read one
    that is larger than the limit.

    A long poll takes the queued packets. For a WebSocket, packets are written immediately if
    possible. They are queued, and written by a task, only if they have to wait.

    The class implements the methods of :class:`asyncio.Queue` that python-engineio calls, and takes
    a quarter of its memory.

    Args:
        on_overflow: closes the connection; called once, with the number of queued characters.
        limit: the maximum number of queued characters.
        memory: the memory limit for all connections.
    """

    __slots__ = (
        "_arrived", "_bound", "_keys", "_limit", "_low", "_memory", "_on_overflow", "_packets",
        "_pump", "_settled", "_taken", "_taken_packets", "_ticket", "_unfinished",
        "_values", "overflowed", "pending", "sink",
    )  # fmt: skip

    def __init__(
        self,
        on_overflow: Callable[[int], None],
        limit: int = DEFAULT_LIMIT,
        *,
        memory: SendMemory | None = None,
    ) -> None:
        self._memory = memory
        self._packets: OrderedDict[int, Packet | None] = OrderedDict()
        self._on_overflow = on_overflow
        self._limit = self._bound = limit
        self._ticket = 0
        self._values: dict[str, int] = {}  # key of a value: the ticket of its latest packet
        self._keys: dict[int, str] = {}
        self._taken = 0  # characters taken since the writer last waited
        self._taken_packets = 0
        self._unfinished = 0
        self._pump: asyncio.Task[None] | None = None  # writes queued packets to the sink
        # Created on demand: they are rarely needed, and an event is larger than all other state.
        self._arrived: asyncio.Event | None = None
        self._settled: asyncio.Event | None = None
        self._low: asyncio.Event | None = None
        self.sink: Sink | None = None
        self.pending = 0  # characters
        self.overflowed = False

    def attach(self, sink: Sink) -> None:
        """Write to a WebSocket from now on, starting with the queued packets."""
        self.sink = sink
        waiting = [packet for packet in self._packets.values() if packet is not None]
        if len(waiting) == len(self._packets) and self.write(
            b"".join([frame(packet.encode()) for packet in waiting])
        ):
            self.discard()
        else:
            self._start_pump()

    async def detach(self) -> None:
        """Discard the queue and release the WebSocket, which has closed."""
        self.discard()
        if self._pump is not None:
            await cancel_and_wait(self._pump)
        self.sink = None

    def write(self, frames: bytes) -> bool:
        """Write frames immediately, unless earlier packets wait.

        Returns:
            Whether the frames were written. If not, the caller has to offer the packets.
        """
        return self._pump is None and self.sink is not None and self.sink.write(frames)

    def offer_batch(self, batch: FrameBatch) -> None:
        """Queue a batch of live events."""
        for packet, value in zip(batch.packets, batch.values, strict=True):
            self.offer(packet, value)

    def offer(self, packet: Packet, replaces: str | None = None) -> None:
        """Queue the packet of a live event.

        Args:
            packet: the packet to write.
            replaces: the key of the value that the packet updates. A queued packet with the same
                key is removed.
        """
        if self.overflowed:
            return
        if replaces is not None and (stale := self._values.get(replaces)) is not None:
            self._withdraw(stale)
            metrics.CONFLATED.inc()
        if self.pending > self._bound:
            self.cut()
            return
        self._add(packet)
        if replaces is not None:
            self._values[replaces] = self._ticket
            self._keys[self._ticket] = replaces

    def offer_history(self, packets: Sequence[Packet]) -> None:
        """Queue all packets of a job's history."""
        if self.overflowed:
            return
        if self.pending > self._limit:
            self.cut()
            return
        for packet in packets:
            self._add(packet)
        self._bound = max(self._bound, self.pending + self._limit)

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
        self._on_overflow(pending)

    def discard(self) -> None:
        """Discard all queued packets."""
        while self._packets:
            self._pop()
            self.task_done()

    def put_nowait(self, packet: Packet | None) -> None:
        """Queue a packet of python-socketio. None closes the connection after all queued packets.

        A packet is written immediately if possible.
        """
        # Encode only for a WebSocket: a packet caches its first encoding, and polling's differs.
        if packet is not None and self.sink is not None and self.write(frame(packet.encode())):
            return
        if packet is not None and packet.packet_type != PING and self.pending > 2 * self._bound:
            if not self.overflowed:
                self.cut()
            return
        self._add(packet)

    async def put(self, packet: Packet | None) -> None:
        self.put_nowait(packet)

    async def get(self) -> Packet | None:
        self._taken = self._taken_packets = 0
        while not self._packets:
            if self._arrived is None:
                self._arrived = asyncio.Event()
            self._arrived.clear()
            await self._arrived.wait()
        return self.get_nowait()

    def get_nowait(self) -> Packet | None:
        if not self._packets or self._taken >= CHUNK or self._taken_packets >= MAX_PACKETS:
            # Queued packets can still be conflated; packets that the writer holds cannot.
            raise asyncio.QueueEmpty
        packet = self._pop()
        self._taken += _size(packet)
        self._taken_packets += 1
        return packet

    def task_done(self) -> None:
        self._unfinished -= 1
        if not self._unfinished and self._settled is not None:
            self._settled.set()
            self._settled = None

    async def join(self) -> None:
        if self._unfinished:
            if self._settled is None:
                self._settled = asyncio.Event()
            await self._settled.wait()

    def qsize(self) -> int:
        return len(self._packets)

    def empty(self) -> bool:
        return not self._packets

    def _add(self, packet: Packet | None) -> None:
        self._ticket += 1
        self._unfinished += 1
        self._packets[self._ticket] = packet
        if packet is not None and packet.packet_type == PING:
            # Behind a long queue, the ping would time out although the client still reads.
            self._packets.move_to_end(self._ticket, last=False)
        self._count(_size(packet))
        if self._arrived is not None:
            self._arrived.set()
        self._start_pump()

    def _pop(self) -> Packet | None:
        ticket, packet = self._packets.popitem(last=False)
        self._forget(ticket, packet)
        return packet

    def _start_pump(self) -> None:
        if self._pump is None and self.sink is not None:
            self._pump = asyncio.create_task(self._run(self.sink))

    async def _run(self, sink: Sink) -> None:
        try:
            while self._packets:
                packet = self._pop()
                try:
                    if packet is None:
                        await sink.close()
                        continue
                    await sink.send(packet.encode())
                finally:
                    self.task_done()
        except TimeoutError:
            self.cut()
        except Exception as exc:
            # ASGI servers raise different exceptions for a closed connection. The connection's
            # reader notices the end too.
            logger.debug("discarded the queued packets of a closed connection: %r", exc)
            self.discard()
        finally:
            self._pump = None

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


def _size(packet: Any) -> int:
    data = None if packet is None else packet.data
    return len(data) if isinstance(data, str | bytes) else 0
