"""The queue of outgoing packets of one Engine.IO connection."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Protocol

from engineio.packet import PING, Packet

from jobcast.aio import cancel_and_wait
from jobcast.realtime.connection.frames import FrameBatch, frame
from jobcast.realtime.connection.send_queue import DEFAULT_LIMIT, SendMemory, SendQueue

CHUNK: Final = 64 * 1024  # characters that the writer takes at once, which cannot be conflated
MAX_PACKETS: Final = 16  # packets that it takes at once: Python's client reads no more per poll

logger = logging.getLogger(__name__)


class Sink(Protocol):
    """The destination of an outbox's packets: a WebSocket."""

    @property
    def is_writable(self) -> bool:
        """Whether frames can be written immediately."""

    def write(self, frames: bytes) -> bool:
        """Write frames immediately. Return False if the sink is not writable."""

    async def send(self, data: str | bytes) -> None:
        """Write a message as soon as the client reads.

        Raises:
            TimeoutError: the client does not read.
        """

    async def close(self) -> None:
        """Close the WebSocket with a closing handshake."""

    def abort(self) -> None:
        """Close the WebSocket immediately."""


def unattached(pending: int) -> None:
    """Raise an error, because an outbox without a connection has grown too long."""
    raise RuntimeError(
        f"{pending} characters wait in an outbox without a connection: set its on_overflow first"
    )


class Outbox(SendQueue[Packet | None]):
    """A bounded queue for an Engine.IO socket, in place of python-engineio's unbounded one.

    A long poll takes the queued packets. For a WebSocket, packets are written immediately if
    possible. They are queued, and written by a task, only if they have to wait.

    The class implements the methods of :class:`asyncio.Queue` that python-engineio calls, and takes
    a quarter of its memory.

    Args:
        on_overflow: closes the connection; called once, with the number of queued characters. It
            has to be set as soon as the connection is known.
        limit: the maximum number of queued characters.
        memory: the memory limit for all connections.
    """

    __slots__ = (
        "_arrived", "_corked", "_pump", "_settled", "_taken", "_taken_packets", "_unfinished",
        "on_overflow", "sink",
    )  # fmt: skip

    def __init__(
        self,
        on_overflow: Callable[[int], None] = unattached,
        limit: int = DEFAULT_LIMIT,
        *,
        memory: SendMemory | None = None,
    ) -> None:
        super().__init__(limit, memory)
        self.on_overflow = on_overflow
        self._taken = 0  # characters taken since the writer last waited
        self._taken_packets = 0
        self._unfinished = 0
        self._pump: asyncio.Task[None] | None = None  # writes queued packets to the sink
        self._corked: list[bytes] | None = None  # frames of this iteration of the event loop
        # Created on demand: they are rarely needed, and an event is larger than all other state.
        self._arrived: asyncio.Event | None = None
        self._settled: asyncio.Event | None = None
        self.sink: Sink | None = None

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
        if self._pump is not None or self.sink is None:
            return False
        if self._corked is not None:
            self._corked.append(frames)
            return True
        return self.sink.write(frames)

    def cork(self) -> None:
        """Write the frames of this iteration of the event loop at its end, in one system call.

        Call it before a packet that another one directly follows.
        """
        if self._corked is None and self.sink is not None and self.sink.is_writable:
            self._corked = []
            asyncio.get_running_loop().call_soon(self._uncork)

    def _uncork(self) -> None:
        frames, self._corked = self._corked, None
        if frames and self.sink is not None and not self.sink.write(b"".join(frames)):
            # The connection has closed or is full. A client that reconnects misses no event.
            self.sink.abort()

    def offer_batch(self, batch: FrameBatch) -> None:
        """Queue a batch of live events."""
        for packet, value in zip(batch.packets, batch.values, strict=True):
            self.offer(packet, value)

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
        self._taken += self._size(packet)
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
        super()._add(packet)
        self._unfinished += 1
        if packet is not None and packet.packet_type == PING:
            # Behind a long queue, the ping would time out although the client still reads.
            self._packets.move_to_end(self._ticket, last=False)
        if self._arrived is not None:
            self._arrived.set()
        self._start_pump()

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

    def _overflow(self, pending: int) -> None:
        self.on_overflow(pending)

    def _dropped(self) -> None:
        self.task_done()

    def _size(self, packet: Packet | None) -> int:
        data = None if packet is None else packet.data
        return len(data) if isinstance(data, str | bytes) else 0
