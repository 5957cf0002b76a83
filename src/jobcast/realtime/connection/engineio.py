"""Engine.IO connections: each has to authenticate soon, to send Socket.IO, and to read.

This is an adapter: it takes the place of handlers and of parts of python-engineio and
python-socketio.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import Any, Final, cast

import engineio.packet
import socketio
from socketio.packet import Packet
from starlette.types import Receive, Scope, Send

from jobcast.aio import BackgroundTasks, LoopChange
from jobcast.realtime import metrics
from jobcast.realtime.connection.addresses import Addresses
from jobcast.realtime.connection.budget import Budget
from jobcast.realtime.connection.outbox import Outbox, SendMemory
from jobcast.realtime.connection.packets import (
    MAX_ATTACHMENT_BYTES,
    BadPacket,
    read_header,
)
from jobcast.realtime.connection.polling import PollingReader
from jobcast.realtime.connection.refusals import RefusalLog, shown
from jobcast.realtime.connection.screening import (
    Disconnected,
    Refused,
    address_of,
    read_body,
    refuse,
    replay,
    session_of,
)
from jobcast.realtime.connection.websocket import WebSocket, translate_request
from jobcast.settings import Settings

POLL_TIMEOUT: Final = 1.0  # seconds that a client may take to poll, when its process ends
RETRY_AFTER: Final = 5  # seconds that a client waits when the server is full

logger = logging.getLogger(__name__)


class EngineIOAdapter:
    """Stands between Engine.IO and a Socket.IO server, and closes what python-socketio would keep.

    That is a connection that opens and never authenticates, one that sends what is no packet or
    more than its budget, and one that does not read what it asked for.

    Args:
        sio: the server.
        settings: the limits.
        exclusive: whether the server is jobcast's alone. An application that shares it may use
            binary packets and acknowledgements, and sends as many messages as it likes.
        on_other_loop: is called when a client comes in another event loop than before.
    """

    def __init__(
        self,
        sio: socketio.AsyncServer,
        settings: Settings,
        *,
        exclusive: bool = False,
        on_other_loop: Callable[[], None],
    ) -> None:
        self._sio = sio
        self._eio = sio.eio
        self._settings = settings
        self._exclusive = exclusive
        self._on_other_loop = on_other_loop
        self._change = LoopChange()
        self._begin()
        self._budgets: dict[str, Budget] = {}
        self._addresses = Addresses()
        self._attached: Counter[str] = Counter()  # bytes of the packet that comes in attachments
        self._monitors = self._eio.start_service_task
        self.refusals = RefusalLog(logger)
        self._polling = PollingReader(self._eio, settings, self.budget, self.refusals)
        if self._eio.async_mode == "asgi":
            _replace_async(
                self._eio, {"websocket": self._websocket, "translate_request": translate_request}
            )
            self._handle_request = self._eio.handle_request
            self._eio.handle_request = self._screened
        self._connect = self._eio.handlers["connect"]
        self._message = self._eio.handlers["message"]
        self._disconnect = self._eio.handlers["disconnect"]
        self._eio.on("connect", self._opened)
        self._eio.on("message", self._received)
        self._eio.on("disconnect", self._closed)

    def _begin(self) -> None:
        """Make what belongs to a loop."""
        self._memory = SendMemory(self._settings.send_memory)
        self._timers: dict[str, asyncio.TimerHandle] = {}  # of who has not authenticated
        self._tasks = BackgroundTasks()
        self._draining = False

    def start(self) -> None:
        """Let connections open."""
        self._draining = False
        ended = self._eio.service_task_event
        if ended is not None and ended.is_set():
            self._monitor_again()

    def enter_loop(self, opening: str | None = None) -> None:
        """Give up what belongs to another loop than the running one: it can't be closed any more.

        Args:
            opening: the connection that opens in this one.
        """
        if not self._change.happened():
            return
        self._begin()
        self._monitor_again()
        self._sio.manager_initialized = False  # its listener has gone with the loop
        for eio_sid in ({*self._eio.sockets} | {*self._budgets}) - {opening}:
            self._eio.sockets.pop(eio_sid, None)
            self._tasks.spawn(self._closed(eio_sid, self._eio.reason.TRANSPORT_CLOSE))
        self._on_other_loop()

    def _monitor_again(self) -> None:
        """Have python-engineio look after its connections again, as it does only once by itself."""
        self._eio.start_service_task = self._monitors
        self._eio.service_task_handle = self._eio.service_task_event = None

    @property
    def waiting(self) -> int:
        """How many connections have not authenticated yet."""
        return len(self._timers)

    def outbox(self, eio_sid: str) -> Outbox:
        """What waits to be written to a connection."""
        socket = self._eio.sockets[eio_sid]
        if not isinstance(socket.queue, Outbox):
            outbox = Outbox(
                partial(self._cut, eio_sid), self._settings.send_buffer, memory=self._memory
            )
            while not socket.queue.empty():
                outbox.put_nowait(socket.queue.get_nowait())
            socket.queue = outbox
        return cast("Outbox", socket.queue)

    def budget(self, eio_sid: str) -> Budget:
        """What a connection may ask for."""
        return self._budgets.get(eio_sid) or self._new_budget()

    def _new_budget(self) -> Budget:
        return Budget(self._settings, counts_messages=self._exclusive)

    def address(self, eio_sid: str) -> str:
        """The address of a connection's client; empty if it is not known."""
        return self._addresses.of(eio_sid)

    def authenticated(self, eio_sid: str) -> None:
        """Let a connection stay: its client has authenticated."""
        self._stop_timer(eio_sid)
        self.budget(eio_sid).authenticated = True

    def expect(self, eio_sid: str) -> None:
        """Close a connection unless its client authenticates in time.

        Where too many wait, the one that has waited for longest is closed: silent connections do
        not keep others out.
        """
        socket = self._eio.sockets.get(eio_sid)
        if socket is None or socket.closed or socket.closing or eio_sid in self._timers:
            return
        if eio_sid in self._budgets:
            self._budgets[eio_sid].authenticated = False
        loop = asyncio.get_running_loop()
        timeout = self._settings.handshake_timeout
        self._timers[eio_sid] = loop.call_later(timeout, self._check, eio_sid)
        while len(self._timers) > self._settings.max_unauthenticated:
            oldest = next(iter(self._timers))
            if self._is_connected(oldest):
                self._stop_timer(oldest)
                continue
            self.refusals.info(
                "closed %s (%s): %d connections have not authenticated"
                " (JOBCAST_MAX_UNAUTHENTICATED)", oldest, self.address(oldest), len(self._timers),
            )  # fmt: skip
            self._stop_timer(oldest)
            self._cut(oldest)

    def refuse_new(self) -> None:
        """Let no further connection open: the process is about to end."""
        self._draining = True

    async def end(self, eio_sid: str) -> None:
        """Close a connection, without waiting for its client to read that."""
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
            self._tasks.spawn(self._end_long_poll(socket))

    async def aclose(self, remaining: Iterable[str]) -> None:
        """Cut connections that did not go by themselves, and those that never authenticated."""
        for eio_sid in [*remaining, *self._timers]:
            self._cut(eio_sid)
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        await self._tasks.wait()

    async def _end_long_poll(self, socket: Any) -> None:
        """Answer the poll that waits, and know the connection no more when the next one comes.

        Engine.IO's own word for the end would have Python's client wait for half a minute.
        """
        socket.queue.put_nowait(engineio.packet.Packet(engineio.packet.NOOP))
        with suppress(TimeoutError):  # it does not poll; there is nobody to answer
            async with asyncio.timeout(POLL_TIMEOUT):
                await socket.queue.join()
        await socket.close(wait=False, abort=True)

    # --- requests ---------------------------------------------------------------------------------

    async def _screened(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """Hand a request to python-engineio, if it is one that it can read."""
        self.enter_loop()
        try:
            sid = session_of(scope)
            if sid is None:
                self._check_limits(scope)
            else:
                self._check_session(sid)
            if scope["type"] == "http" and scope["method"] == "POST":
                body = await read_body(
                    receive,
                    limit=self._eio.max_http_buffer_size,
                    timeout=self._settings.handshake_timeout,
                )
                receive = replay(body, receive)
        except Refused as problem:
            metrics.REFUSED.labels(f"http_{problem.status.value}").inc()
            self.refusals.info(
                "refused a request of %s: %d, %s",
                shown(address_of(scope)), problem.status, problem.message,
            )  # fmt: skip
            return await refuse(scope, receive, send, problem)
        except Disconnected:
            return None
        return await self._handle_request(scope, receive, send)

    def _check_session(self, sid: str) -> None:
        """Check that a session is open: python-engineio fails if it has just been closed.

        Raises:
            Refused: it is closed.
        """
        socket = self._eio.sockets.get(sid)
        if socket is not None and socket.closed:
            del self._eio.sockets[sid]
            raise Refused(HTTPStatus.BAD_REQUEST, "the session is closed")

    def _check_limits(self, scope: Scope) -> None:
        """Check that another connection may be opened.

        Raises:
            Refused: there are too many.
        """
        most = self._settings.max_connections
        if most and len(self._eio.sockets) >= most:
            raise Refused(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "the server has too many connections (JOBCAST_MAX_CONNECTIONS)", RETRY_AFTER,
            )  # fmt: skip
        most = self._settings.max_connections_per_address
        if most and self._addresses.count(address_of(scope)) >= most:
            raise Refused(
                HTTPStatus.TOO_MANY_REQUESTS,
                "the address has too many connections (JOBCAST_MAX_CONNECTIONS_PER_ADDRESS;"
                " if it is a proxy's, JOBCAST_TRUSTED_PROXIES should list it)", RETRY_AFTER,
            )  # fmt: skip

    def _websocket(self, handler: Any, server: Any) -> WebSocket:
        """python-engineio calls this for each WebSocket that a client opens."""
        socket = handler.__self__
        return WebSocket(
            socket,
            server,
            budget=self.budget(socket.sid),
            settings=self._settings,
            binary=not self._exclusive,
        )

    # --- connections ------------------------------------------------------------------------------

    async def _opened(self, eio_sid: str, environ: dict[str, Any]) -> Any:
        self.enter_loop(eio_sid)
        if self._draining:
            return False
        scope = environ.get("asgi.scope", {})
        self._addresses.add(eio_sid, address_of(scope))
        self._budgets[eio_sid] = self._new_budget()
        self.expect(eio_sid)
        self.outbox(eio_sid)
        socket = self._eio.sockets[eio_sid]
        if scope.get("type") == "websocket":
            socket.last_ping = None  # its loop sends pings by itself
        else:
            socket.handle_post_request = partial(self._polling.read, socket)
        return await self._connect(eio_sid, environ)

    async def _received(self, eio_sid: str, data: Any) -> None:
        socket = self._eio.sockets.get(eio_sid)
        if socket is None or socket.closed or socket.closing:
            return  # what was on its way when the connection was closed
        try:
            self._check_packet(eio_sid, data)
            await self._message(eio_sid, data)
        except Exception as exc:
            if not isinstance(exc, BadPacket) and _is_packet(data):
                raise
            self.refusals.info(
                "closed %s (%s): it sent no valid Socket.IO packet (%s)",
                eio_sid, self.address(eio_sid), shown(exc),
            )  # fmt: skip
            await self.end(eio_sid)

    def _check_packet(self, eio_sid: str, data: Any) -> None:
        """Check what python-socketio is about to read.

        Raises:
            BadPacket: it is none that a client may send.
        """
        awaits_attachments = _awaits_attachments(self._sio, eio_sid)
        if isinstance(data, bytes) and awaits_attachments:
            self._attached[eio_sid] += len(data)
            if self._attached[eio_sid] > MAX_ATTACHMENT_BYTES:
                raise BadPacket(f"attachments may have {MAX_ATTACHMENT_BYTES} bytes")
            return
        self._attached.pop(eio_sid, None)
        if awaits_attachments:
            raise BadPacket("attachments of the packet before are missing")
        header = read_header(data, binary=not self._exclusive)
        sid = self._sio.manager.sid_from_eio_sid(eio_sid, header.namespace)
        if header.type == "0" and sid is not None:
            raise BadPacket("it is connected already")
        if header.attachments and sid is None:
            raise BadPacket("it sends attachments before it is connected")

    async def _closed(self, eio_sid: str, reason: str) -> None:
        self._stop_timer(eio_sid)
        self._budgets.pop(eio_sid, None)
        self._attached.pop(eio_sid, None)
        self._addresses.remove(eio_sid)
        socket = self._eio.sockets.get(eio_sid)
        if socket is not None and isinstance(socket.queue, Outbox):
            socket.queue.discard()
            if isinstance(socket.queue.sink, WebSocket):
                socket.queue.sink.expect_end()
        await self._disconnect(eio_sid, reason)

    def _stop_timer(self, eio_sid: str) -> None:
        timer = self._timers.pop(eio_sid, None)
        if timer is not None:
            timer.cancel()

    def _is_connected(self, eio_sid: str) -> bool:
        """Whether a client is connected to any namespace."""
        manager = self._sio.manager
        for namespace in list(manager.get_namespaces()):
            sid = manager.sid_from_eio_sid(eio_sid, namespace)
            if sid is not None and manager.is_connected(sid, namespace):
                return True
        return False

    def _check(self, eio_sid: str) -> None:
        del self._timers[eio_sid]
        if not self._is_connected(eio_sid):
            self.refusals.info(
                "closed %s (%s): it did not authenticate in %d s (JOBCAST_HANDSHAKE_TIMEOUT)",
                eio_sid, self.address(eio_sid), self._settings.handshake_timeout,
            )  # fmt: skip
            self._tasks.spawn(self.end(eio_sid))

    def _cut(self, eio_sid: str, pending: int = 0) -> None:
        """Close a connection at once, without a word."""
        if pending:
            logger.warning("cut %s: it reads too slowly, %d characters waited", eio_sid, pending)
        socket = self._eio.sockets.get(eio_sid)
        if socket is not None:
            if isinstance(socket.queue, Outbox) and socket.queue.sink is not None:
                socket.queue.sink.abort()
            self._tasks.spawn(socket.close(wait=False, abort=True))


def _replace_async(eio: Any, parts: dict[str, Any]) -> None:
    """Replace parts of how python-engineio serves ASGI, which it keeps in a private dictionary.

    Without one its own parts stay, whose WebSockets have no limits of jobcast's.
    """
    present = getattr(eio, "_async", None)
    if present is None:
        logger.warning(
            "this version of python-engineio is not supported: WebSockets have none of jobcast's"
            " limits; install the version that jobcast's requirements name"
        )
        return
    eio._async = {**present, **parts}


def _awaits_attachments(sio: Any, eio_sid: str) -> bool:
    """Return whether a client has announced binary attachments that have not all arrived.

    python-socketio keeps the packet in a private dictionary. Without one no attachment is expected.
    """
    return eio_sid in getattr(sio, "_binary_packet", ())


def _is_packet(data: Any) -> bool:
    """Whether python-socketio can read a message, so that something else went wrong."""
    try:
        Packet(encoded_packet=data)
    except Exception:
        # Its parser fails in as many ways as there are wrong packets.
        return False
    return True
