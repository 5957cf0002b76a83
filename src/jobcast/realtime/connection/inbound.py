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
from typing import TYPE_CHECKING, Any, Final, Protocol

from jobcast.realtime.connection.budget import Budget
from jobcast.realtime.connection.stall import StallTimer, reset

if TYPE_CHECKING:
    from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

SLICE: Final = 1024  # bytes that are parsed in one turn of the loop
STRANGER_SLICE: Final = 256  # of a client that has not authenticated
CLOSING_BYTES: Final = 1024  # that are read after the server has closed: the client's own close
LINGER: Final = 1.0  # seconds that a client has to read why it is closed, while nothing is read

logger = logging.getLogger(__name__)


class Reader(Protocol):
    """Whoever reads the messages of the connection."""

    def writing_paused(self) -> None:
        """The client does not read; nothing of what it sends is read either."""

    def writing_resumed(self) -> None:
        """The client reads again."""

    def cut(self, problem: str) -> None:
        """The connection is about to be closed at once."""


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
        reader: is told of pauses, and of why the connection is cut.
        budget: the bytes that may come.
        send_timeout: seconds without a byte written, after which the connection is cut.
    """

    def __init__(
        self,
        protocol: WebSocketsSansIOProtocol,
        reader: Reader,
        budget: Budget,
        *,
        send_timeout: float,
    ) -> None:
        self._protocol = protocol
        self._transport = protocol.transport
        self._reader = reader
        self._budget = budget
        self._stall = StallTimer(send_timeout, self._stalled)
        self._waiting = bytearray()
        self._pump: asyncio.Handle | None = None
        self.is_writable = True
        self._owing_since: float | None = None
        self._ended = False
        self._left = CLOSING_BYTES  # that are read after that
        self._linger: asyncio.TimerHandle | None = None

    @classmethod
    def install(
        cls,
        protocol: WebSocketsSansIOProtocol,
        reader: Reader,
        budget: Budget,
        *,
        send_timeout: float,
    ) -> InboundGate:
        """Put a gate before the protocol of a connection that is open."""
        gate = cls(protocol, reader, budget, send_timeout=send_timeout)
        protocol.logger = QuietLogger(protocol.logger)  # type: ignore[assignment]
        protocol.transport.set_protocol(gate)
        return gate

    def message_read(self) -> None:
        """Go on, after a message was read: uvicorn lets the transport read by itself."""
        if self._waiting and not self._transport.is_closing():
            self._transport.pause_reading()
            self._schedule()

    def end(self) -> None:
        """The server has closed the connection: let in the client's own close, and little else."""
        if self._ended or self._transport.is_closing():
            return
        self._ended = True
        if self._pump is not None:
            self._pump.cancel()
        if self._waiting:
            waiting = bytes(self._waiting)
            self._waiting.clear()
            self._transport.resume_reading()
            self._let_in_at_end(waiting)

    def data_received(self, data: bytes) -> None:
        if self._ended:
            if self._linger is None:
                self._let_in_at_end(data)
            return
        fits = len(data) <= self._slice and not self._budget.bytes_in.delay
        if fits and self._is_open and not self._waiting:
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
        for handle in (self._pump, self._linger):
            if handle is not None:
                handle.cancel()
        self._waiting.clear()
        self._protocol.connection_lost(exc)
        del self._reader  # which has the gate: no collection need find the cycle

    @property
    def _is_open(self) -> bool:
        return self.is_writable and not self._protocol.read_paused

    @property
    def _slice(self) -> int:
        return STRANGER_SLICE if self._budget.is_stranger else SLICE

    def _schedule(self, delay: float = 0.0) -> None:
        if self._pump is None:
            loop = asyncio.get_running_loop()
            self._pump = loop.call_later(delay, self._run) if delay else loop.call_soon(self._run)

    def _run(self) -> None:
        self._pump = None
        if self._transport.is_closing() or not self._is_open:
            return  # called again when that changes
        delay = self._budget.bytes_in.delay
        if delay:
            self._wait(delay)
            return
        size = self._slice
        chunk = bytes(self._waiting[:size])
        del self._waiting[:size]
        self._let_in(chunk)
        if self._transport.is_closing() or self._ended:
            return
        if self._waiting:
            self._schedule()
        elif not self._protocol.read_paused:
            self._transport.resume_reading()

    def _let_in(self, data: bytes) -> None:
        bucket = self._budget.bytes_in
        bucket.take(len(data))
        if self._owing_since is not None and bucket.level > bucket.capacity / 2:
            self._owing_since = None
        try:
            self._protocol.data_received(data)
        except Exception as exc:
            # websockets and uvicorn assert what a client can break after the closing handshake.
            logger.debug("what a client sent cannot be parsed: %r", exc)
            self._cut("what it sends cannot be parsed")

    def _let_in_at_end(self, data: bytes) -> None:
        if len(data) <= self._left:
            self._left -= len(data)
            self._let_in(data)
        else:
            # A flood. What the client has yet to read would be lost if the connection were reset
            # now; and while it waits for that, it opens no other one.
            self._transport.pause_reading()
            loop = asyncio.get_running_loop()
            self._linger = loop.call_later(LINGER, reset, self._transport)

    def _cut(self, problem: str) -> None:
        self._reader.cut(problem)
        reset(self._transport)

    def _wait(self, delay: float) -> None:
        now = asyncio.get_running_loop().time()
        if self._owing_since is None:
            self._owing_since = now
        if now - self._owing_since > self._budget.close_after:
            self._cut("it sends too many bytes (JOBCAST_MESSAGE_RATE)")
        else:
            self._schedule(delay)

    def _stalled(self) -> None:
        self._cut("it does not read what it is sent (JOBCAST_SEND_TIMEOUT)")
