"""Detection and reset of connections whose clients do not read."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Final

CLOSE_TIMEOUT: Final = 5.0  # seconds for a client to answer the server's close

# Without lingering, the kernel discards unsent data and resets the connection.
_NO_LINGER: Final = struct.pack("ii", 1, 0)


def reset(transport: asyncio.Transport) -> None:
    """Reset a connection, and discard the kernel's send buffer.

    After an ordinary close, the kernel would keep up to some megabytes for a client that does not
    read, and retry to send them for minutes.
    """
    connection = transport.get_extra_info("socket")
    if connection is not None:
        with suppress(OSError):  # the socket is already closed
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    transport.abort()


class StallTimer:
    """A timer that detects a transport with a full buffer and no progress.

    The timer tolerates a client that reads slowly, but not one that has stopped reading.

    Args:
        timeout: seconds without progress.
        on_stall: called once, after the timeout.
    """

    __slots__ = ("_on_stall", "_size", "_timeout", "_timer", "_transport")

    def __init__(self, timeout: float, on_stall: Callable[[], None]) -> None:
        self._timeout = timeout
        self._on_stall: Callable[[], None] | None = on_stall
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.WriteTransport | None = None

    def start(self, transport: asyncio.WriteTransport) -> None:
        """Watch a transport that has just paused writing."""
        self.stop()
        self._transport = transport
        self._size: int = transport.get_write_buffer_size()
        self._arm()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def forget(self) -> None:
        """Stop permanently, and drop all references to the connection."""
        self.stop()
        self._on_stall = self._transport = None

    def _arm(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._timeout, self._check)

    def _check(self) -> None:
        self._timer = None
        if self._transport is None or self._on_stall is None:
            return
        size = self._transport.get_write_buffer_size()
        if size < self._size:
            self._size = size
            self._arm()
        else:
            self._on_stall()
