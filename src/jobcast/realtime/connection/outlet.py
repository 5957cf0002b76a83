"""From a room to one socket."""

from __future__ import annotations

from typing import Any, Protocol

from jobcast.realtime.connection.frames import FrameBatch
from jobcast.realtime.connection.outbox import Outbox


class Outlet(Protocol):
    """Where a follower's packets go. Sending never waits, so that no follower delays another."""

    sid: str

    @property
    def closed(self) -> bool:
        """Whether nothing can be sent any more."""

    def send(self, batch: FrameBatch) -> None:
        """Send packets of live events."""

    def send_history(self, batch: FrameBatch) -> None:
        """Send what a history has, which may be more than is allowed to wait otherwise."""

    async def drained(self) -> None:
        """Wait until a history may be sent."""


class EngineOutlet:
    """To an Engine.IO connection.

    What can be written at once is, past python-engineio; everything else waits in the outbox,
    which serves every transport and every ASGI server.
    """

    __slots__ = ("_outbox", "_shut", "_socket", "history", "sid")

    def __init__(self, sid: str, socket: Any, outbox: Outbox) -> None:
        self.sid = sid
        self.history = 0  # characters of history that were sent
        self._socket = socket
        self._outbox = outbox
        self._shut = False

    @property
    def closed(self) -> bool:
        return bool(
            self._shut or self._socket.closed or self._socket.closing or self._outbox.overflowed
        )

    def shut(self) -> None:
        """Send nothing more, although the connection is still to be closed."""
        self._shut = True

    def send(self, batch: FrameBatch) -> None:
        if self._shut:
            return
        if not (self._outbox.write(batch.frames) or self.closed):
            for packet, value in zip(batch.packets, batch.values, strict=True):
                self._outbox.offer(packet, value)

    def send_history(self, batch: FrameBatch) -> None:
        if self._shut:
            return
        self.history += batch.size
        if not (self._outbox.write(batch.frames) or self.closed):
            self._outbox.offer_history(batch.packets)

    async def drained(self) -> None:
        await self._outbox.drained()
