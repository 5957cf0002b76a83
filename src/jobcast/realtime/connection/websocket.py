"""The handler of one WebSocket, which replaces python-engineio's.

python-engineio's handler runs three tasks per connection, and another one with a timer for each
packet that it waits for. This handler runs only in the task that the ASGI server created.

This module is also the only one that bypasses ASGI. Under uvicorn, whose protocol is reachable
through ``receive``, it writes encoded frames directly to the transport. Under other servers it uses
``send``.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from engineio.exceptions import SocketIsClosedError, UnknownPacketError
from engineio.packet import NOOP, PING, PONG, UPGRADE, Packet
from starlette.types import Message, Receive, Scope, Send

from jobcast.realtime import metrics
from jobcast.realtime.connection.budget import Budget, BudgetExceeded
from jobcast.realtime.connection.deadlines import Deadlines
from jobcast.realtime.connection.inbound import InboundGate
from jobcast.realtime.connection.outbox import Outbox
from jobcast.realtime.connection.stall import CLOSE_TIMEOUT, reset
from jobcast.settings import Settings

if TYPE_CHECKING:
    from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

UVICORN_PROTOCOL: Final = "uvicorn.protocols.websockets.websockets_sansio_impl"
UPGRADE_TIMEOUT: Final = 5.0  # seconds for a client to upgrade to a WebSocket
MIN_SEND_RATE: Final = 1024  # characters per second that a client must read

logger = logging.getLogger(__name__)


class BinaryFrame(ValueError):
    """A client sent a binary frame. jobcast's protocol has no binary messages."""


