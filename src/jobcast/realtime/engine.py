"""Engine.IO connections: each has to authenticate soon, to speak Socket.IO, and to read."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Coroutine, Iterable
from contextlib import suppress
from functools import partial
from typing import Any, Final, cast

import engineio.packet
import socketio
from engineio.async_socket import AsyncSocket
from engineio.exceptions import EngineIOError
from socketio.packet import Packet

from jobcast.realtime.backlog import DEFAULT_LIMIT, Backlog
from jobcast.realtime.websocket import WebSocket, translate_request

AUTHENTICATION_TIMEOUT: Final = 5.0  # seconds from opening a connection to having authenticated

POLL_TIMEOUT: Final = 1.0  # seconds that a client may take to poll, when its process ends

# Packets that a client may send: connect, disconnect, event and acknowledgement, plain and binary.
_PACKET_TYPES: Final = frozenset("012356")
# An event has a name, which is a string; python-socketio looks it up before anyone checks that.
_EVENT: Final = re.compile(r"[25](?:\d+-)?(?:/[^,]*,)?\d*\[\s*\"")

logger = logging.getLogger(__name__)


class NothingInIt(ValueError):
    """A message is empty, which python-socketio takes for a part of another one."""


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
        self._tasks: set[asyncio.Task[None]] = set()
        self._draining = False
        if self._eio.async_mode == "asgi":
            own = {"websocket": WebSocket, "translate_request": translate_request}
            self._eio._async = {**self._eio._async, **own}
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

    def backlog(self, eio_sid: str) -> Backlog:
        """What waits to be written to a connection."""
        socket = self._eio.sockets[eio_sid]
        if not isinstance(socket.queue, Backlog):
            backlog = Backlog(partial(self._cut, eio_sid), self._send_limit)
            while not socket.queue.empty():
                backlog.put_nowait(socket.queue.get_nowait())
            socket.queue = backlog
        return cast("Backlog", socket.queue)

    def expect(self, eio_sid: str) -> None:
        """Close a connection if nobody has authenticated on it in time."""
        if eio_sid in self._eio.sockets and eio_sid not in self._timers:
            loop = asyncio.get_running_loop()
            self._timers[eio_sid] = loop.call_later(AUTHENTICATION_TIMEOUT, self._check, eio_sid)

    def refuse_new(self) -> None:
        """Let no further connection open: the process is about to end."""
        self._draining = True

    async def end(self, eio_sid: str) -> None:
        """Tell a client that its connection is closed, without waiting for it to read that."""
        socket = self._eio.sockets.get(eio_sid)
        if socket is not None:
            await socket.close(wait=False, reason=self._eio.reason.SERVER_DISCONNECT)
            if not socket.upgraded:
                # A poll that waits gets the word; to one that comes later it is not known.
                self._eio.sockets.pop(eio_sid, None)

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
        self.expect(eio_sid)
        self.backlog(eio_sid)
        socket = self._eio.sockets[eio_sid]
        if environ.get("asgi.scope", {}).get("type") == "websocket":
            socket.last_ping = None  # its loop sends pings by itself
        else:
            socket.handle_post_request = partial(self._post, socket)
        return await self._connect(eio_sid, environ)

    async def _post(self, socket: Any, environ: dict[str, Any]) -> None:
        """Take what a long-polling client sends, and end it if that cannot be read."""
        try:
            await AsyncSocket.handle_post_request(socket, environ)
        except (EngineIOError, ValueError, IndexError, TypeError, RecursionError) as exc:
            logger.info("closed %s: it sent no Engine.IO packet (%r)", socket.sid, exc)
            # python-engineio answers the request, and would wait for the client to read the end.
            await socket.close(wait=False, reason=self._eio.reason.SERVER_DISCONNECT)
            raise EngineIOError("it cannot be read") from None

    async def _received(self, eio_sid: str, data: Any) -> None:
        problem: Exception | None = None
        try:
            if not data and eio_sid not in self._sio._binary_packet:
                raise NothingInIt
            is_event = isinstance(data, str) and data[:1] in ("2", "5")
            if not is_event or _EVENT.match(data):
                await self._message(eio_sid, data)
                return
        except Exception as exc:
            if not isinstance(exc, NothingInIt) and _is_packet(data):
                raise
            problem = exc
        logger.info("closed %s: it sent no Socket.IO packet (%r)", eio_sid, problem)
        await self.end(eio_sid)

    async def _closed(self, eio_sid: str, reason: str) -> None:
        timer = self._timers.pop(eio_sid, None)
        if timer is not None:
            timer.cancel()
        socket = self._eio.sockets.get(eio_sid)
        if socket is not None and isinstance(socket.queue, Backlog):
            socket.queue.discard()
            if isinstance(socket.queue.sink, WebSocket):
                socket.queue.sink.expect_end()
        await self._disconnect(eio_sid, reason)

    def _check(self, eio_sid: str) -> None:
        del self._timers[eio_sid]
        manager = self._sio.manager
        for namespace in list(manager.get_namespaces()):
            sid = manager.sid_from_eio_sid(eio_sid, namespace)
            if sid is not None and manager.is_connected(sid, namespace):
                return
        logger.info("closed %s: it did not authenticate in time", eio_sid)
        self._spawn(self.end(eio_sid))

    def _cut(self, eio_sid: str, pending: int = 0) -> None:
        """Close a connection at once, without a word."""
        if pending:
            logger.warning("cut %s: it reads too slowly, %d characters waited", eio_sid, pending)
        socket = self._eio.sockets.get(eio_sid)
        if socket is not None:
            if isinstance(socket.queue, Backlog) and socket.queue.sink is not None:
                socket.queue.sink.abort()
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
