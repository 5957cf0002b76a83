"""From a room to one socket."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from engineio.packet import MESSAGE, Packet

from jobcast.realtime.backlog import Backlog


class Outlet(Protocol):
    """Where a follower's packets go. Sending never waits, so that no follower delays another."""

    sid: str

    @property
    def closed(self) -> bool:
        """Whether nothing can be sent any more."""

    def send(self, packet: str, replaces: str | None = None) -> None:
        """Send a ready Socket.IO packet (``42[...]``).

        Args:
            packet: what to send.
            replaces: names a value that this is the newest of: an older one that was not sent yet
                need not be.
        """

    def send_history(self, packets: Sequence[str]) -> None:
        """Send what a history has, which may be more than is allowed to wait otherwise."""

    async def drained(self) -> None:
        """Wait until a history may be sent."""


class EngineOutlet:
    """By python-engineio's writer: for every transport and every ASGI server."""

    def __init__(self, sid: str, socket: Any, backlog: Backlog, namespace: str) -> None:
        self.sid = sid
        self._socket = socket
        self._backlog = backlog
        self._type = "2" if namespace == "/" else f"2{namespace},"

    @property
    def closed(self) -> bool:
        return bool(self._socket.closed or self._socket.closing or self._backlog.overflowed)

    def send(self, packet: str, replaces: str | None = None) -> None:
        if not self.closed:
            self._backlog.offer(self._framed(packet), replaces)

    def send_history(self, packets: Sequence[str]) -> None:
        if not self.closed:
            self._backlog.offer_history([self._framed(packet) for packet in packets])

    async def drained(self) -> None:
        await self._backlog.drained()

    def _framed(self, packet: str) -> Packet:
        # The first two characters are the packet types of Engine.IO and Socket.IO.
        return Packet(MESSAGE, self._type + packet[2:])