class WebSocket:
    """The handler that python-engineio calls for each WebSocket.

    Args:
        socket: the Engine.IO connection.
        server: the Engine.IO server.
        budget: the connection's budget.
        pings: when to send the next ping to each client, by :meth:`send_ping`.
        settings: the limits.
        binary: whether the client may send binary frames.
    """

    __slots__ = (
        "_aborted", "_binary", "_budget", "_eio", "_gate", "_gone", "_pings", "_protocol",
        "_receive", "_send", "_settings", "_socket", "_task", "_timeout",
    )  # fmt: skip

    def __init__(
        self,
        socket: Any,
        server: Any,
        *,
        budget: Budget,
        pings: Deadlines[WebSocket],
        settings: Settings,
        binary: bool,
    ) -> None:
        self._socket = socket
        self._eio = server
        self._budget = budget
        self._settings = settings
        self._binary = binary
        self._gate: InboundGate | None = None
        self._pings = pings
        self._timeout: asyncio.TimerHandle | None = None
        self._aborted = self._gone = False

    async def __call__(self, environ: dict[str, Any]) -> str:
        self._receive: Receive = environ["asgi.receive"]
        self._send: Send = environ["asgi.send"]
        self._protocol = protocol_of(self._receive)
        self._task = asyncio.current_task()
        await self._send({"type": "websocket.accept"})
        self._install_gate()
        try:
            if not self._socket.connected:
                self._socket.connected = self._socket.upgraded = True
            elif not await self._upgrade():
                await self.close()
                return ""
            await self._serve()
        except asyncio.CancelledError:
            if not self._aborted or self._task is None:
                raise
            self._task.uncancel()
        finally:
            # The server's protocol references this object. A reference cycle would keep both alive
            # until the next full garbage collection.
            self._gone = True
            self._protocol = self._gate = self._task = None
        return ""

    @property
    def is_writable(self) -> bool:
        """Whether frames can be written immediately."""
        protocol = self._protocol
        if protocol is None or self._gone or not protocol.writable.is_set():
            return False
        return not protocol.transport.is_closing()

    def write(self, frames: bytes) -> bool:
        """Write frames immediately. Return False if the caller has to use ``send``.

        uvicorn passes each of its own frames to the transport in one call, so these frames never
        split another one.
        """
        if self._protocol is None or not self.is_writable:
            return False
        self._protocol.transport.write(frames)
        return True

    async def send(self, data: str | bytes) -> None:
        """Send a message as soon as the client reads.

        Raises:
            TimeoutError: the client does not read.
        """
        key = "text" if isinstance(data, str) else "bytes"
        message = {"type": "websocket.send", key: data}
        if self._gate is not None:  # the gate detects a client that does not read
            await self._send(message)
            return
        async with asyncio.timeout(self._settings.send_timeout + len(data) / MIN_SEND_RATE):
            await self._send(message)

    async def close(self) -> None:
        if self._gone:
            return
        self._gone = True
        try:
            await self._send({"type": "websocket.close"})
        except Exception as exc:
            # ASGI servers raise different exceptions for a closed connection.
            logger.debug("%s is already closed: %r", self._socket.sid, exc)
        if self._gate is not None:
            self._gate.end()

    def writing_paused(self) -> None:
        """Stop the ping timeout: the answer waits behind data that is not read now."""
        self._socket.last_ping = None
        self._pings.stop(self)

    def writing_resumed(self) -> None:
        self._schedule_ping()

    def cut(self, problem: str) -> None:
        """Log that the connection is reset, with the reason."""
        logger.info("cut %s: %s", self._socket.sid, problem)
        metrics.CUT.inc()

    def abort(self) -> None:
        """Reset the connection, and discard unsent data."""
        if self._protocol is not None:
            reset(self._protocol.transport)
        else:
            self._cancel()

    def _abort_transport(self) -> None:
        """Close the connection, but let the client read a close packet that is already sent."""
        if self._protocol is not None:
            self._protocol.transport.abort()
        else:
            self._cancel()

    def _cancel(self) -> None:
        if self._task is not None and not self._aborted:
            self._aborted = True
            self._task.cancel()

    def expect_end(self) -> None:
        """Close the connection after a timeout, unless the client closes it first."""
        if self._timeout is None:
            loop = asyncio.get_running_loop()
            self._timeout = loop.call_later(CLOSE_TIMEOUT, self._abort_transport)

    async def _serve(self) -> None:
        socket = self._socket
        outbox: Outbox = socket.queue
        outbox.attach(self)
        self._schedule_ping()
        try:
            while (packet := await self._read()) is not None:
                await self._budget.admit()
                if socket.closed:
                    continue  # the packet arrived after the connection was closed
                if packet.packet_type == PONG:
                    self._schedule_ping()
                else:
                    await socket.receive(packet)
                await self._wait_for_capacity(outbox)
        except (
            UnknownPacketError, SocketIsClosedError, ValueError, IndexError, RecursionError,
            BudgetExceeded,
        ) as exc:  # fmt: skip
            logger.info("closed %s: %.200s", socket.sid, exc or type(exc).__name__)
            await self.close()
        finally:
            await socket.close(wait=False, abort=True, reason=self._eio.reason.TRANSPORT_CLOSE)
            await outbox.detach()
            self._pings.stop(self)
            if self._timeout is not None:
                self._timeout.cancel()

    async def _wait_for_capacity(self, outbox: Outbox) -> None:
        """Yield to other connections, then wait until the answers to this one have capacity."""
        if self._has_more:
            await asyncio.sleep(0)
        if outbox.is_low and self._budget.has_capacity:
            return
        self.writing_paused()
        await outbox.drained()
        await self._budget.wait_for_capacity()
        self.writing_resumed()

    @property
    def _has_more(self) -> bool:
        """Whether the next message may be read without waiting for it."""
        return self._protocol is None or not self._protocol.queue.empty()

    def _install_gate(self) -> None:
        protocol = self._protocol or uvicorn_protocol(self._receive)
        if protocol is not None and not protocol.transport.is_closing():
            self._gate = InboundGate.install(
                protocol, self, self._budget, send_timeout=self._settings.send_timeout
            )

    async def _upgrade(self) -> bool:
        """Upgrade from long-polling, as the Engine.IO protocol defines it.

        Return whether the client completed the upgrade.
        """
        socket = self._socket
        socket.upgrading = True  # from here on, polls get an empty answer
        try:
            async with asyncio.timeout(UPGRADE_TIMEOUT):
                probe = await self._read()
                if probe is None or (probe.packet_type, probe.data) != (PING, "probe"):
                    return False
                if not await self._send_packet(Packet(PONG, "probe")):
                    return False
                socket.queue.put_nowait(Packet(NOOP))  # ends the pending poll
                packet = await self._read()
            socket.upgraded = packet is not None and packet.packet_type == UPGRADE
        except (ValueError, TimeoutError) as exc:
            logger.info(
                "could not upgrade %s to a WebSocket (%.200r); long-polling continues",
                socket.sid, exc,
            )  # fmt: skip
        finally:
            socket.upgrading = False
        return bool(socket.upgraded)

    async def _send_packet(self, packet: Packet) -> bool:
        """Send a packet. Return False if the connection has closed."""
        try:
            await self.send(packet.encode())
        except Exception as exc:
            # ASGI servers raise different exceptions for a closed connection.
            logger.debug("%s is already closed: %r", self._socket.sid, exc)
            return False
        return True

    async def _read(self) -> Packet | None:
        """Return the next packet, or None if the connection has closed.

        Raises:
            ValueError: the message is too large or is not an Engine.IO packet.
        """
        message: Message = await self._receive()
        if self._gate is not None:
            self._gate.message_read()
        if message["type"] != "websocket.receive":
            self._gone = True
            return None
        data = message.get("text")
        if data is None:
            if not self._binary:
                raise BinaryFrame("the client sent a binary frame")
            data = message["bytes"]
        if len(data) > self._eio.max_http_buffer_size:
            raise ValueError(
                f"the client sent a message of more than {self._eio.max_http_buffer_size} bytes"
            )
        return Packet(encoded_packet=data)

    def _schedule_ping(self) -> None:
        self._socket.last_ping = None  # no ping is unanswered
        if self._socket.closed:
            self._pings.stop(self)
        else:
            self._pings.start(self)

    def send_ping(self) -> None:
        """Send a ping, unless the connection closes or its client does not read now."""
        paused = self._gate is not None and not self._gate.is_writable
        if not (self._socket.closing or self._socket.closed or paused):
            # With this timestamp, python-engineio closes the connection if no answer arrives.
            self._socket.last_ping = time.time()
            self._socket.queue.put_nowait(Packet(PING))


