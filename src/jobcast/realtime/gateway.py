"""The Socket.IO side of the hub: connections of one namespace, and their requests."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from importlib.metadata import version
from typing import Any, NamedTuple

import socketio
from socketio.exceptions import ConnectionRefusedError as Refused
from socketio.packet import Packet
from starlette.requests import HTTPConnection
from starlette.types import Scope

from jobcast.errors import InvalidMessage, SettingsError, TokenError
from jobcast.events import (
    PROTOCOL_VERSION,
    Auth,
    CancelAccepted,
    CancelJob,
    Hello,
    JoinJob,
    LeaveAccepted,
    LeaveJob,
    RefreshToken,
    Refusal,
    TokenAccepted,
    parse_request,
    room_of,
)
from jobcast.feeds import FEED_REQUESTS, JoinFeed, LeaveFeed
from jobcast.protocol import ACKNOWLEDGEMENTS
from jobcast.realtime.admission import UNREADABLE
from jobcast.realtime.connection.budget import Budget
from jobcast.realtime.connection.engineio import EngineIOAdapter
from jobcast.realtime.connection.frames import ROOT, FrameBatch
from jobcast.realtime.connection.outbox import Outbox
from jobcast.realtime.connection.refusals import shown
from jobcast.realtime.connections import Connection
from jobcast.realtime.hub import Hub
from jobcast.realtime.relay import Relay
from jobcast.settings import Settings
from jobcast.tokens import Subject
from jobcast.transports import Source

logger = logging.getLogger(__name__)


class SocketIOConnection(Connection):
    """A client that is connected to a namespace of a Socket.IO server.

    While the client follows a job, it is also in the job's Socket.IO room, to which an application
    may emit.
    """

    __slots__ = ("_endpoint", "_outbox", "_socket", "eio_sid")

    def __init__(
        self,
        sid: str,
        subject: Subject,
        budget: Budget,
        *,
        endpoint: Endpoint,
        eio_sid: str,
        socket: Any,
        outbox: Outbox,
    ) -> None:
        super().__init__(sid, subject, budget)
        self.eio_sid = eio_sid
        self._endpoint = endpoint
        self._socket = socket
        self._outbox = outbox

    @property
    def address(self) -> str:
        return self._endpoint.guard.address(self.eio_sid)

    @property
    def closed(self) -> bool:
        socket = self._socket
        return bool(self.ended or socket.closed or socket.closing or self._outbox.overflowed)

    @property
    def waiting(self) -> int:
        return self._outbox.pending

    async def drained(self) -> None:
        await self._outbox.drained()

    async def joined(self, job_id: str) -> None:
        await self._endpoint.sio.enter_room(self.sid, room_of(job_id), self._endpoint.namespace)

    async def left(self, job_id: str) -> None:
        await self._endpoint.sio.leave_room(self.sid, room_of(job_id), self._endpoint.namespace)

    async def disconnect(self) -> None:
        await self._endpoint.sio.disconnect(self.sid, namespace=self._endpoint.namespace)

    async def release(self) -> None:
        await self._endpoint.guard.close(self.eio_sid)

    def abort(self) -> None:
        self._endpoint.guard.cut(self.eio_sid)

    def _send(self, batch: FrameBatch) -> None:
        if not (self._outbox.write(batch.frames) or self.closed):
            self._outbox.offer_batch(batch)

    def _send_history(self, batch: FrameBatch) -> None:
        self._outbox.cork()  # the acknowledgement of the join follows
        if not (self._outbox.write(batch.frames) or self.closed):
            self._outbox.offer_history(batch.packets)


class Endpoint(NamedTuple):
    """The namespace of a Socket.IO server that connections belong to."""

    sio: socketio.AsyncServer
    guard: EngineIOAdapter
    namespace: str


class Gateway:
    """Handler of one namespace of a Socket.IO server.

    Handlers that the application registered earlier stay active. The gateway calls ``connect``
    after it has authenticated a client, and ``disconnect`` after a connection closes.

    Args:
        sio: the Socket.IO server.
        source: the transport's source of events.
        settings: the limits and the token verification settings.
        namespace: the namespace that clients connect to.
        exclusive: whether only jobcast uses the server; see :class:`EngineIOAdapter`.
        features: what the process offers in addition to the requests, such as ``http``.

    Raises:
        SettingsError: the Socket.IO server has a custom serializer, or a setting is invalid.
    """

    def __init__(
        self,
        sio: socketio.AsyncServer,
        source: Source,
        settings: Settings,
        *,
        namespace: str = ROOT,
        exclusive: bool = False,
        features: Sequence[str] = (),
    ) -> None:
        if sio.packet_class is not Packet:
            raise SettingsError("serializer", "of the Socket.IO server should be the default one")
        self._sio = sio
        self._namespace = namespace
        self.hub = Hub(source, settings, namespace=namespace)
        self.guard = EngineIOAdapter(
            sio,
            settings,
            exclusive=exclusive,
            on_other_loop=self.start,
            addresses=self.hub.addresses,
            memory=self.hub.memory,
            refusals=self.hub.refusals,
        )
        self._endpoint = Endpoint(sio, self.guard, namespace)
        hello = Hello(
            protocol=PROTOCOL_VERSION,
            server=f"jobcast/{version('jobcast')}",
            features=(*self._request_names(), *features),
        )
        self._hello = self.hub.batch_of(hello)  # encoded once for all connections
        self._app_connect = self._app_handler("connect")
        self._app_disconnect = self._app_handler("disconnect")
        self._register()

    @property
    def relay(self) -> Relay:
        """The relay, which sends the events of jobs to the followers in this process."""
        return self.hub.relay

    @property
    def ready(self) -> bool:
        """Whether this process accepts new connections."""
        return self.hub.ready

    @property
    def connections(self) -> int:
        """The number of authenticated connections."""
        return len(self.hub.connections)

    def start(self) -> None:
        """Start to receive events in the running event loop.

        The first connection in a loop calls it too. It may be called again after :meth:`aclose`
        or in another loop.
        """
        self.guard.enter_loop()
        self._start_hub()

    def _start_hub(self) -> None:
        if self.hub.start():
            self.guard.start()

    async def drain(self, seconds: float = 0.0) -> None:
        """Move every client to another process; see :func:`~jobcast.realtime.drain.drain`.

        Args:
            seconds: the maximum time over which to spread the closing of connections.
        """
        await self.guard.refuse_new()
        await self.hub.drain(seconds)

    async def aclose(self) -> None:
        """Close every connection of the namespace, and stop."""
        self.guard.enter_loop()  # tasks of another event loop cannot be awaited
        await self.drain()
        self.hub.abort()
        await self.guard.aclose()
        await self.hub.aclose()

    def _request_names(self) -> Sequence[str]:
        """Return the names of the requests that the server answers."""
        missing: set[str] = set() if self.hub.feeds.are_available else {*FEED_REQUESTS}
        if not self.hub.cancellations.is_available:
            missing.add("cancel_job")
        return [name for name in ACKNOWLEDGEMENTS if name not in missing]

    def _register(self) -> None:
        handler = self.hub.requests.handler
        handlers: dict[str, Callable[..., Awaitable[Any]]] = {
            "connect": self._connect,
            "disconnect": self._disconnect,
            "join_job": handler("join_job", JoinJob, self.hub.join),
            "leave_job": handler("leave_job", LeaveJob, self._leave_job),
            "cancel_job": handler("cancel_job", CancelJob, self._cancel_job),
            "refresh_token": handler("refresh_token", RefreshToken, self._refresh_token),
            "join_feed": handler("join_feed", JoinFeed, self.hub.feeds.join),
            "leave_feed": handler("leave_feed", LeaveFeed, self.hub.feeds.leave),
        }
        for event, handle in handlers.items():
            self._sio.on(event, handle, namespace=self._namespace)

    def _app_handler(self, event: str) -> Callable[..., Any] | None:
        """Return the application's handler for an event of the namespace, if there is one."""
        handler: Callable[..., Any] | None = self._sio.handlers.get(self._namespace, {}).get(event)
        if handler is None:
            of_class = self._sio.namespace_handlers.get(self._namespace)
            handler = getattr(of_class, f"on_{event}", None)
        return handler

    async def _connect(self, sid: str, environ: dict[str, Any], auth: Any = None) -> Any:
        if not self.hub.draining:  # a draining process is closed or about to close
            self._start_hub()
        eio_sid = self._sio.manager.eio_sid_from_sid(sid, self._namespace)
        try:
            subject = await self.hub.identify(
                _token_of(auth), HTTPConnection(_scope_of(environ)), "connect with auth: {token}"
            )
            # The application's handler may be slow; the limit has to hold meanwhile.
            with self.hub.opening(subject) as opening:
                if self._app_connect is not None:
                    accepted = await _call(self._app_connect, sid, environ, auth)
                    if accepted is False:
                        return False
                connection = self._new_connection(sid, eio_sid, subject)
                opening.open(connection)
        except TokenError as exc:
            self.hub.report_refused(sid, self.guard.address(eio_sid), exc)
            raise Refused(exc.message, {"code": exc.code, "message": exc.message}) from None
        self.guard.authenticated(eio_sid)
        self.guard.after_connect(sid, partial(connection.send, self._hello))
        return True

    def _new_connection(self, sid: str, eio_sid: str, subject: Subject) -> SocketIOConnection:
        """Return the connection of a client that is about to be accepted.

        Raises:
            Refused: the connection has closed.
        """
        socket = self._sio.eio.sockets.get(eio_sid)
        if socket is None or socket.closed:
            # python-socketio removes a closed connection from its tables only if it is refused.
            raise Refused("the connection is closed")
        return SocketIOConnection(
            sid,
            subject,
            self.guard.budget(eio_sid),
            endpoint=self._endpoint,
            eio_sid=eio_sid,
            socket=socket,
            outbox=self.guard.outbox(eio_sid),
        )

    async def _disconnect(self, sid: str, reason: str = "") -> None:
        connection = self.hub.remove(sid, reason)
        if isinstance(connection, SocketIOConnection):
            # The Engine.IO connection may stay open. The client then has as much time to join a
            # namespace as after a new connection.
            self.guard.expect(connection.eio_sid)
        if self._app_disconnect is not None:
            await _call(self._app_disconnect, sid, reason)

    async def _leave_job(self, connection: Connection, request: LeaveJob) -> LeaveAccepted:
        await self.hub.leave(connection, request.job_id)
        logger.info("left %s: sub=%s", request.job_id, shown(connection.subject.sub))
        return LeaveAccepted(job_id=request.job_id)

    async def _cancel_job(
        self, connection: Connection, request: CancelJob
    ) -> CancelAccepted | Refusal:
        return await self.hub.cancellations.cancel(connection.subject, request)

    async def _refresh_token(self, connection: Connection, request: RefreshToken) -> TokenAccepted:
        return await self.hub.refresh_token(connection, request.token)


