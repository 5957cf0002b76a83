"""The server's side of the contract: connections and their requests."""

from __future__ import annotations

import asyncio
import inspect
import logging
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import socketio
from socketio.exceptions import ConnectionRefusedError as Refused
from socketio.packet import Packet

from jobcast.cancellation import cancel_and_wait
from jobcast.errors import InvalidMessage, SettingsError, TokenError, TransportUnavailable
from jobcast.events import (
    Auth,
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
    parse_request,
    payload_of,
    room_of,
)
from jobcast.realtime import metrics
from jobcast.realtime.auth import Authorizer, Grant, RuleTimeout
from jobcast.realtime.budget import Budget
from jobcast.realtime.bundle import Bundle
from jobcast.realtime.engine import EngineGuard
from jobcast.realtime.leases import LeaseWatch
from jobcast.realtime.outlet import EngineOutlet
from jobcast.realtime.refusals import shown
from jobcast.realtime.relay import Relay
from jobcast.realtime.revocations import DenyList, RevocationWatch
from jobcast.realtime.rights import NOT_FOUND, UNDECIDED, NotAllowed, SubjectRights
from jobcast.settings import Settings
from jobcast.tokens import Subject, TokenVerifier
from jobcast.transports import Source
from jobcast.transports.leases import LeaseKeeper
from jobcast.transports.revocations import SupportsRevocations

EXPIRY_WARNING: Final = 30.0  # seconds before a token expires
LONGEST_TIMER: Final = 24 * 3600.0  # seconds; a token may be valid for longer than a timer can run

DRAIN_RATE: Final = 500  # connections that are closed a second, when the process ends
DRAIN_GRACE: Final = 2.0  # seconds that the last of them may take

NOT_AUTHENTICATED: Final = Refusal(code="not_authenticated", message="connect first")
UNAVAILABLE: Final = Refusal(
    code="unavailable", message="the job cannot be read now; try again in a moment"
)

logger = logging.getLogger(__name__)


class Connection:
    """An authenticated connection: whom it speaks for, what it follows, when it ends."""

    __slots__ = (
        "budget", "closed", "eio_sid", "jobs", "outlet", "requests", "sid", "since", "subject",
        "timer",
    )  # fmt: skip

    def __init__(
        self, sid: str, eio_sid: str, subject: Subject, outlet: EngineOutlet, budget: Budget
    ) -> None:
        self.sid = sid
        self.eio_sid = eio_sid
        self.subject = subject
        self.outlet = outlet
        self.budget = budget
        self.jobs: set[str] = set()
        self.closed = False
        self.requests = asyncio.Lock()  # one after the other, in the order they came
        self.timer: asyncio.TimerHandle | None = None  # for the end of the token
        self.since = time.monotonic()


