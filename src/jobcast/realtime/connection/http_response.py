"""The response to one HTTP request, as a stream of bytes to a client that may stop reading.

This module is an adapter: under uvicorn it reaches the transport behind ``receive``.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, cast

from starlette.types import Message, Receive, Send

from jobcast.realtime.connection.screening import Disconnected
from jobcast.realtime.connection.stall import reset

MIN_SEND_RATE: Final = 1024  # bytes per second that a client must read
TCP_USER_TIMEOUT: Final = getattr(socket, "TCP_USER_TIMEOUT", None)  # None: not on this system

logger = logging.getLogger(__name__)


class HttpResponse:
    """A streamed response.

    Args:
        receive: the ASGI ``receive`` callable of a request whose body has been read.
        send: the ASGI ``send`` callable.
        send_timeout: seconds for which the client may accept no byte.
    """

    def __init__(self, receive: Receive, send: Send, send_timeout: float) -> None:
        self._receive = receive
        self._send = send
        self._send_timeout = send_timeout
        self._writing: asyncio.Timeout | None = None  # of the write that waits

    async def start(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Send the head of the response.

        Raises:
            Disconnected: the client has disconnected.
            TimeoutError: the client does not read the response before it.
        """
        self._limit_unacknowledged()
        await self._pass({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, data: bytes) -> None:
        """Send bytes as soon as the client reads.

        Raises:
            Disconnected: the client has disconnected.
            TimeoutError: the client does not read.
        """
        transport = self._transport()
        if transport is not None and transport.is_closing():
            # uvicorn does not report it if another request has followed on the connection.
            raise Disconnected
        message = {"type": "http.response.body", "body": data, "more_body": True}
        await self._pass(message, len(data) / MIN_SEND_RATE)

    async def finish(self) -> None:
        """Send the end of the response.

        Raises:
            Disconnected: the client has disconnected.
            TimeoutError: the client does not read.
        """
        await self._pass({"type": "http.response.body", "body": b"", "more_body": False})

    async def _pass(self, message: Message, extra: float = 0.0) -> None:
        """Pass a message to the server, within the timeout and ``extra`` seconds."""
        try:
            async with asyncio.timeout(self._send_timeout + extra) as self._writing:
                await self._send(message)
        except TimeoutError:
            raise
        except Exception as exc:
            # ASGI servers raise different exceptions for a closed connection.
            raise Disconnected from exc
        finally:
            self._writing = None

    def abort(self) -> None:
        """Reset the connection, and discard unsent data.

        Under servers other than uvicorn a write that waits ends with ``TimeoutError``, and the
        response ends incompletely when its handler returns.
        """
        cycle, transport = self._cycle, self._transport()
        if cycle is not None and transport is not None:
            cycle.disconnected = True  # uvicorn then does not log an incomplete response
            reset(transport)
        elif self._writing is not None and not self._writing.expired():
            self._writing.reschedule(asyncio.get_running_loop().time())

    async def disconnected(self) -> None:
        """Wait until the client has disconnected, or the response is complete."""
        try:
            while (await self._receive())["type"] != "http.disconnect":
                pass
        except Exception as exc:
            # ASGI servers raise different exceptions for a closed connection.
            logger.debug("a client has disconnected: %r", exc)

    def _limit_unacknowledged(self) -> None:
        """Let the kernel close the connection of a client that has vanished.

        A stream with few events never fills the buffers. Without this, such a connection would
        last until TCP gives up, after a quarter of an hour.
        """
        transport = self._transport()
        if transport is None or transport.is_closing() or TCP_USER_TIMEOUT is None:
            return  # the socket of a closing connection may no longer have a file descriptor
        connection = transport.get_extra_info("socket")
        if connection is not None:
            with suppress(OSError):  # a unix socket, or a connection that has closed
                milliseconds = int(self._send_timeout * 1000)
                connection.setsockopt(socket.IPPROTO_TCP, TCP_USER_TIMEOUT, milliseconds)

    @property
    def _cycle(self) -> Any:
        """uvicorn's request behind ``receive``, or None under another server."""
        cycle = getattr(self._receive, "__self__", None)
        return cycle if type(cycle).__module__.startswith("uvicorn.") else None

    def _transport(self) -> asyncio.Transport | None:
        return cast("asyncio.Transport | None", getattr(self._cycle, "transport", None))
