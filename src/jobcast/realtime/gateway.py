"""The server side of the protocol: connections and their requests."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import socketio
from socketio.exceptions import ConnectionRefusedError as Refused
from socketio.packet import Packet

from jobcast.aio import BackgroundTasks, cancel_and_wait
from jobcast.errors import SettingsError, TokenError
from jobcast.events import (
    Closing,
    Draining,
    JoinAccepted,
    JoinJob,
    LeaveAccepted,
    LeaveJob,
    Left,
    RefreshToken,
    Refusal,
    TokenAccepted,
    TokenExpiring,
    packet_of,
    room_of,
)
from jobcast.liveness.monitor import LeaseMonitor
from jobcast.realtime import metrics
from jobcast.realtime.admission import Admission
from jobcast.realtime.authorization import Authorizer, Grant
from jobcast.realtime.connection.engineio import EngineIOAdapter
from jobcast.realtime.connection.frames import FrameBatch
from jobcast.realtime.connection.refusals import shown
from jobcast.realtime.connections import Connection, Connections
from jobcast.realtime.drain import drain
from jobcast.realtime.relay import Relay
from jobcast.realtime.requests import NOT_AUTHENTICATED, Requests
from jobcast.realtime.revocations import RevocationWatch
from jobcast.realtime.rights import NOT_FOUND, NotAllowed, SubjectRights
from jobcast.realtime.token_expiry import TokenExpiry
from jobcast.settings import Settings
from jobcast.tokens import Subject
from jobcast.transports import Source
from jobcast.transports.leases import Finding, SupportsLeaseMonitoring
from jobcast.transports.revocations import SupportsRevocations

logger = logging.getLogger(__name__)


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

    Raises:
        SettingsError: the Socket.IO server has a custom serializer, or a setting is invalid.
    """

    def __init__(
        self,
        sio: socketio.AsyncServer,
        source: Source,
        settings: Settings,
        *,
        namespace: str = "/",
        exclusive: bool = False,
    ) -> None:
        if sio.packet_class is not Packet:
            raise SettingsError("serializer", "of the Socket.IO server should be the default one")
        self._source = source
        self._settings = settings
        self._sio = sio
        self._namespace = namespace
        self._connections = Connections()
        self._admission = Admission(settings, self._connections)
        self._expiry = TokenExpiry(self._send, self._disconnect_soon)
        self._authorizer = Authorizer(settings, source)
        self._rights = SubjectRights(self._authorizer, self._subject_of, self._right_ended)
        self.relay = Relay(
            source, namespace=namespace, rights=self._rights, on_resumed=self._resumed
        )
        self._max_jobs = settings.max_jobs
        self.guard = EngineIOAdapter(
            sio, settings, exclusive=exclusive, on_other_loop=self._restart
        )
        self._requests = Requests(self._connections, self.guard.refusals)
        self._reset()
        self._app_connect = self._registered("connect")
        self._app_disconnect = self._registered("disconnect")
        self._register()

    def _reset(self) -> None:
        """Reset the state that belongs to one event loop."""
        self._lease_watch: asyncio.Task[None] | None = None
        self._revocations: RevocationWatch | None = None
        self._revocation_watch: asyncio.Task[None] | None = None
        self._tasks = BackgroundTasks()
        self._draining = False
        self._started = False

    def _restart(self) -> None:
        """Restart in another event loop: the tasks and connections of the previous one are gone."""
        self._reset()
        self.start()

    @property
    def ready(self) -> bool:
        """Whether this process accepts new connections."""
        return self.relay.ready and not self._draining

    @property
    def connections(self) -> int:
        """The number of authenticated connections."""
        return len(self._connections)

    def start(self) -> None:
        """Start to receive events in the running event loop.

        The first connection in a loop calls it too. It may be called again after :meth:`aclose`
        or in another loop.
        """
        self.guard.enter_loop()
        if self._started:
            return
        self._started = True
        self._draining = False
        self.guard.start()
        self._admission.start()
        self.relay.start()
        if isinstance(self._source, SupportsLeaseMonitoring):
            watch = LeaseMonitor(self._source, self._settings.lease_timeouts, _count_finding)
            self._lease_watch = asyncio.create_task(watch.run(), name="jobcast-leases")
        if isinstance(self._source, SupportsRevocations):
            revoked = RevocationWatch(self._source, self._admission.deny_list, self._close_revoked)
            self._revocations = revoked
            self._revocation_watch = asyncio.create_task(revoked.run(), name="jobcast-revocations")

    async def drain(self, seconds: float = 0.0) -> None:
        """Move every client to another process; see :func:`~jobcast.realtime.drain.drain`.

        Args:
            seconds: the maximum time over which to spread the closing of connections.
        """
        if self._draining:
            return
        self._draining = True
        self.guard.refuse_new()
        await drain(self._connections, seconds, self._send, self._close_transport)

    async def _close_transport(self, connection: Connection) -> None:
        await self.guard.close(connection.eio_sid)

    async def aclose(self) -> None:
        """Close every connection of the namespace, and stop."""
        self.guard.enter_loop()  # tasks of another event loop cannot be awaited
        await self.drain()
        await self.guard.aclose([connection.eio_sid for connection in self._connections])
        watches = (self._lease_watch, self._revocation_watch)
        await cancel_and_wait(*(watch for watch in watches if watch is not None))
        self._admission.close()
        await self._tasks.wait()
        await self.relay.aclose()
        self._authorizer.close()
        self._started = False

    def _register(self) -> None:
        handlers: dict[str, Callable[..., Awaitable[Any]]] = {
            "connect": self._connect,
            "disconnect": self._disconnect,
            "join_job": self._requests.handler("join_job", JoinJob, self._join_job),
            "leave_job": self._requests.handler("leave_job", LeaveJob, self._leave_job),
            "refresh_token": self._requests.handler(
                "refresh_token", RefreshToken, self._refresh_token
            ),
        }
        for event, handler in handlers.items():
            self._sio.on(event, handler, namespace=self._namespace)

    def _registered(self, event: str) -> Callable[..., Any] | None:
        """Return the application's handler for an event of the namespace, if there is one."""
        handler: Callable[..., Any] | None = self._sio.handlers.get(self._namespace, {}).get(event)
        if handler is None:
            of_class = self._sio.namespace_handlers.get(self._namespace)
            handler = getattr(of_class, f"on_{event}", None)
        return handler

    async def _connect(self, sid: str, environ: dict[str, Any], auth: Any = None) -> Any:
        if not self._draining:  # a draining process is closed or about to close
            self.start()
        eio_sid = self._sio.manager.eio_sid_from_sid(sid, self._namespace)
        try:
            subject = await self._admission.admit(auth)
        except TokenError as exc:
            raise self._refusal(sid, eio_sid, exc) from None
        # The application's handler may be slow; the limit has to hold meanwhile.
        self._connections.count(subject)
        is_accepted = False
        try:
            is_accepted = await self._accept(sid, eio_sid, subject, environ, auth)
        finally:
            if not is_accepted:
                self._connections.uncount(subject)
        return is_accepted

    async def _accept(
        self, sid: str, eio_sid: str, subject: Subject, environ: dict[str, Any], auth: Any
    ) -> bool:
        """Accept an authenticated client. Return False if the application refuses it.

        Raises:
            Refused: the connection has closed, or the token was revoked since its verification.
        """
        if self._app_connect is not None:
            accepted = await _call(self._app_connect, sid, environ, auth)
            if accepted is False:
                return False
        socket = self._sio.eio.sockets.get(eio_sid)
        if socket is None or socket.closed:
            # python-socketio forgets a connection that has closed only if it is refused.
            raise Refused("the connection is closed")
        try:
            # The token may have been revoked since its verification.
            self._admission.deny_list.check(subject)
        except TokenError as exc:
            raise self._refusal(sid, eio_sid, exc) from None
        connection = Connection(
            sid,
            eio_sid,
            subject,
            socket=socket,
            outbox=self.guard.outbox(eio_sid),
            budget=self.guard.budget(eio_sid),
        )
        self._connections.add(connection)
        self.guard.authenticated(eio_sid)
        metrics.CONNECTIONS.inc()
        self._expiry.arm(connection)
        logger.info(
            "connected %s (%s): sub=%s", sid, self.guard.address(eio_sid), shown(subject.sub)
        )
        return True

    def _refusal(self, sid: str, eio_sid: str, exc: TokenError) -> Refused:
        self.guard.refusals.info(
            "refused %s (%s): %s (%s)", sid, self.guard.address(eio_sid), exc.message, exc.code
        )
        metrics.REFUSED.labels(exc.code).inc()
        return Refused(exc.message, {"code": exc.code, "message": exc.message})

    async def _disconnect(self, sid: str, reason: str = "") -> None:
        connection = self._connections.remove(sid)
        if connection is not None:
            self._forget(connection)
            logger.info(
                "disconnected %s: sub=%s, %s, after %.1f s",
                sid, shown(connection.subject.sub), reason, time.monotonic() - connection.since,
            )  # fmt: skip
        if self._app_disconnect is not None:
            await _call(self._app_disconnect, sid, reason)

    def _forget(self, connection: Connection) -> None:
        connection.ended = True
        metrics.CONNECTIONS.dec()
        if connection.timer is not None:
            connection.timer.cancel()
        for job_id in connection.jobs:
            self.relay.leave(job_id, connection.sid)
        # A client may leave the namespace and keep its connection; it has as long as a new one.
        self.guard.expect(connection.eio_sid)

    async def _join_job(self, connection: Connection, request: JoinJob) -> msgspec.Struct:
        job_id, subject = request.job_id, connection.subject
        if len(connection.jobs) >= self._max_jobs and job_id not in connection.jobs:
            self.guard.refusals.info(
                "refused join of %s: sub=%s follows %d jobs (JOBCAST_MAX_JOBS)",
                job_id, shown(subject.sub), len(connection.jobs),
            )  # fmt: skip
            return Refusal(
                code="too_many_jobs", message=f"a connection may follow {self._max_jobs} jobs"
            )
        grant = await self._grant(connection, job_id)
        if grant is None:
            return self._refused_join(connection, job_id, NOT_FOUND)
        retry_after = await connection.budget.afford_history(job_id)
        if retry_after is not None:
            return self._requests.limited("join_job", connection.sid, retry_after)
        # A repeated join starts over, because the client asks for the history.
        await self._leave(connection, job_id)
        try:
            answer = await self._follow(connection, request, grant)
        except NotAllowed as exc:
            return self._refused_join(connection, job_id, exc.refusal)
        if connection.ended:
            self.relay.leave(job_id, connection.sid)
            return NOT_AUTHENTICATED
        if request.cursor is not None:
            metrics.RESUMED.labels(str(answer.recovered).lower()).inc()
        await self._sio.enter_room(connection.sid, room_of(job_id), self._namespace)
        logger.info("joined %s: sub=%s", job_id, shown(subject.sub))
        return answer

    async def _grant(self, connection: Connection, job_id: str) -> Grant | None:
        """Return a connection's right to follow a job. Without a right it leaves the job."""
        grant = None
        try:
            if self._revocations is not None:
                await self._revocations.known()
            grant = await self._authorizer.grant(connection.subject, job_id)
        finally:
            if grant is None:
                await self._leave(connection, job_id)
        return grant

    async def _follow(self, connection: Connection, request: JoinJob, grant: Grant) -> JoinAccepted:
        """Let a connection follow a job.

        Raises:
            NotAllowed: the right to follow the job ended during the join.
        """
        job_id = request.job_id
        history_before = connection.history
        # Added before the answer, so that a right which ends during the join removes the job.
        connection.jobs.add(job_id)
        try:
            answer = await self.relay.join(job_id, connection, request.cursor, grant)
        except BaseException:
            connection.jobs.discard(job_id)
            raise
        connection.budget.charge_history(connection.history - history_before)
        if job_id not in connection.jobs:
            raise NotAllowed(NOT_FOUND)
        return answer

    def _refused_join(self, connection: Connection, job_id: str, refusal: Refusal) -> Refusal:
        self.guard.refusals.info(
            "refused join of %s: sub=%s (%s)", job_id, shown(connection.subject.sub), refusal.code
        )
        metrics.REFUSED.labels(refusal.code).inc()
        return refusal

    async def _leave_job(self, connection: Connection, request: LeaveJob) -> LeaveAccepted:
        await self._leave(connection, request.job_id)
        logger.info("left %s: sub=%s", request.job_id, shown(connection.subject.sub))
        return LeaveAccepted(job_id=request.job_id)

    async def _refresh_token(self, connection: Connection, request: RefreshToken) -> TokenAccepted:
        subject = await self._admission.verify(request.token)
        if subject.sub != connection.subject.sub:
            raise TokenError("token_subject", "the token is for another subject")
        former, connection.subject = connection.subject, subject
        try:
            await self._review(connection)
        except BaseException:
            connection.subject = former
            self._close_revoked()  # the former token may have been revoked during the review
            raise
        if not connection.ended:
            self._expiry.arm(connection)
        logger.info("refreshed %s: sub=%s", connection.sid, shown(subject.sub))
        return TokenAccepted(expires_at=datetime.fromtimestamp(subject.expires_at, UTC))

    async def _review(self, connection: Connection) -> None:
        """Leave the jobs that a connection's new token does not allow.

        The check uses the owner of the record that the connection receives. If the record changes
        meanwhile, the relay checks again, with the new token.
        """
        jobs = sorted(connection.jobs)
        allowed = await asyncio.gather(
            *(
                self._authorizer.allows(connection.subject, job_id, self.relay.owner_of(job_id))
                for job_id in jobs
            )
        )
        for job_id, is_allowed in zip(jobs, allowed, strict=True):
            if not is_allowed and job_id in connection.jobs:
                self.relay.leave(job_id, connection.sid)
                self._right_ended(connection.sid, job_id, NOT_FOUND)

    async def _leave(self, connection: Connection, job_id: str) -> None:
        self.relay.leave(job_id, connection.sid)
        connection.jobs.discard(job_id)
        await self._sio.leave_room(connection.sid, room_of(job_id), self._namespace)

    def _subject_of(self, sid: str) -> Subject | None:
        connection = self._connections.get(sid)
        return None if connection is None else connection.subject

    def _right_ended(self, sid: str, job_id: str, refusal: Refusal) -> None:
        """Send ``left`` to a connection that has lost the right to a job and has left its room."""
        connection = self._connections.get(sid)
        if connection is None:
            return
        connection.jobs.discard(job_id)
        self._send(connection, Left(job_id=job_id, code=refusal.code, message=refusal.message))
        self._tasks.spawn(self._sio.leave_room(sid, room_of(job_id), self._namespace))
        logger.info(
            "left %s: sub=%s may no longer follow the job (%s)",
            job_id, shown(connection.subject.sub), refusal.code,
        )  # fmt: skip

    def _send(
        self, connection: Connection, message: Left | TokenExpiring | Closing | Draining
    ) -> None:
        connection.send(FrameBatch([packet_of(message)], namespace=self._namespace))

    def _resumed(self) -> None:
        """Read the revocations again: messages may have been lost during an interruption."""
        if self._revocations is not None:
            self._revocations.request_read()

    def _close_revoked(self) -> None:
        for connection in self._connections:
            if not connection.ended and self._admission.deny_list.denies(connection.subject):
                self._revoke(connection)

    def _revoke(self, connection: Connection) -> None:
        """Close a connection whose token was revoked, and send it no further events."""
        for job_id in connection.jobs:
            self.relay.leave(job_id, connection.sid)
        self._send(connection, Closing(code="token_revoked", message="the token was revoked"))
        connection.ended = True  # a join in progress checks this too
        logger.info(
            "closing %s: the token of sub=%s was revoked",
            connection.sid, shown(connection.subject.sub),
        )  # fmt: skip
        self._disconnect_soon(connection)

    def _disconnect_soon(self, connection: Connection) -> None:
        self._tasks.spawn(self._sio.disconnect(connection.sid, namespace=self._namespace))


async def _call(handler: Callable[..., Any], *args: Any) -> Any:
    """Call an application's handler with as many arguments as it accepts."""
    parameters = inspect.signature(handler).parameters.values()
    takes_all = any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters)
    answer = handler(*args if takes_all else args[: len(parameters)])
    return await answer if inspect.isawaitable(answer) else answer


def _count_finding(finding: Finding) -> None:
    metrics.LEASES.labels(finding.kind).inc()