def _token_of(auth: Any) -> str | None:
    """Return the token from the ``auth`` payload of a connect packet, or None without a token.

    Raises:
        TokenError: the payload is malformed.
    """
    if not auth or (isinstance(auth, dict) and not auth.get("token")):
        return None
    try:
        return parse_request("connect", auth, Auth).token
    except InvalidMessage:
        raise TokenError("token_invalid", UNREADABLE) from None


def _scope_of(environ: dict[str, Any]) -> Scope:
    """Return the ASGI scope of a request, made from WSGI variables if there is none."""
    scope: Scope | None = environ.get("asgi.scope")
    if scope is not None:
        return scope
    headers = {name[5:]: text for name, text in environ.items() if name.startswith("HTTP_")}
    return {
        "type": "http",
        "method": environ.get("REQUEST_METHOD", "GET"),
        "path": environ.get("PATH_INFO", "/"),
        "query_string": environ.get("QUERY_STRING", "").encode("latin-1"),
        "headers": [
            (name.lower().replace("_", "-").encode("latin-1"), str(text).encode("latin-1"))
            for name, text in headers.items()
        ],
    }


async def _call(handler: Callable[..., Any], *args: Any) -> Any:
    """Call an application's handler with as many arguments as it accepts."""
    parameters = inspect.signature(handler).parameters.values()
    takes_all = any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters)
    answer = handler(*args if takes_all else args[: len(parameters)])
    return await answer if inspect.isawaitable(answer) else answer
