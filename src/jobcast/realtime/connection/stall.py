"""Connections that take no byte of what is written to them."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Final

CLOSE_TIMEOUT: Final = 5.0  # seconds that a client may take to close what was closed to it

# Not to linger: the kernel forgets what it has not sent, and resets the connection.
_NO_LINGER: Final = struct.pack("ii", 1, 0)


def reset(transport: asyncio.Transport) -> None:
    """Close a connection at once, and what the kernel keeps for it.

    After an ordinary close the kernel keeps up to some megabytes for a client that does not read,
    and offers them to it for minutes.
    """
    connection = transport.get_extra_info("socket")
    if connection is not None:
        with suppress(OSError):  # it is closed already
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    transport.abort()


class StallTimer:
    """Notices that a transport whose buffer is full takes nothing for a while.

    A slow reader is no reason to cut a connection; one that has stopped reading is.

    Args:
        timeout: seconds without a byte.
        on_stall: is called once when they are over.
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
        """Stop for good, and hold nothing of the connection any more."""
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
