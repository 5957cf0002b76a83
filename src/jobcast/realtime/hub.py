"""The hub: the connections of a process, and the jobs that they follow.

The hub knows no protocol. The Socket.IO side (:mod:`~jobcast.realtime.gateway`) and the HTTP side
(:mod:`jobcast.realtime.http`) open connections in the hub, and pass it their clients' requests.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any

from starlette.requests import HTTPConnection

from jobcast.aio import BackgroundTasks, LoopChange, cancel_and_wait, jittered
from jobcast.errors import TokenError
from jobcast.events import Closing, JoinAccepted, JoinJob, Left, Refusal, TokenAccepted
from jobcast.liveness.monitor import LeaseMonitor
from jobcast.protocol import ServerMessage, packet_of
from jobcast.realtime import metrics
from jobcast.realtime.admission import Admission
from jobcast.realtime.authorization import Authorizer, Grant
from jobcast.realtime.cancellation import CancelService
from jobcast.realtime.connection.addresses import Addresses
from jobcast.realtime.connection.frames import ROOT, FrameBatch, notice
from jobcast.realtime.connection.refusals import RefusalLog, shown
from jobcast.realtime.connection.send_queue import SendMemory
from jobcast.realtime.connections import Connection, Connections
from jobcast.realtime.drain import drain
from jobcast.realtime.feeds.rooms import FeedRooms
from jobcast.realtime.feeds.service import FeedService
from jobcast.realtime.opening import Opening
from jobcast.realtime.relay import Relay
from jobcast.realtime.requests import NOT_AUTHENTICATED, Requests
from jobcast.realtime.revocations import RevocationWatch
from jobcast.realtime.rights import NOT_FOUND, NotAllowed, SubjectRights
from jobcast.realtime.token_expiry import TokenExpiry
from jobcast.settings import Settings
from jobcast.targets import FOLLOW, JobTarget
from jobcast.tokens import Subject
from jobcast.transports import Source
from jobcast.transports.base import Snapshot
from jobcast.transports.leases import Finding, SupportsLeaseMonitoring
from jobcast.transports.revocations import SupportsRevocations

logger = logging.getLogger(__name__)


class Hub:
    """The connections of a process, with their limits, their rights and the jobs that they follow.

    Args:
        source: the transport's source of events.
        settings: the limits and the token verification settings.
        namespace: the Socket.IO namespace of the packets.

    Raises:
        SettingsError: a setting is invalid.
    """

    def __init__(self, source: Source, settings: Settings, *, namespace: str = ROOT) -> None:
        self._source = source
        self._settings = settings
        self._namespace = namespace
        self.connections = Connections()
        self.addresses = Addresses(settings)
        self.memory = SendMemory(settings.send_memory)
        self.refusals = RefusalLog(logger)
        self.requests = Requests(self.connections, self.refusals)
        self._admission = Admission(settings, self.connections)
        self._expiry = TokenExpiry(self.send, self._disconnect_soon)
        self._authorizer = Authorizer(settings, source)
        self._rights = SubjectRights(self._authorizer, self._subject_of, self._right_ended)
        self._feed_rooms = FeedRooms(source, settings.retention)
        self.feeds = FeedService(
            self._feed_rooms,
            settings,
            self._authorizer,
            self._rights,
            self.connections,
            self.requests,
            self.send,
            self._check_revocations,
            namespace,
        )
        self.cancellations = CancelService(
            source, settings, self._authorizer, self.refusals, self._check_revocations
        )
        self.relay = Relay(
            source, namespace=namespace, rights=self._rights, on_resumed=self._resumed
        )
        self._change = LoopChange()
        self._reset()

    def _reset(self) -> None:
        """Reset the state that belongs to one event loop."""
        self._revocations: RevocationWatch | None = None
        self._watches: list[asyncio.Task[None]] = []
        self._tasks = BackgroundTasks()
        self.draining = False
        self._started = False

    # --- lifecycle --------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether this process accepts new connections."""
        return self.relay.ready and not self.draining

    def start(self) -> bool:
        """Start to receive events in the running event loop. Return False if the hub has started.

        If the event loop has changed, remove the former loop's connections, which are closed.
        """
        changed = self._change.happened()
        if changed:
            self._reset()
            self.memory.clear()
        if self._started:
            return False
        self._started = True
        self.draining = False
        self._admission.start()
        self._feed_rooms.start()
        self.relay.start()
        if changed:
            for connection in self.connections:
                self.remove(connection.sid, "the event loop has changed")
        self._start_watches()
        return True

    def _start_watches(self) -> None:
        if isinstance(self._source, SupportsLeaseMonitoring):
            monitor = LeaseMonitor(self._source, self._settings.lease_timeouts, _count_finding)
            self._watch(monitor.run(), "jobcast-leases")
        if isinstance(self._source, SupportsRevocations):
            revoked = RevocationWatch(self._source, self._admission.deny_list, self._close_revoked)
            self._revocations = revoked
            self._watch(revoked.run(), "jobcast-revocations")
        if self._settings.reauthorize:
            self._watch(self._reauthorize_regularly(), "jobcast-rights")

    def _watch(self, coroutine: Coroutine[Any, Any, None], name: str) -> None:
        self._watches.append(asyncio.create_task(coroutine, name=name))

    async def drain(self, seconds: float = 0.0) -> None:
        """Move every client to another process; see :func:`~jobcast.realtime.drain.drain`.

        Args:
            seconds: the maximum time over which to spread the closing of connections.
        """
        if self.draining:
            return
        self.draining = True
        await drain(self.connections, seconds, self.send)

    def abort(self) -> None:
        """Close every connection immediately."""
        for connection in self.connections:
            connection.abort()

    async def aclose(self) -> None:
        """Stop receiving events. The caller has closed the connections."""
        await cancel_and_wait(*self._watches)
        self._watches.clear()
        self._admission.close()
        await self._tasks.wait()
        await self._feed_rooms.aclose()
        await self.relay.aclose()
        self._authorizer.close()
        self._started = False

    # --- connections ------------------------------------------------------------------------------

    async def identify(self, token: str | None, connection: HTTPConnection, hint: str) -> Subject:
        """Return the subject of a client; see :meth:`Admission.identify`.

        Raises:
            TokenError: the client is not authenticated.
        """
        return await self._admission.identify(token, connection, hint)

    def opening(self, subject: Subject) -> Opening:
        """Return a context in which a connection opens, and already counts against the limits.

        Raises:
            TokenError: the subject has too many connections.
        """
        self._admission.check_limit(subject)
        return Opening(self.connections, subject, self._open)

    def _open(self, connection: Connection) -> None:
        self._admission.deny_list.check(connection.subject)
        self.connections.add(connection)
        metrics.CONNECTIONS.inc()
        self._expiry.arm(connection)
        logger.info(
            "connected %s (%s): sub=%s",
            connection.sid, connection.address, shown(connection.subject.sub),
        )  # fmt: skip

    def remove(self, sid: str, reason: str) -> Connection | None:
        """Remove and return a connection that has closed, or return None if the id is unknown."""
        connection = self.connections.remove(sid)
        if connection is None:
            return None
        connection.ended = True
        metrics.CONNECTIONS.dec()
        if connection.timer is not None:
            connection.timer.cancel()
        for job_id in connection.jobs:
            self.relay.leave(job_id, sid)
        self.feeds.leave_all(connection)
        logger.info(
            "disconnected %s: sub=%s, %s, after %.1f s",
            sid, shown(connection.subject.sub), reason, time.monotonic() - connection.since,
        )  # fmt: skip
        return connection

    def report_refused(self, sid: str, address: str, exc: TokenError) -> None:
        """Log and count a connection that was refused."""
        self.refusals.info("refused %s (%s): %s (%s)", sid, address, exc.message, exc.code)
        metrics.REFUSED.labels(exc.code).inc()

    def send(self, connection: Connection, message: ServerMessage) -> None:
        """Send a message that belongs to no job's history."""
        connection.send(self.batch_of(message))

    def batch_of(self, message: ServerMessage) -> FrameBatch:
        """Return a message that belongs to no job's history as packets for connections."""
        return FrameBatch([notice(packet_of(message))], namespace=self._namespace)

    # --- requests ---------------------------------------------------------------------------------

    async def join(self, connection: Connection, request: JoinJob) -> JoinAccepted | Refusal:
        """Let a connection follow a job, if its subject may.

        Raises:
            TransportUnavailable: the right or the history cannot be read.
            FunctionFailed, FunctionTimeout: ``JOBCAST_AUTHORIZE`` did not decide.
        """
        job_id, subject, max_jobs = request.job_id, connection.subject, self._settings.max_jobs
        if len(connection.jobs) >= max_jobs and job_id not in connection.jobs:
            self.refusals.info(
                "refused join of %s: sub=%s follows %d jobs (JOBCAST_MAX_JOBS)",
                job_id, shown(subject.sub), len(connection.jobs),
            )  # fmt: skip
            return Refusal(code="too_many_jobs", message=f"a connection may follow {max_jobs} jobs")
        grant = await self._grant(connection, job_id)
        if grant is None:
            return self._refused_join(connection, job_id, NOT_FOUND)
        retry_after = await connection.budget.afford_history(job_id)
        if retry_after is not None:
            return self.requests.limited("join_job", connection.sid, retry_after)
        # A repeated join starts over, because the client asks for the history.
        await self.leave(connection, job_id)
        try:
            answer = await self._follow(connection, request, grant)
        except NotAllowed as exc:
            return self._refused_join(connection, job_id, exc.refusal)
        if connection.ended:
            self.relay.leave(job_id, connection.sid)
            return NOT_AUTHENTICATED
        if request.cursor is not None:
            metrics.RESUMED.labels(str(answer.recovered).lower()).inc()
        await connection.joined(job_id)
        logger.info("joined %s: sub=%s", job_id, shown(subject.sub))
        return answer

    async def leave(self, connection: Connection, job_id: str) -> None:
        """Stop following a job."""
        self.relay.leave(job_id, connection.sid)
        if job_id in connection.jobs:
            connection.jobs.discard(job_id)
            await connection.left(job_id)

    async def grant(self, subject: Subject, job_id: str) -> Grant:
        """Return a subject's right to follow a job, for :meth:`read`.

        Raises:
            NotAllowed: the subject may not follow the job.
            TokenError: the subject's token was revoked since its verification.
            TransportUnavailable: the description of the job cannot be read.
            FunctionFailed, FunctionTimeout: ``JOBCAST_AUTHORIZE`` did not decide.
        """
        await self._check_revocations(subject)
        grant = await self._authorizer.grant(subject, job_id)
        if grant is None:
            raise NotAllowed(NOT_FOUND)
        return grant

    async def read(self, subject: Subject, job_id: str, grant: Grant) -> Snapshot:
        """Return the record of a job, whose history may be long.

        Raises:
            NotAllowed: the record has changed meanwhile, and the subject may not follow it.
            TransportUnavailable: the record cannot be read.
            FunctionFailed, FunctionTimeout: ``JOBCAST_AUTHORIZE`` did not decide.
        """
        snapshot = await self._source.snapshot(job_id)
        target = JobTarget.of(job_id, snapshot.info)
        if not (grant.covers(target) or await self._authorizer.allows(subject, FOLLOW, target)):
            raise NotAllowed(NOT_FOUND)
        return snapshot

    async def refresh_token(self, connection: Connection, token: str) -> TokenAccepted:
        """Replace a connection's token, and leave the jobs that the new one does not allow.

        Raises:
            TokenError: the token is invalid, revoked, or for another subject.
        """
        subject = await self._admission.verify(token)
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

    # --- rights -----------------------------------------------------------------------------------

    async def _grant(self, connection: Connection, job_id: str) -> Grant | None:
        """Return a connection's right to follow a job. Without the right, it leaves the job."""
        grant = None
        try:
            await self._check_revocations(connection.subject)
            grant = await self._authorizer.grant(connection.subject, job_id)
        finally:
            if grant is None:
                await self.leave(connection, job_id)
        return grant

    async def _check_revocations(self, subject: Subject) -> None:
        """Check that a subject's token was not revoked, as soon as the revocations are known.

        Raises:
            TokenError: the token was revoked since its verification.
            TransportUnavailable: the revocations cannot be read.
        """
        if self._revocations is not None:
            await self._revocations.known()
        self._admission.deny_list.check(subject)

    async def _follow(self, connection: Connection, request: JoinJob, grant: Grant) -> JoinAccepted:
        """Let a connection follow a job.

        Raises:
            NotAllowed: the right to follow the job ended during the join.
        """
        job_id = request.job_id
        history_before = connection.history
        # Added before the join, so that the end of the right during the join removes the job.
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
        self.refusals.info(
            "refused join of %s: sub=%s (%s)", job_id, shown(connection.subject.sub), refusal.code
        )
        metrics.REFUSED.labels(refusal.code).inc()
        return refusal

    async def _review(self, connection: Connection) -> None:
        """Leave the jobs and feeds that a connection's token does not allow.

        If the record of a job changes meanwhile, the relay checks again, with the connection's
        current token.
        """
        jobs = sorted(connection.jobs)
        allowed = await asyncio.gather(
            *(self._may_still_follow(connection.subject, job_id) for job_id in jobs)
        )
        for job_id, is_allowed in zip(jobs, allowed, strict=True):
            if not is_allowed and job_id in connection.jobs:
                self.relay.leave(job_id, connection.sid)
                self._right_ended(connection.sid, job_id, NOT_FOUND)
        await self.feeds.rights.review(connection)

    async def _may_still_follow(self, subject: Subject, job_id: str) -> bool:
        target = await self._authorizer.current(self.relay.target_of(job_id))
        return await self._authorizer.allows(subject, FOLLOW, target)

    async def _reauthorize_regularly(self) -> None:
        """Check the rights to all joined jobs and feeds every ``JOBCAST_REAUTHORIZE`` seconds."""
        while True:
            # The jitter keeps processes that started together from asking together.
            await asyncio.sleep(jittered(self._settings.reauthorize, 1.0, 1.1))
            for job_id in self.relay.jobs:
                await self._reauthorize(job_id)
            await self.feeds.rights.reauthorize()

    async def _reauthorize(self, job_id: str) -> None:
        """Check the rights of a job's followers. Followers that lost their right leave the job.

        Connections whose join is in progress are not checked: their rights have just been checked,
        and the job's record may not be known yet.
        """
        target = await self._authorizer.current(self.relay.target_of(job_id))
        refused = await self._rights.refused(target, self.relay.followers_of(job_id))
        for sid, refusal in refused.items():
            connection = self.connections.get(sid)
            if connection is not None and job_id in connection.jobs:
                self.relay.leave(job_id, sid)
                self._right_ended(sid, job_id, refusal)

    def _subject_of(self, sid: str) -> Subject | None:
        connection = self.connections.get(sid)
        return None if connection is None else connection.subject

    def _right_ended(self, sid: str, job_id: str, refusal: Refusal) -> None:
        """Send ``left`` to a connection that has lost the right to a job and has left its room."""
        connection = self.connections.get(sid)
        if connection is None:
            return
        connection.jobs.discard(job_id)
        self.send(connection, Left(job_id=job_id, code=refusal.code, message=refusal.message))
        self._tasks.spawn(connection.left(job_id))
        logger.info(
            "left %s: sub=%s may no longer follow the job (%s)",
            job_id, shown(connection.subject.sub), refusal.code,
        )  # fmt: skip

    # --- revocations ------------------------------------------------------------------------------

    def _resumed(self) -> None:
        """Read revocations and feeds again: messages may have been lost during an interruption."""
        self._feed_rooms.resumed()
        if self._revocations is not None:
            self._revocations.request_read()

    def _close_revoked(self) -> None:
        for connection in self.connections:
            if not connection.ended and self._admission.deny_list.denies(connection.subject):
                self._revoke(connection)

    def _revoke(self, connection: Connection) -> None:
        """Close a connection whose token was revoked, and send it no further events."""
        for job_id in connection.jobs:
            self.relay.leave(job_id, connection.sid)
        self.feeds.leave_all(connection)
        self.send(connection, Closing(code="token_revoked", message="the token was revoked"))
        connection.ended = True  # a join in progress checks this too
        logger.info(
            "closing %s: the token of sub=%s was revoked",
            connection.sid, shown(connection.subject.sub),
        )  # fmt: skip
        self._disconnect_soon(connection)

    def _disconnect_soon(self, connection: Connection) -> None:
        self._tasks.spawn(connection.disconnect())


def _count_finding(finding: Finding) -> None:
    metrics.LEASES.labels(finding.kind).inc()
