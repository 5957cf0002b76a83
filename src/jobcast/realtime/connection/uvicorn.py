"""uvicorn's HTTP protocol with limits: connections, time for a request's head, time for a response.

This is an adapter. uvicorn has a time limit for connections between two requests, and none for one
that sends nothing, or half a head, or never reads a response. It answers on connections that are
lost, and reads frames of a WebSocket before the application has accepted it.

>>> uvicorn.run(app, http=LimitedHttpProtocol)
"""

from __future__ import annotations

import asyncio
import logging
import resource
from functools import lru_cache
from typing import Any, ClassVar, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from jobcast.realtime import metrics
from jobcast.realtime.connection.stall import CLOSE_TIMEOUT, StallTimer, reset
from jobcast.settings import Settings

SPARE_FILES: Final = 128  # open files that are left for everything but clients

logger = logging.getLogger(__name__)


@lru_cache(maxsize=1)
def environment_settings() -> Settings:
    """The settings of the process; uvicorn makes protocols without asking the application."""
    return Settings.load()


def most_connections(settings: Settings) -> int:
    """How many connections a process may have: as set, and never more than it may open files."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed == resource.RLIM_INFINITY:
        return settings.max_connections
    most = max(1, allowed - SPARE_FILES)
    return min(most, settings.max_connections or most)


def raise_file_limit() -> None:
    """Let the process open as many files as the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class HeldWebSocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket protocol, which reads nothing more until the application has answered.

    uvicorn fails on frames that cannot be parsed before that, and nothing bounds them yet.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.close_timeout = CLOSE_TIMEOUT
        self._held = False

    def handle_connect(self, event: Any) -> None:
        super().handle_connect(event)
        if not self.transport.is_closing():
            self._held = True
            self.transport.pause_reading()

    async def send(self, message: Any) -> None:
        if self.transport.is_closing():
            raise ClientDisconnected  # uvloop raises if something is written to what is lost
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and self.close_sent:
            self.handshake_complete = True  # refused: uvicorn would log an error for each
        if self._held and self.handshake_complete and not self.transport.is_closing():
            self._held = False
            self.transport.resume_reading()


class LimitedHttpProtocol(HttpToolsProtocol):
    """One connection, from its first byte until it becomes a WebSocket or ends."""

    # Connections whose request has not come, the oldest first; those of all protocols.
    _pending: ClassVar[dict[LimitedHttpProtocol, None]] = {}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.ws_protocol_class is WebSocketsSansIOProtocol:
            self.ws_protocol_class = HeldWebSocketProtocol
        self._settings = environment_settings()
        self._head_timer: asyncio.TimerHandle | None = None
        self._stall = StallTimer(self._settings.send_timeout, self._cut)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        most = most_connections(self._settings)
        if most and len(self.connections) >= most:
            self.transport = transport
            # Also the answer would take a place: there is one for each open file.
            metrics.CUT.inc()
            reset(transport)
            return
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_came()
        super().connection_lost(exc)
        self._stall.forget()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._expect_head()

    def on_headers_complete(self) -> None:
        self._head_came()
        super().on_headers_complete()

    def handle_websocket_upgrade(self) -> None:
        make = self.ws_protocol_class
        protocols: list[Any] = []

        def keep(**options: Any) -> Any:
            protocols.append(make(**options))  # type: ignore[misc]
            return protocols[0]

        self.ws_protocol_class = keep  # type: ignore[assignment]
        try:
            super().handle_websocket_upgrade()
        except Exception as exc:
            # websockets refuses some requests that httptools takes, and uvicorn asserts then.
            logger.debug("a request for a WebSocket cannot be parsed: %r", exc)
            self.connections.discard(protocols[0])
            self._cut()
        else:
            if not getattr(protocols[0], "handshake_initiated", True):
                self._cut()  # or waits for more
            self._let_go()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        super()._start_asgi_task(cycle, _answering(cycle, app))

    def _let_go(self) -> None:
        """Break the cycles of a protocol that another has followed."""
        self.parser = self.flow = None  # type: ignore[assignment]
        self._stall.forget()

    def pause_writing(self) -> None:
        self._stall.start(self.transport)
        super().pause_writing()

    def resume_writing(self) -> None:
        self._stall.stop()
        super().resume_writing()

    def _expect_head(self) -> None:
        if self._head_timer is not None:
            return
        timeout = self._settings.handshake_timeout
        self._head_timer = self.loop.call_later(timeout, self._cut)
        self._pending[self] = None
        if len(self._pending) > self._settings.max_unauthenticated:
            next(iter(self._pending))._cut()

    def _head_came(self) -> None:
        self._pending.pop(self, None)
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _cut(self) -> None:
        self._head_came()
        metrics.CUT.inc()
        if self.cycle is not None:
            self.cycle.disconnected = True  # uvicorn writes no answer then
        reset(self.transport)


def _answering(cycle: RequestResponseCycle, app: ASGIApp) -> Any:
    """An application that answers only while its client is there.

    Of several requests on one connection, uvicorn tells the last that the client is gone, and
    writes the answers to the others all the same. uvloop raises then.
    """

    async def answering(scope: Scope, receive: Receive, send: Send) -> None:
        async def answer(message: Message) -> None:
            if cycle.transport.is_closing():
                cycle.disconnected = True
            await send(message)

        await app(scope, receive, answer)

    return answering
