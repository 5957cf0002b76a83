"""uvicorn's HTTP protocol with limits on connections, request headers and responses.

This module is an adapter. uvicorn only limits the time between two requests of a connection, but
not the time to send a request's headers or to read a response. It also writes responses to lost
connections, and parses frames of a WebSocket before the application has accepted it.

>>> uvicorn.run(app, http=LimitedHttpProtocol)
"""

from __future__ import annotations

import asyncio
import logging
import resource
from functools import lru_cache
from typing import Any, ClassVar, Final
from weakref import WeakKeyDictionary

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState

from jobcast.realtime import metrics
from jobcast.realtime.connection.deadlines import Deadlines
from jobcast.realtime.connection.quiet_logger import QUIET_LOGGER
from jobcast.realtime.connection.stall import CLOSE_TIMEOUT, StallTimer, reset
from jobcast.settings import Settings

SPARE_FILES: Final = 128  # file descriptors reserved for purposes other than clients

logger = logging.getLogger(__name__)


@lru_cache(maxsize=1)
def environment_settings() -> Settings:
    """Return the settings from the environment.

    The protocol reads the environment because uvicorn creates it without the application.
    """
    return Settings.load()


def connection_limit(settings: Settings) -> int:
    """Return the maximum number of connections, which never exceeds the limit on open files.

    0 means no limit.
    """
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed == resource.RLIM_INFINITY:
        return settings.max_connections
    limit = max(1, allowed - SPARE_FILES)
    return min(limit, settings.max_connections or limit)


@lru_cache(maxsize=1)
def environment_limit() -> int:
    """Return the maximum number of connections of this process, which does not change."""
    return connection_limit(environment_settings())


def raise_file_limit() -> None:
    """Raise the soft limit on open files to the hard limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class HeldWebSocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket protocol that stops reading until the application has answered.

    Until then uvicorn fails on malformed frames, and no limit applies to the frames.

    Its log has opened and closed connections at level debug only.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.logger = self.conn.logger = QUIET_LOGGER  # type: ignore[assignment]
        self.close_timeout = CLOSE_TIMEOUT
        self._held = False

    def handle_connect(self, event: Any) -> None:
        super().handle_connect(event)
        if not self.transport.is_closing():
            self._held = True
            self.transport.pause_reading()

    async def send(self, message: Any) -> None:
        if self.transport.is_closing():
            raise ClientDisconnected  # uvloop raises on writes to a lost connection
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and self.close_sent:
            self.handshake_complete = True  # otherwise uvicorn logs an error for each refusal
        if self._held and self.handshake_complete and not self.transport.is_closing():
            self._held = False
            forget_handshake(self)
            self.transport.resume_reading()


def forget_handshake(protocol: WebSocketsSansIOProtocol) -> None:
    """Discard the headers of a completed handshake. The ASGI scope has its own copy.

    uvicorn and websockets keep them until the connection closes. They are a sixth of a connection's
    objects, which each garbage collection scans. In a version without these attributes they stay.
    """
    for message in (getattr(protocol, "request", None), getattr(protocol, "response", None)):
        if message is not None:
            message.headers.clear()


class LimitedHttpProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol with limits. It ends when the connection becomes a WebSocket."""

    # By server, the connections that have not sent a complete request header.
    _pending_of: ClassVar[WeakKeyDictionary[ServerState, Deadlines[LimitedHttpProtocol]]] = (
        WeakKeyDictionary()
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.ws_protocol_class is WebSocketsSansIOProtocol:
            self.ws_protocol_class = HeldWebSocketProtocol
        self._settings = environment_settings()
        self._pending = self._pending_heads()
        self._stall: StallTimer | None = None  # created in the first pause: most clients read
        self._running: RequestResponseCycle | None = None  # uvicorn only keeps the last request

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        limit = environment_limit()
        if limit and len(self.connections) >= limit:
            self.transport = transport
            # No answer is sent: the connection would keep a file descriptor in use meanwhile.
            metrics.CUT.inc()
            reset(transport)
            return
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_received()
        super().connection_lost(exc)
        if self._running is not None and not self._running.response_complete:
            # Another request has followed on the connection before this one was answered.
            self._running.disconnected = True
            self._running.message_event.set()
        self._running = None
        if self._stall is not None:
            self._stall.forget()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._expect_head()

    def on_headers_complete(self) -> None:
        self._head_received()
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
            # websockets rejects some requests that httptools accepts; uvicorn then fails.
            logger.debug("closed a connection: its WebSocket request cannot be parsed: %r", exc)
            self.connections.discard(protocols[0])
            self._cut()
        else:
            if not getattr(protocols[0], "handshake_initiated", True):
                self._cut()  # otherwise the connection would wait for more data
            self._release()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, _answering(cycle, app))

    def _pending_heads(self) -> Deadlines[LimitedHttpProtocol]:
        pending = self._pending_of.get(self.server_state)
        if pending is None:
            pending = Deadlines(self._settings.handshake_timeout, LimitedHttpProtocol._cut)
            self._pending_of[self.server_state] = pending
        return pending

    def _release(self) -> None:
        """Break the reference cycles of a protocol that a WebSocket protocol has replaced."""
        self.parser = self.flow = None  # type: ignore[assignment]
        self._running = None
        if self._stall is not None:
            self._stall.forget()

    def pause_writing(self) -> None:
        if self._stall is None:
            self._stall = StallTimer(self._settings.send_timeout, self._cut)
        self._stall.start(self.transport)
        super().pause_writing()

    def resume_writing(self) -> None:
        if self._stall is not None:
            self._stall.stop()
        super().resume_writing()

    def _expect_head(self) -> None:
        if self in self._pending:
            return
        self._pending.start(self)
        if len(self._pending) > self._settings.max_unauthenticated:
            self._pending.oldest._cut()

    def _head_received(self) -> None:
        self._pending.stop(self)

    def _cut(self) -> None:
        self._head_received()
        metrics.CUT.inc()
        if self.cycle is not None:
            self.cycle.disconnected = True  # uvicorn then writes no response
        reset(self.transport)


def _answering(cycle: RequestResponseCycle, app: ASGIApp) -> Any:
    """Return an application that drops responses after the client has disconnected.

    With several requests on one connection, uvicorn marks only the last one as disconnected. It
    would write the responses to the others, and uvloop raises on these writes.
    """

    async def answering(scope: Scope, receive: Receive, send: Send) -> None:
        async def answer(message: Message) -> None:
            if cycle.transport.is_closing():
                cycle.disconnected = True
            await send(message)

        await app(scope, receive, answer)

    return answering
