"""What waits to be written to one connection: bounded, in order, with nothing stale in it."""

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

DEFAULT_LIMIT: Final = 1024 * 1024  # characters that may wait for one connection
CHUNK: Final = 64 * 1024  # characters that the writer takes at once, and cannot give back
PAYLOAD: Final = 16  # packets that it takes at once: in a long poll, Python's client reads no more

logger = logging.getLogger(__name__)


class Sink(Protocol):
    """Where packets go when they do not have to wait: a WebSocket."""

    def write(self, frames: bytes) -> bool:
        """Write frames at once. Returns False where that cannot be done, or not now."""

    async def send(self, data: str | bytes) -> None:
        """Write a message when there is room for it.

        Raises:
            TimeoutError: the client does not read.
        """

    async def close(self) -> None:
        """Close it in order."""

    def abort(self) -> None:
        """Close it at once."""


class SendMemory:
    """What waits for all connections of a process, with a bound.

    Past it the connection that the most waits for is cut: a client that reads has little waiting.

    Args:
        limit: characters.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: dict[Outbox, int] = {}
        self._total = 0
        self._cutting = False

    def update(self, outbox: Outbox) -> None:
        """Take notice of what waits for one connection."""
        size = outbox.pending
        self._total += size - self._waiting.get(outbox, 0)
        if size:
            self._waiting[outbox] = size
        else:
            self._waiting.pop(outbox, None)
        if self._total <= self._limit or self._cutting:
            return  # what a cut connection forgets comes here too
        self._cutting = True
        try:
            while self._total > self._limit and len(self._waiting) > 1:
                max(self._waiting, key=self._waiting.__getitem__).cut()
        finally:
            self._cutting = False


class Outbox:
    """A queue for an Engine.IO socket, in the place of its own, which has no bound.

    A progress that was not written yet is replaced by a newer one of its job. What is still too
    much closes the connection: the client comes back with a cursor and reads what it has missed
    from the history. A history is taken as a whole, so that one that is larger than the limit can
    be read at all.

    A long poll takes from it what there is. For a WebSocket it is a queue only while something has
    to wait: what can be written is written at once, and there is a task only for what cannot.

    It has those methods of :class:`asyncio.Queue` that python-engineio calls, and is a quarter of
    its size.

    Args:
        on_overflow: closes the connection; is called once.
        limit: characters that may wait.
        memory: what waits for all connections.
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
        self._values: dict[str, int] = {}  # key of a value: the ticket of its latest
        self._keys: dict[int, str] = {}
        self._taken = 0  # characters since the writer waited last
        self._taken_packets = 0
        self._unfinished = 0
        self._pump: asyncio.Task[None] | None = None  # brings what waits to the sink
        # Of these there are seldom any; each is larger than all else.
        self._arrived: asyncio.Event | None = None
        self._settled: asyncio.Event | None = None
        self._low: asyncio.Event | None = None
        self.sink: Sink | None = None
        self.pending = 0  # characters
        self.overflowed = False

    def attach(self, sink: Sink) -> None:
        """Send by a WebSocket from now on, beginning with what waits."""
        self.sink = sink
        waiting = [packet for packet in self._packets.values() if packet is not None]
        if len(waiting) == len(self._packets) and self.write(
            b"".join([frame(packet.encode()) for packet in waiting])
        ):
            self.discard()
        else:
            self._start_pump()

    async def detach(self) -> None:
        """Let go of the WebSocket, which is gone."""
        self.discard()
        if self._pump is not None:
            await cancel_and_wait(self._pump)
        self.sink = None

    def write(self, frames: bytes) -> bool:
        """Write frames at once, if that does not overtake anything.

        Returns:
            Whether it was done; what was not has to be offered.
        """
        return self._pump is None and self.sink is not None and self.sink.write(frames)

    def offer_batch(self, batch: FrameBatch) -> None:
        """Add packets of live events."""
        for packet, value in zip(batch.packets, batch.values, strict=True):
            self.offer(packet, value)

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
            self.cut()
            return
        self._add(packet)
        if replaces is not None:
            self._values[replaces] = self._ticket
            self._keys[self._ticket] = replaces

    def offer_history(self, packets: Sequence[Packet]) -> None:
        """Add what a job's history has for the connection, all of it."""
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
        """Whether :meth:`drained` would not wait."""
        return self._low is None

    async def drained(self) -> None:
        """Wait until so little is left that another history may be added."""
        if self._low is not None:
            await self._low.wait()

    def cut(self) -> None:
        """Close the connection, for which too much waits."""
        self.overflowed = True
        pending = self.pending
        self.discard()
        metrics.SLOW.inc()
        self._on_overflow(pending)

    def discard(self) -> None:
        """Forget what waits: the connection is gone."""
        while self._packets:
            self._pop()
            self.task_done()

    def put_nowait(self, packet: Packet | None) -> None:
        """Add a packet of python-socketio's own; None closes the connection after all others."""
        # A packet keeps its first encoding, which long-polling cannot use.
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
        if not self._packets or self._taken >= CHUNK or self._taken_packets >= PAYLOAD:
            # What is left here may still be conflated; what the writer holds may not.
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
            # Behind much data, it would make a slow client look like one that is gone.
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
            # Servers have no common word for a connection that is gone; its reader has it too.
            logger.debug("what waited could not be sent: %r", exc)
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
