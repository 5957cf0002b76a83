"""Engine.IO connections: each has to authenticate soon, to speak Socket.IO, and to read."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Coroutine, Iterable
from contextlib import suppress
from functools import partial
from typing import Any, Final, cast
from urllib.parse import parse_qs

import engineio.packet
import socketio
from socketio.packet import Packet
from starlette.types import ASGIApp, Receive, Scope, Send

from jobcast.realtime.backlog import DEFAULT_LIMIT, Backlog

AUTHENTICATION_TIMEOUT: Final = 5.0  # seconds from opening a connection to having authenticated

POLL_TIMEOUT: Final = 1.0  # seconds that a client may take to poll, when its process ends

TRANSPORT: Final = "jobcast.transport"  # where a scope has the connection's transport

# Packets that a client may send: connect, disconnect, event and acknowledgement, plain and binary.
_PACKET_TYPES: Final = frozenset("012356")
# An event has a name, which is a string; python-socketio looks it up before anyone checks that.
_EVENT: Final = re.compile(r"[25](?:\d+-)?(?:/[^,]*,)?\d*\[\s*\"")

logger = logging.getLogger(__name__)


class EngineGuard:
    """Stands between Engine.IO and a Socket.IO server, and closes what python-socketio would keep.

    That is a connection that opens and then says nothing for ever, one that sends what is no
    packet, for each of which python-socketio would log a traceback at anybody's will, and one
    that does not read what it asked for.

    Args:
        sio: the server.
        send_limit: characters that may wait for one connection.
    """

    def __init__(self, sio: socketio.AsyncServer, send_limit: int = DEFAULT_LIMIT) -> None:
        self._sio = sio
        self._eio = sio.eio
        self._send_limit = send_limit
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._transports: dict[str, asyncio.WriteTransport] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._draining = False
        self._connect = self._eio.handlers["connect"]
        self._message = self._eio.handlers["message"]
        self._disconnect = self._eio.handlers["disconnect"]
        self._eio.on("connect", self._opened)
        self._eio.on("message", self._received)
        self._eio.on("disconnect", self._closed)

    @property
    def waiting(self) -> int:
        """How many connections were opened less than ``AUTHENTICATION_TIMEOUT`` ago."""
        return len(self._timers)

    def around(self, app: ASGIApp) -> ASGIApp:
        """The application, observed so that a connection which does not read can be cut.

        To close a connection in an orderly way is to write to it. Where the ASGI server does not
        show its transport, such a connection lasts until its ping is overdue.
        """

        async def observe(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "websocket":
                transport = getattr(getattr(send, "__self__", None), "transport", None)
                scope[TRANSPORT] = transport
                eio_sid = parse_qs(scope["query_string"].decode("latin-1")).get("sid", [""])[0]
                if eio_sid in self._eio.sockets and transport is not None:
                    self._transports[eio_sid] = transport  # it begins as long-polling
            await app(scope, receive, send)

        return observe

    def backlog(self, eio_sid: str) -> Backlog:
        """What waits to be written to a connection."""
        socket = self._eio.sockets[eio_sid]
        if not isinstance(socket.queue, Backlog):
            backlog = Backlog(partial(self._cut, eio_sid), self._send_limit)
            while not socket.queue.empty():
                backlog.put_nowait(socket.queue.get_nowait())
            socket.queue = backlog
        return cast("Backlog", socket.queue)

    def refuse_new(self) -> None:
        """Let no further connection open: the process is about to end."""
        self._draining = True

    async def close(self, eio_sid: str) -> None:
        """Close a connection so that its client comes back by itself.

        Socket.IO's own way of disconnecting would tell it to stay away.
        """
        socket = self._eio.sockets.get(eio_sid)
        if socket is None or socket.closed or socket.closing:
            return
        if socket.upgraded:
            socket.queue.put_nowait(None)  # the writer ends when it has written what waits
        else:
            self._spawn(self._end_long_poll(socket))

    async def _end_long_poll(self, socket: Any) -> None:
        """Answer the poll that waits, and know the connection no more when the next one comes.

        Engine.IO's own word for the end would have Python's client wait for half a minute.
        """
        socket.queue.put_nowait(engineio.packet.Packet(engineio.packet.NOOP))
        with suppress(TimeoutError):  # it does not poll; there is nobody to answer
            async with asyncio.timeout(POLL_TIMEOUT):
                await socket.queue.join()
        await socket.close(wait=False, abort=True)

    async def aclose(self, remaining: Iterable[str]) -> None:
        """Cut connections that did not go by themselves, and those that never authenticated."""
        for eio_sid in [*remaining, *self._timers]:
            self._cut(eio_sid)
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _opened(self, eio_sid: str, environ: dict[str, Any]) -> Any:
        if self._draining:
            return False
        loop = asyncio.get_running_loop()
        self._timers[eio_sid] = loop.call_later(AUTHENTICATION_TIMEOUT, self._check, eio_sid)
        self.backlog(eio_sid)
        transport = environ.get("asgi.scope", {}).get(TRANSPORT)
        if transport is not None:
            self._transports[eio_sid] = transport
        return await self._connect(eio_sid, environ)

    async def _received(self, eio_sid: str, data: Any) -> None:
        problem: Exception | None = None
        try:
            is_event = isinstance(data, str) and data[:1] in ("2", "5")
            if not is_event or _EVENT.match(data):
                await self._message(eio_sid, data)
                return
        except Exception as exc:
            if _is_packet(data):
                raise
            problem = exc
        logger.info("closed %s: it sent no Socket.IO packet (%r)", eio_sid, problem)
        await self._eio.disconnect(eio_sid)

    async def _closed(self, eio_sid: str, reason: str) -> None:
        timer = self._timers.pop(eio_sid, None)
        if timer is not None:
            timer.cancel()
        self._transports.pop(eio_sid, None)
        socket = self._eio.sockets.get(eio_sid)
        if socket is not None and isinstance(socket.queue, Backlog):
            socket.queue.discard()
        await self._disconnect(eio_sid, reason)

    def _check(self, eio_sid: str) -> None:
        del self._timers[eio_sid]
        manager = self._sio.manager
        for namespace in list(manager.get_namespaces()):
            sid = manager.sid_from_eio_sid(eio_sid, namespace)
            if sid is not None and manager.is_connected(sid, namespace):
                return
        logger.info("closed %s: it did not authenticate in time", eio_sid)
        self._spawn(self._eio.disconnect(eio_sid))

    def _cut(self, eio_sid: str, pending: int = 0) -> None:
        """Close a connection at once, without a word."""
        if pending:
            logger.warning("cut %s: it reads too slowly, %d characters waited", eio_sid, pending)
        transport = self._transports.pop(eio_sid, None)
        if transport is not None:
            transport.abort()
        socket = self._eio.sockets.get(eio_sid)
        if socket is not None:
            self._spawn(socket.close(wait=False, abort=True))

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _is_packet(data: Any) -> bool:
    """Whether python-socketio can read a message, so that something else went wrong."""
    try:
        Packet(encoded_packet=data)
    except Exception:
        # Its parser fails in as many ways as there are wrong packets.
        return False
    return not isinstance(data, str) or data[:1] in _PACKET_TYPES
