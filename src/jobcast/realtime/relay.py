"""From the transport to the rooms: nothing missing, nothing twice, in order."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

from jobcast.cancellation import cancel_and_wait
from jobcast.errors import TransportUnavailable
from jobcast.events import Cursor, JoinAccepted
from jobcast.loops import LoopChange
from jobcast.realtime import metrics
from jobcast.realtime.auth import EVERY_OWNER, Grant
from jobcast.realtime.bundle import ROOT
from jobcast.realtime.outlet import Outlet
from jobcast.realtime.rights import NotAllowed, Rights
from jobcast.realtime.rooms import Asked, Newcomer, Room, is_ahead
from jobcast.transports import Message, Source
from jobcast.transports.base import Snapshot
from jobcast.transports.canary import Canary, SupportsCanary

RETRY_DELAY: Final = 0.5  # seconds between the first tries to read what a room is missing
LONGEST_DELAY: Final = 10.0  # seconds between two tries, after many
READING_AT_ONCE: Final = 50  # rooms that read what they are missing at the same time
QUIET_CHECK: Final = 25.0  # seconds between two looks at rooms in which nothing came
MEASURED: Final = 1.0  # seconds between two measurements of how long ago something was heard
POSITIONS: Final = 500  # rooms that are looked at in one go

logger = logging.getLogger(__name__)


class Relay:
    """The rooms of this process, each subscribed to while somebody here follows its job.

    Args:
        source: where events come from.
        quiet_check: seconds between two looks at rooms in which nothing came. That a connection
            is up does not prove that it is heard on: what a room should have got is in the store.
        namespace: that the followers are connected to.
        rights: decides whether followers may follow a record with another epoch or owner; all
            may if there is none.
        on_resumed: is called after an interruption, in which messages may have been lost.
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
        self._met_others = False  # it was logged that jobs have records which are not the store's
        self._change = LoopChange()
        self._begin()

    def _begin(self) -> None:
        """Make what belongs to a loop."""
        # Histories that rooms are missing and that are in memory together.
        self._reads = asyncio.Semaphore(READING_AT_ONCE)
        self._rooms: dict[str, Room] = {}
        self._received = 0  # events in this turn of the loop
        self._unsent: dict[Room, None] = {}  # rooms with events that came in this turn of the loop
        self._tasks: set[asyncio.Task[Any]] = set()
        self._started = False

    @property
    def ready(self) -> bool:
        return not self.problem

    @property
    def problem(self) -> str:
        """Why no events can be received now; empty if they can."""
        if not self._source.ready:
            return "the transport is not reached"
        if isinstance(self._source, SupportsCanary):
            return self._source.canary.problem
        return ""

    @property
    def followed(self) -> int:
        """How many jobs somebody follows here."""
        return len(self._rooms)

    def start(self) -> None:
        """Begin to receive, in the running loop. Calling it again there changes nothing."""
        if self._change.happened():
            metrics.JOBS.dec(len(self._rooms))
            self._begin()
        if not self._started:
            self._started = True
            self._source.start(self._receive, self._resume)
            self._spawn(self._watch_quiet_rooms())
            if isinstance(self._source, SupportsCanary):
                self._spawn(self._measure(self._source.canary))

    async def aclose(self) -> None:
        await cancel_and_wait(*self._tasks)
        metrics.JOBS.dec(len(self._rooms))
        self._rooms.clear()
        await self._source.aclose()
        self._started = False

    async def join(
        self,
        job_id: str,
        outlet: Outlet,
        after: Cursor | None = None,
        grant: Grant = EVERY_OWNER,
    ) -> JoinAccepted:
        """Let a follower in: it gets what is retained (after ``after``), then what comes.

        A follower whose ``grant`` is for another owner than the record's is let in only if it may
        follow that owner's job too.

        Raises:
            TransportUnavailable: the job's events cannot be received or read now.
            NotAllowed: the follower may not follow the record.
        """
        await outlet.drained()
        room = self._rooms.get(job_id) or self._open(job_id)
        room.joining += 1
        newcomer = Newcomer(outlet, after, grant)
        try:
            # Shielded: others wait for the same subscription.
            await asyncio.shield(room.subscribed)
            room.newcomers[newcomer] = None
            async with room.reading:
                if newcomer.found is None:
                    await self._let_in(room, after)
        except asyncio.CancelledError:
            room.newcomers.pop(newcomer, None)
            room.followers.pop(outlet.sid, None)
            raise
        finally:
            room.joining -= 1
            room.settle()
            self._close_if_deserted(room)
        snapshot = newcomer.snapshot
        return JoinAccepted(
            job_id=job_id,
            status=snapshot.state,
            epoch=snapshot.epoch,
            seq=snapshot.seq,
            recovered=snapshot.recovered,
        )

    def owner_of(self, job_id: str) -> str | None:
        """Return the owner of the record that a job's followers are sent."""
        room = self._rooms.get(job_id)
        return None if room is None else room.allowed[1]

    def leave(self, job_id: str, sid: str) -> None:
        """Let a follower out; it gets nothing more. One that is not in is no error."""
        room = self._rooms.get(job_id)
        if room is not None:
            room.followers.pop(sid, None)
            self._close_if_deserted(room)

    async def _let_in(self, room: Room, after: Cursor | None) -> None:
        """Read the history once for all who wait for the same of it: after an outage all do."""
        found: Snapshot | TransportUnavailable
        try:
            while True:
                asked = room.begin_reading()
                found = await self._snapshot(room, _reach(after, room), asked, after)
                if not await self._ask_rights(room, found, room.waiting(after)):
                    break
                # The record may have changed while the answer took its time.
            self._catch_up(room, found, asked)
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
        self, room: Room, reach: Cursor | None, asked: Asked, after: Cursor | None = None
    ) -> Snapshot:
        """Read the history from ``reach`` on, or the whole of a record that has gone back.

        ``reading`` is held. ``after`` is where the newcomers are.

        Raises:
            TransportUnavailable: the history cannot be read.
        """
        snapshot = await self._source.snapshot(room.job_id, reach)
        if snapshot.recovered and (asked.is_ahead_of(snapshot) or is_ahead(after, snapshot)):
            snapshot = await self._source.snapshot(room.job_id)
        return snapshot

    def _catch_up(self, room: Room, snapshot: Snapshot, asked: Asked) -> None:
        """Bring the followers, who may follow its record, to where the history is."""
        others = room.catch_up(snapshot, asked)
        if others:
            logger.log(
                logging.DEBUG if self._met_others else logging.WARNING,
                "job %s: ignored events of %d other records of this id, which the store does not"
                " have. Do two deployments share a Redis? Give each a JOBCAST_PREFIX of its own"
                " (further cases are logged at level debug)", room.job_id, len(others),
            )  # fmt: skip
            self._met_others = True

    async def _ask_rights(
        self, room: Room, snapshot: Snapshot, newcomers: Sequence[Newcomer] = ()
    ) -> bool:
        """Ask who may follow a record, before anything of it is sent. ``reading`` is held.

        Asked are the followers, if they were let in to another record, and the newcomers whose
        grant is for another owner. Those who may not follow it leave.

        Returns:
            Whether the rule was asked; if so, the history has to be read again.

        Raises:
            TransportUnavailable: there is no answer now.
        """
        followers = list(room.followers) if room.needs_rights(snapshot) else []
        newcomers = [one for one in newcomers if not one.grant.covers(snapshot.owner)]
        asked = [*followers, *(newcomer.outlet.sid for newcomer in newcomers)]
        if not asked or self._rights is None:
            return False
        refused = await self._rights.refused(room.job_id, asked, snapshot.owner)
        for newcomer in newcomers:
            newcomer.grant = Grant(snapshot.owner)
            refusal = refused.get(newcomer.outlet.sid)
            if refusal is not None and newcomer in room.newcomers:
                newcomer.found = NotAllowed(refusal)
                del room.newcomers[newcomer]
        if followers:
            room.allowed = (snapshot.epoch, snapshot.owner)
            for sid in followers:
                if sid in refused and room.followers.pop(sid, None) is not None:
                    self._rights.ended(room.job_id, sid, refused[sid])
            self._close_if_deserted(room)
        return True

    def _open(self, job_id: str) -> Room:
        room = Room(job_id, self._spawn(self._source.subscribe(job_id)), self._namespace)
        self._rooms[job_id] = room
        metrics.JOBS.inc()
        return room

    def _close_if_deserted(self, room: Room) -> None:
        if room.deserted and self._rooms.get(room.job_id) is room:
            del self._rooms[room.job_id]
            metrics.JOBS.dec()
            room.subscribed.cancel()
            self._spawn(self._unsubscribe(room.job_id))

    async def _unsubscribe(self, job_id: str) -> None:
        if job_id not in self._rooms:
            await self._source.unsubscribe(job_id)

    def _receive(self, job_id: str, message: Message) -> None:
        room = self._rooms.get(job_id)
        if room is None:
            return
        self._received += 1
        if not room.receive(message):
            metrics.GAPS.inc()
            self._fill(room)
        self._send_soon(room)

    def _send_soon(self, room: Room) -> None:
        """What came together goes out together: a write for each follower, not for each event."""
        if not self._unsent:
            asyncio.get_running_loop().call_soon(self._send)
        self._unsent[room] = None

    def _send(self) -> None:
        rooms, self._unsent = self._unsent, {}
        for room in rooms:
            room.flush()
        metrics.RECEIVED.inc(self._received)
        self._received = 0

    async def _resume(self) -> None:
        """After an interruption, read what every room missed."""
        self._on_resumed()
        rooms = [room for room in self._rooms.values() if not room.behind]
        for room in rooms:
            room.behind = True
        await asyncio.gather(*(self._read_missing(room) for room in rooms))

    def _fill(self, room: Room) -> None:
        if not room.behind:
            room.behind = True
            self._spawn(self._read_missing(room))

    async def _read_missing(self, room: Room) -> None:
        """Read what a room is missing, and deliver it before anything newer."""
        delay = 0.0  # what came in during a read is usually whole with the next one
        while self._rooms.get(room.job_id) is room:
            try:
                async with room.reading:
                    async with self._reads:
                        asked = room.begin_reading()
                        snapshot = await self._snapshot(room, room.position, asked)
                        foreign = self._rights is not None and room.needs_rights(snapshot)
                        if not foreign:
                            self._catch_up(room, snapshot, asked)
                    if foreign:
                        await self._ask_rights(room, snapshot)
                        continue
                    if room.replay():
                        break
            except TransportUnavailable as exc:
                logger.debug("job %s: %s", room.job_id, exc)
                delay = max(delay, RETRY_DELAY)
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))
            delay = min(LONGEST_DELAY, max(RETRY_DELAY, 2 * delay))
        room.behind = False
        room.settle()

    async def _watch_quiet_rooms(self) -> None:
        while True:
            # Processes that were started together do not ask together.
            await asyncio.sleep(self._quiet_check * random.uniform(0.5, 1.0))
            try:
                await self._look_at_quiet_rooms()
            except TransportUnavailable as exc:
                logger.debug("quiet rooms: %s", exc)

    async def _measure(self, canary: Canary) -> None:
        while True:
            metrics.CANARY_AGE.set(canary.age)
            await asyncio.sleep(MEASURED)

    async def _look_at_quiet_rooms(self) -> None:
        quiet = [room for room in self._rooms.values() if room.quiet and room.followers]
        for room in self._rooms.values():
            room.quiet = True
        for start in range(0, len(quiet), POSITIONS):
            some = quiet[start : start + POSITIONS]
            asked = [room.ask() for room in some]
            positions = await self._source.positions([room.job_id for room in some])
            for room, position, before in zip(some, positions, asked, strict=True):
                if room.lags(position, before):
                    logger.info(
                        "job %s: followers lag behind the store; reading the history", room.job_id
                    )
                    metrics.GAPS.inc()
                    self._fill(room)

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        # Those who wait for a subscription are told; there may be nobody left who does.
        if not task.cancelled() and (problem := task.exception()) is not None:
            logger.info("%s", problem)


def _reach(after: Cursor | None, room: Room) -> Cursor | None:
    """From where to read the history, so that it is enough for the newcomer and for the room."""
    if after is None or not room.followers:
        return after
    if after.epoch != room.epoch:
        return None
    return Cursor(epoch=after.epoch, seq=min(after.seq, room.seq))
