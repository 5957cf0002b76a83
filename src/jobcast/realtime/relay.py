"""The relay delivers each job's events from the transport to its room, once and in order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

from jobcast.aio import BackgroundTasks, Backoff, LoopChange, jittered, shielded
from jobcast.errors import TransportUnavailable
from jobcast.events import Cursor, JoinAccepted
from jobcast.realtime import metrics
from jobcast.realtime.authorization import EVERY_RECORD, Grant
from jobcast.realtime.connection.frames import ROOT
from jobcast.realtime.outlet import Outlet
from jobcast.realtime.rights import NotAllowed, Rights
from jobcast.realtime.room import Newcomer, ReadStart, Room, is_ahead
from jobcast.targets import JobTarget
from jobcast.transports import Message, Source
from jobcast.transports.base import Snapshot
from jobcast.transports.canary import Canary, SupportsCanary

RETRY_DELAY: Final = 0.5  # initial delay between attempts to read missing events, in seconds
LONGEST_DELAY: Final = 10.0  # maximum delay between attempts, in seconds
READING_AT_ONCE: Final = 50  # rooms that read missing events concurrently
QUIET_CHECK: Final = 25.0  # interval between checks of rooms without new events, in seconds
MEASURE_INTERVAL: Final = 1.0  # seconds between updates of the canary's age
POSITIONS: Final = 500  # rooms per request for positions

logger = logging.getLogger(__name__)


class Relay:
    """The rooms of this process. A room is subscribed while its job has followers here.

    Args:
        source: the transport's source of events.
        quiet_check: interval, in seconds, between checks of rooms without new events. An open
            connection to the transport does not prove that messages arrive, so the relay compares
            these rooms with the store.
        namespace: the namespace that the followers are connected to.
        rights: decides whether followers may follow a record with another epoch or owner. Without
            it, all followers may.
        on_resumed: called after an interruption, during which messages may have been lost.
    """

    def __init__(
        self,
        source: Source,
        quiet_check: float = QUIET_CHECK,
        *,
        namespace: str = ROOT,
        rights: Rights | None = None,
        on_resumed: Callable[[], None] = lambda: None,
    ) -> None:
        self._source = source
        self._on_resumed = on_resumed
        self._namespace = namespace
        self._rights = rights
        self._quiet_check = quiet_check
        self._foreign_logged = False  # whether events of foreign records were logged as a warning
        self._change = LoopChange()
        self._reset()

    def _reset(self) -> None:
        """Reset the state that belongs to one event loop."""
        # Bounds the number of missed histories that are in memory at the same time.
        self._reads = asyncio.Semaphore(READING_AT_ONCE)
        self._rooms: dict[str, Room] = {}
        self._tasks = BackgroundTasks(_log_problem)
        self._started = False

    @property
    def ready(self) -> bool:
        return not self.problem

    @property
    def problem(self) -> str:
        """The reason why the relay cannot receive events now; empty if it can."""
        if not self._source.ready:
            return "the transport is not reached"
        if isinstance(self._source, SupportsCanary):
            return self._source.canary.problem
        return ""

    @property
    def followed(self) -> int:
        """The number of jobs with followers in this process."""
        return len(self._rooms)

    def start(self) -> None:
        """Start to receive events in the running event loop. Repeated calls have no effect."""
        if self._change.happened():
            metrics.JOBS.dec(len(self._rooms))
            self._reset()
        if not self._started:
            self._started = True
            self._source.start(self._receive, self._resume)
            self._tasks.spawn(self._watch_quiet_rooms())
            if isinstance(self._source, SupportsCanary):
                self._tasks.spawn(self._measure(self._source.canary))

    async def aclose(self) -> None:
        await self._tasks.cancel()
        metrics.JOBS.dec(len(self._rooms))
        self._rooms.clear()
        await self._source.aclose()
        self._started = False

    async def join(
        self,
        job_id: str,
        outlet: Outlet,
        after: Cursor | None = None,
        grant: Grant = EVERY_RECORD,
    ) -> JoinAccepted:
        """Add a follower: send it the retained events after ``after``, then live events.

        A follower whose ``grant`` does not cover the record joins only if ``rights`` allows the
        record too.

        Args:
            job_id: the job to follow.
            outlet: the follower's connection.
            after: the follower's last position; None for the whole history.
            grant: the follower's right to follow the job.

        Raises:
            TransportUnavailable: the transport cannot receive or read the job's events now.
            NotAllowed: the follower may not follow the record.
        """
        await outlet.drained()
        room = self._rooms.get(job_id) or self._open(job_id)
        room.joining += 1
        newcomer = Newcomer(outlet, after, grant)
        try:
            if not room.subscribed.done():
                # Shielded because other joins wait for the same subscription.
                await shielded(room.subscribed)
            room.subscribed.result()
            room.newcomers[newcomer] = None
            async with room.reading:
                if newcomer.found is None:
                    await self._admit(room, after)
        except asyncio.CancelledError:
            room.newcomers.pop(newcomer, None)
            room.followers.pop(outlet.sid, None)
            raise
        finally:
            room.joining -= 1
            room.discard_recent()
            self._close_if_empty(room)
        snapshot = newcomer.snapshot
        return JoinAccepted(
            job_id=job_id,
            status=snapshot.state,
            epoch=snapshot.epoch,
            seq=snapshot.seq,
            recovered=snapshot.recovered,
        )

    def target_of(self, job_id: str) -> JobTarget:
        """Return a job as it was described when its followers' rights were last checked."""
        room = self._rooms.get(job_id)
        return JobTarget(id=job_id) if room is None else room.target

    @property
    def jobs(self) -> list[str]:
        """The jobs with followers in this process."""
        return list(self._rooms)

    def followers_of(self, job_id: str) -> list[str]:
        """Return the connections that receive a job's events, without those that still join."""
        room = self._rooms.get(job_id)
        return [] if room is None else list(room.followers)

    def leave(self, job_id: str, sid: str) -> None:
        """Remove a follower, which then receives no further events. Ignore an unknown one."""
        room = self._rooms.get(job_id)
        if room is not None:
            room.followers.pop(sid, None)
            self._close_if_empty(room)

    async def _admit(self, room: Room, after: Cursor | None) -> None:
        """Read the history once for all newcomers with the same cursor.

        After an outage, all followers of a job usually join with the same cursor.
        """
        found: Snapshot | TransportUnavailable
        try:
            while True:
                read_start = room.begin_reading()
                found = await self._snapshot(room, _read_from(after, room), read_start, after)
                if not await self._check_rights(room, found, room.waiting(after)):
                    break
                # The record may have changed while the rule ran.
            self._catch_up(room, found, read_start)
        except TransportUnavailable as exc:
            found = exc
        group = room.waiting(after)
        if isinstance(found, Snapshot) and not room.admit(
            [newcomer.outlet for newcomer in group], found, after
        ):
            found = TransportUnavailable(f"job {room.job_id} is faster than its history is read")
        for newcomer in group:
            newcomer.found = found
            del room.newcomers[newcomer]
        if not room.behind and not room.replay():
            self._fill(room)

    async def _snapshot(
        self,
        room: Room,
        read_from: Cursor | None,
        read_start: ReadStart,
        after: Cursor | None = None,
    ) -> Snapshot:
        """Read the history after ``read_from``, or all of it if the record has gone back.

        The caller holds ``room.reading``. ``after`` is the newcomers' cursor.

        Raises:
            TransportUnavailable: the transport cannot read the history.
        """
        snapshot = await self._source.snapshot(room.job_id, read_from)
        if snapshot.recovered and (read_start.is_ahead_of(snapshot) or is_ahead(after, snapshot)):
            snapshot = await self._source.snapshot(room.job_id)
        return snapshot

    def _catch_up(self, room: Room, snapshot: Snapshot, read_start: ReadStart) -> None:
        """Bring the followers to the end of the history. They may follow its record."""
        others = room.catch_up(snapshot, read_start)
        if others:
            logger.log(
                logging.DEBUG if self._foreign_logged else logging.WARNING,
                "job %s: ignored events of %d other records of this job id that the store does not"
                " have. If two deployments share a Redis, give each its own JOBCAST_PREFIX"
                " (further cases are logged at level debug)", room.job_id, len(others),
            )  # fmt: skip
            self._foreign_logged = True

    async def _check_rights(
        self, room: Room, snapshot: Snapshot, newcomers: Sequence[Newcomer] = ()
    ) -> bool:
        """Check who may follow a record before any of its events are sent.

        The check covers the followers, if they joined another record, and the newcomers whose
        grant does not cover the record. Those who may not follow the record leave. The caller
        holds ``room.reading``.

        Returns:
            Whether the rule was called; if so, the caller has to read the history again.

        Raises:
            TransportUnavailable: the rights cannot be checked now.
        """
        followers = list(room.followers) if room.needs_rights_check(snapshot) else []
        target = JobTarget.of(room.job_id, snapshot.info)
        newcomers = [one for one in newcomers if not one.grant.covers(target)]
        sids = [*followers, *(newcomer.outlet.sid for newcomer in newcomers)]
        if not sids or self._rights is None:
            return False
        refused = await self._rights.refused(target, sids)
        for newcomer in newcomers:
            newcomer.grant = Grant(target)
            refusal = refused.get(newcomer.outlet.sid)
            if refusal is not None and newcomer in room.newcomers:
                newcomer.found = NotAllowed(refusal)
                del room.newcomers[newcomer]
        if followers:
            room.allow(snapshot)
            for sid in followers:
                if sid in refused and room.followers.pop(sid, None) is not None:
                    self._rights.ended(room.job_id, sid, refused[sid])
            self._close_if_empty(room)
        return True

    def _open(self, job_id: str) -> Room:
        room = Room(job_id, self._tasks.spawn(self._source.subscribe(job_id)), self._namespace)
        self._rooms[job_id] = room
        metrics.JOBS.inc()
        return room

    def _close_if_empty(self, room: Room) -> None:
        if room.is_empty and self._rooms.get(room.job_id) is room:
            del self._rooms[room.job_id]
            metrics.JOBS.dec()
            room.subscribed.cancel()
            self._tasks.spawn(self._unsubscribe(room.job_id))

    async def _unsubscribe(self, job_id: str) -> None:
        if job_id not in self._rooms:
            await self._source.unsubscribe(job_id)

    def _receive(self, job_id: str, message: Message) -> None:
        room = self._rooms.get(job_id)
        if room is None:
            return
        if not room.receive(message):
            metrics.GAPS.inc()
            self._fill(room)

    async def _resume(self) -> None:
        """Read the events that each room missed during an interruption."""
        self._on_resumed()
        rooms = [room for room in self._rooms.values() if not room.behind]
        for room in rooms:
            room.behind = True
        await asyncio.gather(*(self._read_missing(room) for room in rooms))

    def _fill(self, room: Room) -> None:
        if not room.behind:
            room.behind = True
            self._tasks.spawn(self._read_missing(room))

    async def _read_missing(self, room: Room) -> None:
        """Read the events that a room is missing, and deliver them before newer ones."""
        backoff = Backoff(RETRY_DELAY, LONGEST_DELAY)
        immediate = True  # a second read usually closes a gap that arose during the first
        while self._rooms.get(room.job_id) is room:
            try:
                async with room.reading:
                    async with self._reads:
                        read_start = room.begin_reading()
                        snapshot = await self._snapshot(room, room.position, read_start)
                        foreign = self._rights is not None and room.needs_rights_check(snapshot)
                        if not foreign:
                            self._catch_up(room, snapshot, read_start)
                    if foreign:
                        await self._check_rights(room, snapshot)
                        continue
                    if room.replay():
                        break
            except TransportUnavailable as exc:
                logger.debug(
                    "job %s: could not read missing events (%s); retrying", room.job_id, exc
                )
                immediate = False
            if immediate:
                immediate = False
                await asyncio.sleep(0)
            else:
                await asyncio.sleep(backoff.delay())
                backoff.failed()
        room.behind = False
        room.discard_recent()

    async def _watch_quiet_rooms(self) -> None:
        while True:
            await asyncio.sleep(jittered(self._quiet_check, 0.5, 1.0))
            try:
                await self._check_quiet_rooms()
            except TransportUnavailable as exc:
                logger.debug("could not check quiet rooms (%s); checking again later", exc)

    async def _measure(self, canary: Canary) -> None:
        while True:
            metrics.CANARY_AGE.set(canary.age)
            await asyncio.sleep(MEASURE_INTERVAL)

    async def _check_quiet_rooms(self) -> None:
        quiet = [room for room in self._rooms.values() if room.quiet and room.followers]
        for room in self._rooms.values():
            room.quiet = True
        for start in range(0, len(quiet), POSITIONS):
            group = quiet[start : start + POSITIONS]
            read_starts = [room.mark_read_start() for room in group]
            positions = await self._source.positions([room.job_id for room in group])
            for room, position, read_start in zip(group, positions, read_starts, strict=True):
                if room.lags(position, read_start):
                    logger.info(
                        "job %s: followers lag behind the store; reading the history", room.job_id
                    )
                    metrics.GAPS.inc()
                    self._fill(room)


def _log_problem(problem: BaseException) -> None:
    # The join that waits for a subscription raises the error too, unless it was cancelled.
    logger.info("a background task of the relay failed: %s", problem)


def _read_from(after: Cursor | None, room: Room) -> Cursor | None:
    """Return the cursor to read the history from, for both the newcomer and the room."""
    if after is None or not room.followers:
        return after
    if after.epoch != room.epoch:
        return None
    return Cursor(epoch=after.epoch, seq=min(after.seq, room.seq))