class Gateway:
    """Handles one namespace of a Socket.IO server.

    What an application has registered there before goes on working: its ``connect`` is asked
    once a connection is authenticated, its ``disconnect`` is told.

    Args:
        sio: the server.
        source: where events come from.
        settings: the limits, and how tokens are verified.
        namespace: where clients connect to.
        exclusive: whether the server is jobcast's alone, see :class:`EngineGuard`.
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
        self._deny_list = DenyList()
        self._sio = sio
        self._namespace = namespace
        self._verifier = TokenVerifier(settings)
        self._authorizer = Authorizer(settings, source)
        self._rights = SubjectRights(self._authorizer, self._subject_of, self._right_ended)
        self.relay = Relay(
            source, namespace=namespace, rights=self._rights, on_resumed=self._resumed
        )
        self._max_jobs = settings.max_jobs
        self._connections: dict[str, Connection] = {}
        self._of_subject: Counter[str] = Counter()
        self.guard = EngineGuard(
            sio, settings, exclusive=exclusive, on_other_loop=self._begin_again
        )
        self._begin()
        self._app_connect = self._registered("connect")
        self._app_disconnect = self._registered("disconnect")
        self._register()

    def _begin(self) -> None:
        """Make what belongs to a loop."""
        self._lease_watch: asyncio.Task[None] | None = None
        self._revocations: RevocationWatch | None = None
        self._revocation_watch: asyncio.Task[None] | None = None
        self._deserted = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._draining = False
        self._started = False

    def _begin_again(self) -> None:
        """Serve in another loop than before, whose tasks and connections have gone with it."""
        self._begin()
        self.start()

    @property
    def ready(self) -> bool:
        """Whether new connections should come here."""
        return self.relay.ready and not self._draining

    @property
    def connections(self) -> int:
        """How many connections are authenticated."""
        return len(self._connections)

    def start(self) -> None:
        """Begin to receive events, in the running loop. The first connection there does it too.

        It may be called again after :meth:`aclose`, or in another loop.
        """
        self.guard.enter_loop()
        if self._started:
            return
        self._started = True
        self._draining = False
        self.guard.start()
        self._verifier.start()
        self.relay.start()
        if isinstance(self._source, LeaseKeeper):
            watch = LeaseWatch(self._source, self._settings.terms)
            self._lease_watch = asyncio.create_task(watch.run(), name="jobcast-leases")
        if isinstance(self._source, SupportsRevocations):
            revoked = RevocationWatch(self._source, self._deny_list, self._close_revoked)
            self._revocations = revoked
            self._revocation_watch = asyncio.create_task(revoked.run(), name="jobcast-revocations")

    async def drain(self, seconds: float = 0.0) -> None:
        """Send every client to another process: tell it, then close its connection.

        Args:
            seconds: over which the closing is spread at most, so that the others are not all
                come to at once.
        """
        if self._draining:
            return
        self._draining = True
        self.guard.refuse_new()
        connections = list(self._connections.values())
        spread = min(seconds, len(connections) / DRAIN_RATE)
        if connections:
            logger.info("sending %d clients away, over %.1f s", len(connections), spread)
        loop = asyncio.get_running_loop()
        began = loop.time()
        due = sorted((random.uniform(0, spread), connection) for connection in connections)
        for delay, connection in due:
            self._say(connection, Draining(closes_in=round(delay, 3)))
        for delay, connection in due:
            await asyncio.sleep(began + delay - loop.time())
            await self.guard.close(connection.eio_sid)
        if self._connections:
            self._deserted.clear()
            with suppress(TimeoutError):  # whoever is left is cut
                async with asyncio.timeout(DRAIN_GRACE):
                    await self._deserted.wait()

    async def aclose(self) -> None:
        """Close every connection of the namespace, and stop."""
        self.guard.enter_loop()  # what belongs to another one can't be waited for
        await self.drain()
        await self.guard.aclose([c.eio_sid for c in self._connections.values()])
        watches = (self._lease_watch, self._revocation_watch)
        await cancel_and_wait(*(watch for watch in watches if watch is not None))
        self._verifier.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.relay.aclose()
        self._authorizer.close()
        self._started = False

    def _register(self) -> None:
        handlers: dict[str, Callable[..., Awaitable[Any]]] = {
            "connect": self._connect,
            "disconnect": self._disconnect,
            "join_job": self._request(self._join_job, JoinJob),
            "leave_job": self._request(self._leave_job, LeaveJob),
            "refresh_token": self._request(self._refresh_token, RefreshToken),
        }
        for event, handler in handlers.items():
            self._sio.on(event, handler, namespace=self._namespace)

    def _registered(self, event: str) -> Callable[..., Any] | None:
        """What the application has registered for an event of the namespace."""
        handler: Callable[..., Any] | None = self._sio.handlers.get(self._namespace, {}).get(event)
        if handler is None:
            of_class = self._sio.namespace_handlers.get(self._namespace)
            handler = getattr(of_class, f"on_{event}", None)
        return handler

    async def _connect(self, sid: str, environ: dict[str, Any], auth: Any = None) -> Any:
        if not self._draining:  # it is closed, or about to be
            self.start()
        eio_sid = self._sio.manager.eio_sid_from_sid(sid, self._namespace)
        try:
            subject = await self._verified(_token_of(auth))
            self._check_connections(subject)
        except TokenError as exc:
            raise self._refusal(sid, eio_sid, exc) from None
        # Counted from here on: the application's handler may take its time.
        self._of_subject[subject.sub] += 1
        is_accepted = False
        try:
            is_accepted = await self._accept(sid, eio_sid, subject, environ, auth)
        finally:
            if not is_accepted:
                self._uncount(subject)
        return is_accepted

    async def _accept(
        self, sid: str, eio_sid: str, subject: Subject, environ: dict[str, Any], auth: Any
    ) -> bool:
        """Let an authenticated client in. Returns False if the application refuses it.

        Raises:
            Refused: the connection has gone, or its token was revoked meanwhile.
        """
        if self._app_connect is not None:
            accepted = await _call(self._app_connect, sid, environ, auth)
            if accepted is False:
                return False
        socket = self._sio.eio.sockets.get(eio_sid)
        if socket is None or socket.closed:
            # It went meanwhile, and python-socketio forgets it only if it is refused.
            raise Refused("the connection is closed")
        try:
            self._deny_list.check(subject)  # it may have been revoked since it was verified
        except TokenError as exc:
            raise self._refusal(sid, eio_sid, exc) from None
        outlet = EngineOutlet(sid, socket, self.guard.backlog(eio_sid))
        connection = Connection(sid, eio_sid, subject, outlet, self.guard.budget(eio_sid))
        self._connections[sid] = connection
        self.guard.authenticated(eio_sid)
        metrics.CONNECTIONS.inc()
        self._arm(connection)
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

    async def _verified(self, token: str) -> Subject:
        """Verify a token and return its subject.

        Raises:
            TokenError: the token is not valid, or was revoked.
        """
        subject = await self._verifier.verify(token)
        self._deny_list.check(subject)
        return subject

    def _check_connections(self, subject: Subject) -> None:
        """Check that a subject may have another connection to this process.

        Raises:
            TokenError: it has too many.
        """
        most = self._settings.max_connections_per_subject
        if most and self._of_subject[subject.sub] >= most:
            raise TokenError(
                "too_many_connections", f"a subject may have {most} connections to a server"
            )

    async def _disconnect(self, sid: str, reason: str = "") -> None:
        connection = self._connections.pop(sid, None)
        if connection is not None:
            self._forget(connection)
            logger.info(
                "disconnected %s: sub=%s, %s, after %.1f s",
                sid, shown(connection.subject.sub), reason, time.monotonic() - connection.since,
            )  # fmt: skip
        if self._app_disconnect is not None:
            await _call(self._app_disconnect, sid, reason)

    def _forget(self, connection: Connection) -> None:
        connection.closed = True
        connection.outlet.shut()
        self._uncount(connection.subject)
        if not self._connections:
            self._deserted.set()
        metrics.CONNECTIONS.dec()
        if connection.timer is not None:
            connection.timer.cancel()
        for job_id in connection.jobs:
            self.relay.leave(job_id, connection.sid)
        # A client may leave the namespace and keep its connection; it has as long as a new one.
        self.guard.expect(connection.eio_sid)

    def _uncount(self, subject: Subject) -> None:
        self._of_subject[subject.sub] -= 1
        if not self._of_subject[subject.sub]:
            del self._of_subject[subject.sub]

    def _request(
        self,
        handle: Callable[[Connection, Any], Awaitable[msgspec.Struct]],
        cls: type[msgspec.Struct],
    ) -> Callable[..., Awaitable[dict[str, Any]]]:
        """A Socket.IO handler that checks a request, and always answers it."""
        name = handle.__name__.removeprefix("_")

        async def answer(sid: str, *payload: Any) -> dict[str, Any]:
            connection = self._connections.get(sid)
            if connection is None:
                return payload_of(NOT_AUTHENTICATED)
            retry_after = connection.budget.check_request()
            if retry_after is not None:
                return payload_of(self._limited(name, sid, retry_after))
            try:
                request = parse_request(name, payload[0] if payload else None, cls)
                with connection.budget.request():
                    async with connection.requests:
                        if connection.closed:
                            return payload_of(NOT_AUTHENTICATED)
                        return payload_of(await handle(connection, request))
            except InvalidMessage as exc:
                self.guard.refusals.info("refused %s of %s: %s", name, sid, shown(exc.problem))
                return payload_of(Refusal(code="invalid_request", message=exc.problem))
            except TokenError as exc:
                self.guard.refusals.info(
                    "refused %s of %s: %s (%s)", name, sid, exc.message, exc.code
                )
                return payload_of(Refusal(code=exc.code, message=exc.message))
            except TransportUnavailable as exc:
                logger.warning("could not answer %s of %s: %s", name, sid, exc)
                return payload_of(UNAVAILABLE)
            except RuleTimeout as exc:
                logger.error("refused %s of %s: %s", name, sid, exc)
                metrics.REFUSED.labels(UNDECIDED.code).inc()
                return payload_of(UNDECIDED)
            except Exception:
                logger.exception("%s of %s failed", name, sid)
                return payload_of(Refusal(code="internal_error", message="something went wrong"))

        return answer

    def _limited(self, name: str, sid: str, retry_after: float) -> Refusal:
        self.guard.refusals.info(
            "refused %s of %s: above its budget (JOBCAST_MESSAGE_RATE, JOBCAST_HISTORY_RATE)",
            name, sid,
        )  # fmt: skip
        metrics.REFUSED.labels("rate_limited").inc()
        return Refusal(
            code="rate_limited",
            message="the connection asks for too much; ask again later",
            retry_after=round(retry_after, 3),
        )

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
            return self._limited("join_job", connection.sid, retry_after)
        # Joining again begins anew: the client has asked for the history.
        await self._leave(connection, job_id)
        try:
            answer = await self._follow(connection, request, grant)
        except NotAllowed as exc:
            return self._refused_join(connection, job_id, exc.refusal)
        if connection.closed:
            self.relay.leave(job_id, connection.sid)
            return NOT_AUTHENTICATED
        if request.after is not None:
            metrics.RESUMED.labels(str(answer.recovered).lower()).inc()
        await self._sio.enter_room(connection.sid, room_of(job_id), self._namespace)
        logger.info("joined %s: sub=%s", job_id, shown(subject.sub))
        return answer

    async def _grant(self, connection: Connection, job_id: str) -> Grant | None:
        """Return a connection's right to follow a job, which it leaves if it has none."""
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
            NotAllowed: the right to do so has ended meanwhile.
        """
        job_id = request.job_id
        sent = connection.outlet.history
        # From here on: what ends the right takes the job away again, also before the answer.
        connection.jobs.add(job_id)
        try:
            answer = await self.relay.join(job_id, connection.outlet, request.after, grant)
        except BaseException:
            connection.jobs.discard(job_id)
            raise
        connection.budget.charge_history(connection.outlet.history - sent)
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
        subject = await self._verified(request.token)
        if subject.sub != connection.subject.sub:
            raise TokenError("token_subject", "the token is for another subject")
        former, connection.subject = connection.subject, subject
        try:
            await self._review(connection)
        except BaseException:
            connection.subject = former
            self._close_revoked()  # the former token may have been revoked meanwhile
            raise
        if not connection.closed:
            self._arm(connection)
        logger.info("refreshed %s: sub=%s", connection.sid, shown(subject.sub))
        return TokenAccepted(expires_at=datetime.fromtimestamp(subject.expires_at, UTC))

    async def _review(self, connection: Connection) -> None:
        """Leave the jobs that a connection's new token does not allow.

        The owner is that of the record which the connection is sent. If a record changes meanwhile,
        the relay asks with the new token, which the connection has already.
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
        """Tell a connection that it follows a job no more, which it has left already."""
        connection = self._connections.get(sid)
        if connection is None:
            return
        connection.jobs.discard(job_id)
        self._say(connection, Left(job_id=job_id, code=refusal.code, message=refusal.message))
        self._spawn(self._sio.leave_room(sid, room_of(job_id), self._namespace))
        logger.info(
            "left %s: sub=%s may not follow it any longer (%s)",
            job_id, shown(connection.subject.sub), refusal.code,
        )  # fmt: skip

    def _arm(self, connection: Connection) -> None:
        """Set the alarm for the end of the connection's token."""
        loop = asyncio.get_running_loop()
        if connection.timer is not None:
            connection.timer.cancel()
        left = connection.subject.expires_at - time.time()
        if left > LONGEST_TIMER:
            connection.timer = loop.call_later(LONGEST_TIMER, self._arm, connection)
        else:
            connection.timer = loop.call_later(until_warning(left), self._warn, connection)

    def _warn(self, connection: Connection) -> None:
        expires_at = connection.subject.expires_at
        self._say(connection, TokenExpiring(expires_at=datetime.fromtimestamp(expires_at, UTC)))
        connection.timer = asyncio.get_running_loop().call_later(
            max(0.0, expires_at - time.time()), self._expire, connection
        )

    def _say(
        self, connection: Connection, message: Left | TokenExpiring | Closing | Draining
    ) -> None:
        connection.outlet.send(Bundle([packet_of(message)], namespace=self._namespace))

    def _expire(self, connection: Connection) -> None:
        logger.info(
            "closing %s: the token of sub=%s expired", connection.sid, shown(connection.subject.sub)
        )
        self._spawn(self._end(connection))

    def _resumed(self) -> None:
        """Make up for messages about revocations that an interruption may have lost."""
        if self._revocations is not None:
            self._revocations.request_read()

    def _close_revoked(self) -> None:
        for connection in list(self._connections.values()):
            if not connection.closed and self._deny_list.denies(connection.subject):
                self._revoke(connection)

    def _revoke(self, connection: Connection) -> None:
        """Close a connection whose token was revoked; it is sent nothing more of its jobs."""
        connection.closed = True
        for job_id in connection.jobs:
            self.relay.leave(job_id, connection.sid)
        self._say(connection, Closing(code="token_revoked", message="the token was revoked"))
        connection.outlet.shut()  # also for a join that is on its way
        logger.info(
            "closing %s: the token of sub=%s was revoked",
            connection.sid, shown(connection.subject.sub),
        )  # fmt: skip
        self._spawn(self._end(connection))

    async def _end(self, connection: Connection) -> None:
        await self._sio.disconnect(connection.sid, namespace=self._namespace)

    def _spawn(self, coroutine: Any) -> None:
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _token_of(auth: Any) -> str:
    """The token that a client sent to connect.

    Raises:
        TokenError: there is none.
    """
    if not auth or (isinstance(auth, dict) and not auth.get("token")):
        raise TokenError("token_missing", "connect with auth: {token}")
    try:
        return parse_request("connect", auth, Auth).token
    except InvalidMessage:
        raise TokenError("token_invalid", "the token cannot be read") from None


async def _call(handler: Callable[..., Any], *args: Any) -> Any:
    """Call an application's handler with as many of the arguments as it takes."""
    parameters = inspect.signature(handler).parameters.values()
    takes_all = any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters)
    answer = handler(*args if takes_all else args[: len(parameters)])
    return await answer if inspect.isawaitable(answer) else answer


def until_warning(left: float) -> float:
    """Seconds to wait before a client is told that its token, with so many left, expires.

    A token that lives shortly has lived half of its time by then: were it told at once, a client
    whose tokens all live shortly would renew them without pause.
    """
    return max(0.0, left - min(EXPIRY_WARNING, left / 2))