class Body:
    """The body of a request that was read completely, with the interface of a stream."""

    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def read(self, length: int | None = None) -> bytes:
        data = self._data if length is None else self._data[:length]
        self._data = self._data[len(data) :]
        return data


async def translate_request(scope: Scope, receive: Receive, send: Send) -> dict[str, Any]:
    """Return the WSGI-like environment of a request.

    python-engineio's own function creates a class per request. A WebSocket keeps its environment
    in memory until it closes.
    """
    message = await receive()
    query = scope["query_string"].decode("latin-1")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": scope.get("method", "GET"),
        "PATH_INFO": scope["path"],
        "QUERY_STRING": query,
        "RAW_URI": f"{scope['path']}?{query}" if query else scope["path"],
        "SCRIPT_NAME": "",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "asgi.receive": receive,
        "asgi.send": send,
        "asgi.scope": scope,
    }
    if scope["type"] == "http":
        environ["wsgi.input"] = Body(message.get("body", b""))
    for name, value in scope["headers"]:
        key, text = _environ_key(name), value.decode("latin-1")
        environ[key] = f"{environ[key]},{text}" if key in environ else text
    environ["wsgi.url_scheme"] = environ.get("HTTP_X_FORWARDED_PROTO", "http")
    return environ


@lru_cache(maxsize=256)
def _environ_key(name: bytes) -> str:
    return f"HTTP_{name.decode('latin-1').upper().replace('-', '_')}"


def uvicorn_protocol(receive: Receive) -> WebSocketsSansIOProtocol | None:
    """Return uvicorn's protocol behind ``receive``, or None under another ASGI server.

    The function does not import uvicorn: if uvicorn's module is not loaded, uvicorn is not the
    server.
    """
    module = sys.modules.get(UVICORN_PROTOCOL)
    if module is None:
        return None
    kind: type[WebSocketsSansIOProtocol] = module.WebSocketsSansIOProtocol
    protocol = getattr(receive, "__self__", None)
    return protocol if isinstance(protocol, kind) else None


def protocol_of(receive: Receive) -> WebSocketsSansIOProtocol | None:
    """Return uvicorn's protocol behind ``receive`` if frames may bypass it, or None."""
    protocol = uvicorn_protocol(receive)
    return None if protocol is None or protocol.conn.extensions else protocol
