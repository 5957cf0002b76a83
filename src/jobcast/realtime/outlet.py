"""From a room to one socket."""

from __future__ import annotations

from typing import Any, Protocol

from engineio.packet import MESSAGE, Packet


class Outlet(Protocol):
    """Where a follower's packets go. ``send`` never waits, so that no follower delays another."""

    sid: str

    @property
    def closed(self) -> bool:
        """Whether nothing can be sent any more."""

    def send(self, packet: str) -> None:
        """Send a ready Socket.IO packet (``42[...]``)."""


class EngineOutlet:
    """python-engineio's own queue and writer: for every transport and every ASGI server."""

    def __init__(self, sid: str, socket: Any, namespace: str) -> None:
        self.sid = sid
        self._socket = socket
        self._type = "2" if namespace == "/" else f"2{namespace},"

    @property
    def closed(self) -> bool:
        return bool(self._socket.closed or self._socket.closing)

    def send(self, packet: str) -> None:
        if not self.closed:
            # The first two characters are the packet types of Engine.IO and Socket.IO.
            self._socket.queue.put_nowait(Packet(MESSAGE, self._type + packet[2:]))
