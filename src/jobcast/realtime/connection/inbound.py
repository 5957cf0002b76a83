"""Flow control for incoming WebSocket data under uvicorn: one slice per event loop iteration.

uvicorn parses all data of one socket read, up to 256 KiB, before anything else runs. With frames of
a few bytes, this blocks every other connection for half a second.

This module is an adapter between the transport and uvicorn's protocol. asyncio's ``set_protocol``
is public. The adapter uses ``read_paused``, ``transport`` and ``logger`` of uvicorn's protocol.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final, Protocol

from jobcast.realtime.connection.budget import Budget
from jobcast.realtime.connection.quiet_logger import QUIET_LOGGER
from jobcast.realtime.connection.stall import StallTimer, reset

if TYPE_CHECKING:
    from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

SLICE: Final = 1024  # bytes to parse per iteration of the event loop
RESTRICTED_SLICE: Final = 256  # the same, before the client has authenticated
CLOSING_BYTES: Final = 1024  # bytes to read after the server's close frame, for the client's own
LINGER: Final = 1.0  # seconds for a flooding client to read the close frame before the reset

logger = logging.getLogger(__name__)


class Reader(Protocol):
    """The reader of a connection's messages, with callbacks for flow control."""

    def writing_paused(self) -> None:
        """Handle that the client does not read; the gate stops reading from it meanwhile."""

    def writing_resumed(self) -> None:
        """Handle that the client reads again."""

    def cut(self, problem: str) -> None:
        """Handle that the gate is about to reset the connection.

        Args:
            problem: the reason, for the log.
        """


class InboundGate(asyncio.Protocol):
    """Gate that feeds received bytes to uvicorn's WebSocket protocol within the limits.

    The gate stops while the application has not read the previous message, while the client does
    not read, and while the client exceeds its budget of bytes. It then pauses the transport, so
    that further data waits at the client.

    Args:
        protocol: uvicorn's WebSocket protocol.
        reader: receives callbacks for pauses and for the reason of a reset.
        budget: the connection's budget of bytes.
        send_timeout: seconds without progress in writing after which the connection is cut.
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
        self._send_timeout = send_timeout
        self._stall: StallTimer | None = None  # created in the first pause: most clients read
        self._waiting = bytearray()
        self._pump: asyncio.Handle | None = None
        self.is_writable = True
        self._over_budget_since: float | None = None
        self._ended = False
        self._closing_bytes = CLOSING_BYTES  # bytes that may still be read after the end
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
        """Install a gate in front of the protocol of an open connection."""
        gate = cls(protocol, reader, budget, send_timeout=send_timeout)
        protocol.logger = QUIET_LOGGER  # type: ignore[assignment]
        protocol.transport.set_protocol(gate)
        return gate

    def message_read(self) -> None:
        """Continue after the application has read a message.

        uvicorn has just resumed the transport, so the gate pauses it again if data waits.
        """
        if self._waiting and not self._transport.is_closing():
            self._transport.pause_reading()
            self._schedule()

    def end(self) -> None:
        """Read only the client's close frame from now on: the server has sent its own."""
        if self._ended or self._transport.is_closing():
            return
        self._ended = True
        if self._pump is not None:
            self._pump.cancel()
        if self._waiting:
            waiting = bytes(self._waiting)
            self._waiting.clear()
            self._transport.resume_reading()
            self._feed_after_close(waiting)

    def data_received(self, data: bytes) -> None:
        if self._ended:
            if self._linger is None:
                self._feed_after_close(data)
            return
        fits = len(data) <= self._slice and not self._budget.bytes_in.delay
        if fits and self._is_open and not self._waiting:
            self._feed(data)
            return
        self._waiting += data
        self._transport.pause_reading()
        self._schedule()

    def eof_received(self) -> None:
        self._protocol.eof_received()

    def pause_writing(self) -> None:
        self.is_writable = False
        if self._stall is None:
            self._stall = StallTimer(self._send_timeout, self._stalled)
        self._stall.start(self._transport)
        self._protocol.pause_writing()
        self._reader.writing_paused()

    def resume_writing(self) -> None:
        self.is_writable = True
        if self._stall is not None:
            self._stall.stop()
        self._protocol.resume_writing()
        self._reader.writing_resumed()
        if self._waiting:
            self._schedule()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._stall is not None:
            self._stall.forget()
        for handle in (self._pump, self._linger):
            if handle is not None:
                handle.cancel()
        self._waiting.clear()
        self._protocol.connection_lost(exc)
        del self._reader  # breaks a reference cycle, so that no garbage collection is needed

    @property
    def _is_open(self) -> bool:
        return self.is_writable and not self._protocol.read_paused

    @property
    def _slice(self) -> int:
        return RESTRICTED_SLICE if self._budget.is_restricted else SLICE

    def _schedule(self, delay: float = 0.0) -> None:
        if self._pump is None:
            loop = asyncio.get_running_loop()
            self._pump = loop.call_later(delay, self._run) if delay else loop.call_soon(self._run)

    def _run(self) -> None:
        self._pump = None
        if self._transport.is_closing() or not self._is_open:
            return  # rescheduled when that changes
        delay = self._budget.bytes_in.delay
        if delay:
            self._wait(delay)
            return
        size = self._slice
        chunk = bytes(self._waiting[:size])
        del self._waiting[:size]
        self._feed(chunk)
        if self._transport.is_closing() or self._ended:
            return
        if self._waiting:
            self._schedule()
        elif not self._protocol.read_paused:
            self._transport.resume_reading()

    def _feed(self, data: bytes) -> None:
        bucket = self._budget.bytes_in
        bucket.take(len(data))
        if self._over_budget_since is not None and bucket.level > bucket.capacity / 2:
            self._over_budget_since = None
        try:
            self._protocol.data_received(data)
        except Exception as exc:
            # A client can break assertions of websockets and uvicorn after the closing handshake.
            logger.debug("could not parse a client's data: %r", exc)
            self._cut("the client's data cannot be parsed")

    def _feed_after_close(self, data: bytes) -> None:
        if len(data) <= self._closing_bytes:
            self._closing_bytes -= len(data)
            self._feed(data)
        else:
            # The client floods the connection. An immediate reset would discard the close frame
            # before the client reads it, and the delay keeps the client from reconnecting at once.
            self._transport.pause_reading()
            loop = asyncio.get_running_loop()
            self._linger = loop.call_later(LINGER, reset, self._transport)

    def _cut(self, problem: str) -> None:
        self._reader.cut(problem)
        reset(self._transport)

    def _wait(self, delay: float) -> None:
        now = asyncio.get_running_loop().time()
        if self._over_budget_since is None:
            self._over_budget_since = now
        if now - self._over_budget_since > self._budget.close_after:
            self._cut("the client sends too many bytes (JOBCAST_MESSAGE_RATE)")
        else:
            self._schedule(delay)

    def _stalled(self) -> None:
        self._cut("the client does not read (JOBCAST_SEND_TIMEOUT)")
