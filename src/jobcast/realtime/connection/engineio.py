"""Engine.IO connections: each must authenticate in time, send valid packets, and read.

This module is an adapter. It replaces handlers and parts of python-engineio and python-socketio.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import Any, Final

import engineio.packet
import socketio
from socketio.packet import CONNECT, Packet
from starlette.types import Receive, Scope, Send

from jobcast.aio import BackgroundTasks, LoopChange
from jobcast.realtime import metrics
from jobcast.realtime.connection.addresses import Addresses
from jobcast.realtime.connection.budget import Budget
from jobcast.realtime.connection.deadlines import Deadlines
from jobcast.realtime.connection.outbox import Outbox, unattached
from jobcast.realtime.connection.packets import (
    MAX_ATTACHMENT_BYTES,
    BadPacket,
    read_header,
)
from jobcast.realtime.connection.polling import PollingReader
from jobcast.realtime.connection.refusals import RefusalLog, shown
from jobcast.realtime.connection.screening import (
    DRAINING_MESSAGE,
    DRAINING_RETRY_AFTER,
    Disconnected,
    Refused,
    address_of,
    read_body,
    refuse,
    replay,
    session_of,
)
from jobcast.realtime.connection.send_queue import SendMemory
from jobcast.realtime.connection.websocket import WebSocket, translate_request
from jobcast.settings import Settings

POLL_TIMEOUT: Final = 1.0  # seconds to wait for a poll when the process shuts down

logger = logging.getLogger(__name__)


class EngineIOAdapter:
    """Adapter between Engine.IO and a Socket.IO server that closes misbehaving connections.

    python-socketio would keep connections that never authenticate, send invalid packets, exceed
    their budget, or do not read the data they requested.

    Args:
        sio: the Socket.IO server.
        settings: the limits.
        exclusive: whether only jobcast uses the server. The clients of an application that shares
            the server may use binary packets and acknowledgements, and send any number of messages.
        on_other_loop: called when a client connects in another event loop than before.
        addresses: the addresses of all connections of the process.
        memory: the memory limit for all connections of the process.
        refusals: the log of refused and closed connections.
    """

    def __init__(
        self,
        sio: socketio.AsyncServer,
        settings: Settings,
        *,
        exclusive: bool = False,
        on_other_loop: Callable[[], None],
        addresses: Addresses,
        memory: SendMemory,
        refusals: RefusalLog,
    ) -> None:
        self._sio = sio
        self._eio = sio.eio
        self._settings = settings
        self._exclusive = exclusive
        self._on_other_loop = on_other_loop
        self._change = LoopChange()
        self._reset()
        self._budgets: dict[str, Budget] = {}
        self._addresses = addresses
        self._memory = memory
        self._attached: Counter[str] = Counter()  # bytes of attachments of the incomplete packet
        self._monitors = self._eio.start_service_task
        self.refusals = refusals
        self._eio.create_queue = self._new_outbox
        self._polling = PollingReader(self._eio, settings, self.budget, self.refusals)
        if self._eio.async_mode == "asgi":
            _replace_async(
                self._eio, {"websocket": self._websocket, "translate_request": translate_request}
            )
            self._handle_request = self._eio.handle_request
            self._eio.handle_request = self._screened
        self._greetings: dict[str, Callable[[], None]] = {}
        self._send_packet = sio._send_packet
        sio._send_packet = self._send
        self._connect = self._eio.handlers["connect"]
        self._message = self._eio.handlers["message"]
        self._disconnect = self._eio.handlers["disconnect"]
        self._eio.on("connect", self._opened)
        self._eio.on("message", self._received)
        self._eio.on("disconnect", self._closed)

    def _reset(self) -> None:
        """Reset the state that belongs to one event loop."""
        self._unauthenticated = Deadlines(self._settings.handshake_timeout, self._check)
        self._pings: Deadlines[WebSocket] | None = None
        self._tasks = BackgroundTasks()
        self._draining = False

    def start(self) -> None:
        """Accept new connections."""
        self._draining = False
        ended = self._eio.service_task_event
        if ended is not None and ended.is_set():
            self._restart_monitoring()

    def enter_loop(self, opening: str | None = None) -> None:
        """Discard the state of a previous event loop, which can no longer be closed.

        Args:
            opening: the connection that opens in the running loop.
        """
        if not self._change.happened():
            return
        self._reset()
        self._restart_monitoring()
        self._sio.manager_initialized = False  # the manager's listener ended with its loop
        for eio_sid in ({*self._eio.sockets} | {*self._budgets}) - {opening}:
            self._eio.sockets.pop(eio_sid, None)
            self._tasks.spawn(self._closed(eio_sid, self._eio.reason.TRANSPORT_CLOSE))
        self._on_other_loop()

    def _restart_monitoring(self) -> None:
        """Let python-engineio start its monitoring task again, which it starts only once."""
        self._eio.start_service_task = self._monitors
        self._eio.service_task_handle = self._eio.service_task_event = None

    @property
    def waiting(self) -> int:
        """The number of connections that have not authenticated yet."""
        return len(self._unauthenticated)

    def outbox(self, eio_sid: str) -> Outbox:
        """Return a connection's outbox, which it has in place of python-engineio's queue."""
        socket = self._eio.sockets[eio_sid]
        queue = socket.queue
        outbox = queue if isinstance(queue, Outbox) else self._new_outbox()
        if outbox.on_overflow is unattached:
            outbox.on_overflow = partial(self.cut, eio_sid)
        if outbox is not queue:  # the connection is older than this adapter
            while not queue.empty():
                outbox.put_nowait(queue.get_nowait())
            socket.queue = outbox
        return outbox

    def _new_outbox(self, *_: object, **__: object) -> Outbox:
        """Return the queue of a connection that opens. python-engineio calls this."""
        return Outbox(limit=self._settings.send_buffer, memory=self._memory)

    def budget(self, eio_sid: str) -> Budget:
        """Return a connection's budget."""
        return self._budgets.get(eio_sid) or self._new_budget()

    def _new_budget(self) -> Budget:
        return Budget(self._settings, counts_messages=self._exclusive)

    def address(self, eio_sid: str) -> str:
        """Return the address of a connection's client, or an empty string if it is unknown."""
        return self._addresses.of(eio_sid)

    def authenticated(self, eio_sid: str) -> None:
        """Stop the authentication timeout of a connection, and lift its restrictions."""
        self._unauthenticated.stop(eio_sid)
        self.budget(eio_sid).authenticated = True

    def after_connect(self, sid: str, greet: Callable[[], None]) -> None:
        """Call ``greet`` directly after the packet that accepts a connection to a namespace.

        python-socketio sends the packet after the handler of ``connect``, which calls this method,
        or before it if the server has ``always_connect``.
        """
        if self._sio.always_connect:
            greet()
        else:
            self._greetings[sid] = greet

    async def _send(self, eio_sid: str, packet: Packet) -> None:
        greet = None
        if packet.packet_type == CONNECT:
            greet = self._greetings.pop(packet.data["sid"], None)
        if greet is None:
            await self._send_packet(eio_sid, packet)
            return
        if eio_sid in self._eio.sockets:
            self.outbox(eio_sid).cork()
        await self._send_packet(eio_sid, packet)
        greet()

    def expect(self, eio_sid: str) -> None:
        """Close a connection unless its client authenticates within the handshake timeout.

        If too many connections are unauthenticated, the oldest is closed, so that silent
        connections do not keep others out.
        """
        socket = self._eio.sockets.get(eio_sid)
        if socket is None or socket.closed or socket.closing or eio_sid in self._unauthenticated:
            return
        if eio_sid in self._budgets:
            self._budgets[eio_sid].authenticated = False
        self._unauthenticated.start(eio_sid)
        while len(self._unauthenticated) > self._settings.max_unauthenticated:
            oldest = self._unauthenticated.oldest
            if self._is_connected(oldest):
                self._unauthenticated.stop(oldest)
                continue
            self.refusals.info(
                "closed %s (%s): it is the oldest of %d unauthenticated connections"
                " (JOBCAST_MAX_UNAUTHENTICATED)", oldest, self.address(oldest),
                len(self._unauthenticated),
            )  # fmt: skip
            self._unauthenticated.stop(oldest)
            self.cut(oldest)

    async def refuse_new(self) -> None:
        """Refuse new connections, and close those that are not connected to any namespace yet."""
        self._draining = True
        for eio_sid in self._not_connected():
            await self.close(eio_sid)

    async def end(self, eio_sid: str) -> None:
        """Close a connection without waiting for its client to read the close packet."""
        socket = self._eio.sockets.get(eio_sid)
        if socket is not None:
            await socket.close(wait=False, reason=self._eio.reason.SERVER_DISCONNECT)
            if not socket.upgraded:
                # The pending poll gets the close packet; for later polls the session is unknown.
                self._eio.sockets.pop(eio_sid, None)

    async def close(self, eio_sid: str) -> None:
        """Close a connection so that its client reconnects automatically.

        Clients do not reconnect after a Socket.IO disconnect packet.
        """
        socket = self._eio.sockets.get(eio_sid)
        if socket is None or socket.closed or socket.closing:
            return
        if socket.upgraded:
            socket.queue.put_nowait(None)  # the writer closes it after all queued packets
        else:
            self._tasks.spawn(self._end_long_poll(socket))

    async def aclose(self) -> None:
        """Cut the connections to no namespace, and wait until all have closed."""
        for eio_sid in self._not_connected():
            self.cut(eio_sid)
        self._unauthenticated.clear()
        await self._tasks.wait()

    async def _end_long_poll(self, socket: Any) -> None:
        """Answer the pending poll, then close the session, so that the next poll is refused.

        After an Engine.IO close packet, Python's client would wait for half a minute.
        """
        socket.queue.put_nowait(engineio.packet.Packet(engineio.packet.NOOP))
        with suppress(TimeoutError):  # the client does not poll
            async with asyncio.timeout(POLL_TIMEOUT):
                await socket.queue.join()
        await socket.close(wait=False, abort=True)

    # --- requests ---------------------------------------------------------------------------------

    async def _screened(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """Check a request, and pass it on to python-engineio."""
        self.enter_loop()
        try:
            sid = session_of(scope)
            if sid is None:
                self._check_draining()
                self._addresses.check(address_of(scope))
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

    def _check_draining(self) -> None:
        """Check that the process accepts connections.

        Raises:
            Refused: the process is about to exit.
        """
        if self._draining:
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, DRAINING_MESSAGE, DRAINING_RETRY_AFTER)

    def _check_session(self, sid: str) -> None:
        """Check that a session is open: python-engineio fails if it was just closed.

        Raises:
            Refused: the session is closed.
        """
        socket = self._eio.sockets.get(sid)
        if socket is not None and socket.closed:
            del self._eio.sockets[sid]
            raise Refused(HTTPStatus.BAD_REQUEST, "the session is closed")

    def _websocket(self, handler: Any, server: Any) -> WebSocket:
        """Return the handler of a WebSocket. python-engineio calls this for each WebSocket."""
        socket = handler.__self__
        return WebSocket(
            socket,
            server,
            budget=self.budget(socket.sid),
            pings=self._deadlines_of_pings(),
            settings=self._settings,
            binary=not self._exclusive,
        )

    def _deadlines_of_pings(self) -> Deadlines[WebSocket]:
        # The application may set python-engineio's interval until the first connection.
        if self._pings is None:
            self._pings = Deadlines(self._eio.ping_interval, WebSocket.send_ping)
        return self._pings

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
            socket.last_ping = None  # the WebSocket's handler sends its own pings
        else:
            socket.handle_post_request = partial(self._polling.read, socket)
        return await self._connect(eio_sid, environ)

    async def _received(self, eio_sid: str, data: Any) -> None:
        socket = self._eio.sockets.get(eio_sid)
        if socket is None or socket.closed or socket.closing:
            return  # the message arrived after the connection was closed
        try:
            self._check_packet(eio_sid, data)
            await self._message(eio_sid, data)
        except Exception as exc:
            if not isinstance(exc, BadPacket) and _is_packet(data):
                raise
            self.refusals.info(
                "closed %s (%s): the client sent an invalid Socket.IO packet (%s)",
                eio_sid, self.address(eio_sid), shown(exc),
            )  # fmt: skip
            await self.end(eio_sid)

    def _check_packet(self, eio_sid: str, data: Any) -> None:
        """Check a message before python-socketio reads it.

        Raises:
            BadPacket: the message is not a packet that a client may send.
        """
        awaits_attachments = _awaits_attachments(self._sio, eio_sid)
        if isinstance(data, bytes) and awaits_attachments:
            self._attached[eio_sid] += len(data)
            if self._attached[eio_sid] > MAX_ATTACHMENT_BYTES:
                raise BadPacket(f"the attachments exceed {MAX_ATTACHMENT_BYTES} bytes")
            return
        self._attached.pop(eio_sid, None)
        if awaits_attachments:
            raise BadPacket("attachments of the previous packet are missing")
        header = read_header(data, binary=not self._exclusive)
        sid = self._sio.manager.sid_from_eio_sid(eio_sid, header.namespace)
        if header.type == "0" and sid is not None:
            raise BadPacket("the client is already connected to the namespace")
        if header.attachments and sid is None:
            raise BadPacket("the packet has attachments, but the client is not connected")

    async def _closed(self, eio_sid: str, reason: str) -> None:
        self._unauthenticated.stop(eio_sid)
        self._budgets.pop(eio_sid, None)
        self._attached.pop(eio_sid, None)
        self._addresses.remove(eio_sid)
        socket = self._eio.sockets.get(eio_sid)
        if socket is not None and isinstance(socket.queue, Outbox):
            socket.queue.discard()
            if isinstance(socket.queue.sink, WebSocket):
                socket.queue.sink.expect_end()
        await self._disconnect(eio_sid, reason)

    def _not_connected(self) -> list[str]:
        """Return the connections that are not connected to any namespace yet."""
        return [sid for sid in self._unauthenticated if not self._is_connected(sid)]

    def _is_connected(self, eio_sid: str) -> bool:
        """Return whether a client is connected to any namespace."""
        manager = self._sio.manager
        for namespace in list(manager.get_namespaces()):
            sid = manager.sid_from_eio_sid(eio_sid, namespace)
            if sid is not None and manager.is_connected(sid, namespace):
                return True
        return False

    def _check(self, eio_sid: str) -> None:
        if not self._is_connected(eio_sid):
            self.refusals.info(
                "closed %s (%s): the client did not authenticate within %d s"
                " (JOBCAST_HANDSHAKE_TIMEOUT)",
                eio_sid, self.address(eio_sid), self._settings.handshake_timeout,
            )  # fmt: skip
            self._tasks.spawn(self.end(eio_sid))

    def cut(self, eio_sid: str, pending: int = 0) -> None:
        """Close a connection immediately, without a close packet."""
        if pending:
            logger.warning(
                "cut %s: the client reads too slowly; %d characters waited (JOBCAST_SEND_BUFFER,"
                " JOBCAST_SEND_MEMORY)", eio_sid, pending,
            )  # fmt: skip
        socket = self._eio.sockets.get(eio_sid)
        if socket is not None:
            if isinstance(socket.queue, Outbox) and socket.queue.sink is not None:
                socket.queue.sink.abort()
            self._tasks.spawn(socket.close(wait=False, abort=True))


def _replace_async(eio: Any, parts: dict[str, Any]) -> None:
    """Replace parts of python-engineio's ASGI support, which are in a private dictionary.

    Without this dictionary the original parts stay in place, and WebSockets have no limits.
    """
    present = getattr(eio, "_async", None)
    if present is None:
        logger.warning(
            "this version of python-engineio is not supported: jobcast does not limit WebSockets;"
            " install a version that jobcast's requirements allow"
        )
        return
    eio._async = {**present, **parts}


def _awaits_attachments(sio: Any, eio_sid: str) -> bool:
    """Return whether attachments of a client's last packet have yet to arrive.

    python-socketio keeps the packet in a private dictionary. Without this dictionary no
    attachments are expected.
    """
    return eio_sid in getattr(sio, "_binary_packet", ())


def _is_packet(data: Any) -> bool:
    """Return whether python-socketio can parse a message."""
    try:
        Packet(encoded_packet=data)
    except Exception:
        # The parser raises many types of exceptions for invalid packets.
        return False
    return True
