"""What comes in on a WebSocket under uvicorn: in slices, one a turn of the event loop.

uvicorn parses all that one read of the socket brings, up to 256 KiB, before anything else runs.
In frames of a few bytes that is half a second for every other connection.

This is an adapter: it stands between the transport and uvicorn's protocol. asyncio's
``set_protocol`` is public; of uvicorn's protocol it uses ``read_paused``, ``transport`` and
``logger``.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final, Protocol

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from jobcast.realtime.budget import CLOSE_AFTER, TokenBucket
from jobcast.realtime.stall import StallTimer

SLICE: Final = 1024  # bytes that are parsed in one turn of the loop
MESSAGE_BYTES: Final = 1024  # that an average message may have

logger = logging.getLogger(__name__)


class Reader(Protocol):
    """Whoever reads the messages of the connection."""

    def writing_paused(self) -> None:
        """The client does not read; nothing of what it sends is read either."""

    def writing_resumed(self) -> None:
        """The client reads again."""

    def cut(self, problem: str) -> None:
        """The connection has to be closed at once."""


class QuietLogger(logging.LoggerAdapter):  # type: ignore[type-arg]
    """uvicorn's logger, without a traceback for each client that sends what is no UTF-8."""

    @property
    def level(self) -> int:
        """uvicorn reads it."""
        return int(self.logger.level)

    def exception(self, msg: object, *args: object, **kwargs: Any) -> None:
        if str(msg).startswith("Invalid UTF-8"):
            self.debug(msg, *args)
        else:
            super().exception(msg, *args, **kwargs)


class InboundGate(asyncio.Protocol):
    """Lets bytes in to uvicorn's WebSocket protocol while the connection is within its limits.

    Nothing is let in while a message that came before has not been read, while the client does not
    read what is written to it, and while the client is above its budget of bytes. The transport
    reads no more then, so that all of it waits at the client.

    Args:
        protocol: uvicorn's.
        reader: is told of pauses, and cuts the connection.
        message_rate: messages a second, as which bytes are counted.
        burst: bytes that may come at once.
        send_timeout: seconds without a byte written, after which the connection is cut.
    """

    def __init__(
        self,
        protocol: WebSocketsSansIOProtocol,
        reader: Reader,
        *,
        message_rate: float,
        burst: float,
        send_timeout: float,
    ) -> None:
        self._protocol = protocol
        self._transport = protocol.transport
        self._reader = reader
        self._bucket = TokenBucket(message_rate * MESSAGE_BYTES, burst)
        self._stall = StallTimer(send_timeout, self._stalled)
        self._waiting = bytearray()
        self._pump: asyncio.Handle | None = None
        self.is_writable = True
        self._owing_since: float | None = None

    @classmethod
    def install(
        cls, protocol: WebSocketsSansIOProtocol, reader: Reader, **limits: float
    ) -> InboundGate:
        """Put a gate before the protocol of a connection that is open."""
        gate = cls(protocol, reader, **limits)
        protocol.logger = QuietLogger(protocol.logger)  # type: ignore[assignment]
        protocol.transport.set_protocol(gate)
        return gate

    def message_read(self) -> None:
        """Go on, after a message was read: uvicorn lets the transport read by itself."""
        if self._waiting and not self._transport.is_closing():
            self._transport.pause_reading()
            self._schedule()

    def data_received(self, data: bytes) -> None:
        if not self._waiting and len(data) <= SLICE and self._is_open and not self._bucket.delay:
            self._let_in(data)
            return
        self._waiting += data
        self._transport.pause_reading()
        self._schedule()

    def eof_received(self) -> None:
        self._protocol.eof_received()

    def pause_writing(self) -> None:
        self.is_writable = False
        self._stall.start(self._transport)
        self._protocol.pause_writing()
        self._reader.writing_paused()

    def resume_writing(self) -> None:
        self.is_writable = True
        self._stall.stop()
        self._protocol.resume_writing()
        self._reader.writing_resumed()
        if self._waiting:
            self._schedule()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stall.forget()
        if self._pump is not None:
            self._pump.cancel()
        self._waiting.clear()
        self._protocol.connection_lost(exc)
        del self._reader  # which has the gate: no collection need find the cycle

    @property
    def _is_open(self) -> bool:
        return self.is_writable and not self._protocol.read_paused

    def _schedule(self, delay: float = 0.0) -> None:
        if self._pump is None:
            loop = asyncio.get_running_loop()
            self._pump = loop.call_later(delay, self._run) if delay else loop.call_soon(self._run)

    def _run(self) -> None:
        self._pump = None
        if self._transport.is_closing() or not self._is_open:
            return  # called again when that changes
        delay = self._bucket.delay
        if delay:
            self._wait(delay)
            return
        chunk = bytes(self._waiting[:SLICE])
        del self._waiting[:SLICE]
        self._let_in(chunk)
        if self._transport.is_closing():
            return
        if self._waiting:
            self._schedule()
        elif not self._protocol.read_paused:
            self._transport.resume_reading()

    def _let_in(self, data: bytes) -> None:
        self._bucket.take(len(data))
        if self._owing_since is not None and self._bucket.level > self._bucket.capacity / 2:
            self._owing_since = None
        try:
            self._protocol.data_received(data)
        except Exception as exc:
            # websockets and uvicorn assert what a client can break after the closing handshake.
            logger.debug("what a client sent cannot be parsed: %r", exc)
            self._reader.cut("what it sends cannot be parsed")

    def _wait(self, delay: float) -> None:
        now = asyncio.get_running_loop().time()
        if self._owing_since is None:
            self._owing_since = now
        if now - self._owing_since > CLOSE_AFTER:
            self._reader.cut("it sends too many bytes (JOBCAST_MESSAGE_RATE)")
        else:
            self._schedule(delay)

    def _stalled(self) -> None:
        self._reader.cut("it does not read what it is sent (JOBCAST_SEND_TIMEOUT)")
