"""The rooms of one process: who follows a job here, and how far they have been brought."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from jobcast.errors import JobcastError, TransportUnavailable
from jobcast.events import PROGRESS, Cursor, Joined, packet_of
from jobcast.realtime import metrics
from jobcast.realtime.authorization import Grant
from jobcast.realtime.connection.frames import ROOT, FrameBatch
from jobcast.realtime.outlet import Outlet
from jobcast.realtime.recent import Recent
from jobcast.transports.base import NO_RECORD, Message, Snapshot

DISMISSED: Final = 8  # records that a room remembers not to be its job's
NO_MESSAGE_LEFT: Final = sys.maxsize


class Asked(Struct, frozen=True):
    """Where a room was when a read of the store began."""

    cursor: Cursor
    mark: int  # of the messages that had arrived

    def is_ahead_of(self, position: Cursor | Snapshot) -> bool:
        """Return whether the record has gone back: an older copy was restored, for example."""
        return is_ahead(self.cursor, position)


class Newcomer:
    """A follower that waits to be let in, after what it has seen."""

    def __init__(self, outlet: Outlet, after: Cursor | None, grant: Grant) -> None:
        self.outlet = outlet
        self.after = after
        self.grant = grant
        self.found: Snapshot | JobcastError | None = None  # None: not read yet

    @property
    def snapshot(self) -> Snapshot:
        """What it was let in with.

        Raises:
            TransportUnavailable: the history could not be read.
            NotAllowed: it may not follow the record.
        """
        if not isinstance(self.found, Snapshot):
            raise self.found or TransportUnavailable("the history was not read")
        return self.found


class Room:
    """A job that somebody follows here. All its followers have seen the same, up to ``seq``."""

    def __init__(self, job_id: str, subscribed: asyncio.Task[None], namespace: str = ROOT) -> None:
        self.job_id = job_id
        self.namespace = namespace
        self.subscribed = subscribed
        self.followers: dict[str, Outlet] = {}
        self.epoch = NO_RECORD
        self.seq = 0
        # The epoch and the owner of the record that all followers may follow.
        self.allowed: tuple[str, str | None] = (NO_RECORD, None)
        self.joining = 0  # followers that are on their way in
        self.newcomers: dict[Newcomer, None] = {}  # those of them that wait for the history
        # One reads the history at a time: what comes in while it does is all that it can miss.
        self.reading = asyncio.Lock()
        self.behind = False  # something is missing and being read from the history
        self.quiet = True  # nothing came since the last look at quiet rooms
        self._recent = Recent()  # what came while somebody was reading
        # Records of this job id that the store does not have: former ones, and those of others.
        self._dismissed: deque[str] = deque(maxlen=DISMISSED)
        self._unsent: list[Message] = []  # what came in this turn of the loop
        self._received = 0  # messages, in this turn too
        self._is_scheduled = False  # a flush at the end of this turn

    @property
    def deserted(self) -> bool:
        return not self.followers and not self.joining

    @property
    def position(self) -> Cursor:
        return Cursor(epoch=self.epoch, seq=self.seq)

    def ask(self) -> Asked:
        """Note where the room is, before the store is asked where its record is."""
        return Asked(self.position, self._recent.arrived)

    def begin_reading(self) -> Asked:
        """Note where the room is, before the history is read. ``reading`` is held."""
        if not self.behind:
            self._recent.clear()  # all of it was delivered, and the history has it
        return self.ask()

    def receive(self, message: Message) -> bool:
        """Take a message from the transport. Returns False if something before it is missing.

        One that continues what the followers have is delivered even while the room is behind: it
        may be in the history no more when that is read.
        """
        self._received += 1
        self._flush_soon()
        if message.epoch in self._dismissed:
            return True
        whole = not self.followers or self._advance(message) or self.behind
        if self.joining or self.behind or not whole:
            self._recent.add(message)
        return whole

    def _flush_soon(self) -> None:
        """Flush at the end of this turn: one write for each follower, not for each event."""
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._flush_turn)

    def _flush_turn(self) -> None:
        self._is_scheduled = False
        self.flush()
        metrics.RECEIVED.inc(self._received)
        self._received = 0

    def flush(self) -> None:
        """Send what came since the last time, all of it to one follower after the other."""
        if not self._unsent:
            return
        packets = [message.packet for message in self._unsent]
        values = [self.job_id if message.kind == PROGRESS else None for message in self._unsent]
        self._unsent.clear()
        batch = FrameBatch(packets, values, self.namespace)
        for outlet in self.followers.values():
            outlet.send(batch)
        metrics.DELIVERED.inc(len(packets) * len(self.followers))

    def lags(self, position: Cursor, asked: Asked) -> bool:
        """Whether the followers have not been brought to where the record is."""
        if not self.followers or self.behind or position.epoch == NO_RECORD:
            return False
        if position.epoch != self.epoch:
            return True
        return position.seq > self.seq or asked.is_ahead_of(position)

    def waiting(self, after: Cursor | None) -> list[Newcomer]:
        """Return the newcomers that wait for the history after a cursor."""
        return [newcomer for newcomer in self.newcomers if newcomer.after == after]

    def needs_rights(self, snapshot: Snapshot) -> bool:
        """Return whether the followers' right to this record has not been checked yet."""
        return bool(
            self.followers
            and snapshot.epoch != NO_RECORD
            and self.allowed != (snapshot.epoch, snapshot.owner)
        )

    def catch_up(self, snapshot: Snapshot, asked: Asked) -> list[str]:
        """Bring the followers to where a snapshot ends.

        Args:
            snapshot: it reaches back to where the room was, or is whole.
            asked: where the room was when the read began.

        Returns:
            The records of this job id that messages were received of and the store does not have.
        """
        if not self.followers:
            self._move_to(snapshot)
        elif asked.is_ahead_of(snapshot):
            # The same name stands for another record: clients forget a record when they see
            # another epoch.
            self._send_history([joined_packet(self.job_id, Snapshot())])
            self._begin(snapshot)
        elif snapshot.epoch != self.epoch:
            # Nothing between the last message and these is left anywhere.
            self._deliver(self._recent.within(self.epoch, self.seq, NO_MESSAGE_LEFT))
            if snapshot.epoch != NO_RECORD:
                self._begin(snapshot)
        elif snapshot.seq > self.seq:
            kept = {message.seq: message for message in snapshot.events}
            # What the store has evicted already may have been received.
            came = self._recent.within(self.epoch, self.seq, snapshot.seq)
            whole = {**{message.seq: message for message in came}, **kept}
            self._send_history([whole[seq].packet for seq in sorted(whole) if seq > self.seq])
            self.seq = snapshot.seq
        return self._dismiss(asked)

    def replay(self) -> bool:
        """Deliver what came in while the history was read. Returns False as ``receive`` does."""
        whole = True
        for message in self._recent.take():
            if self.followers and message.epoch not in self._dismissed:
                whole = self._advance(message) and whole
                if not whole:
                    self._recent.add(message)
        self.flush()
        return whole

    def admit(self, outlets: Sequence[Outlet], snapshot: Snapshot, after: Cursor | None) -> bool:
        """Let followers in: first what the history has beyond ``after``, then what came since.

        ``catch_up`` has been called with the snapshot, and all of them may follow its record.
        Returns False, and admits no follower, if more came since than is kept.
        """
        self.flush()  # of this the newcomers get what they should
        since = self._recent.within(snapshot.epoch, snapshot.seq, self.seq)
        if snapshot.epoch == self.epoch and len(since) < self.seq - snapshot.seq:
            return False
        if snapshot.epoch != NO_RECORD or not self.followers:
            self.allowed = (snapshot.epoch, snapshot.owner)
        seen = after.seq if after is not None and snapshot.recovered else 0
        packets = [joined_packet(self.job_id, snapshot), *_after(snapshot, seen)]
        packets += [message.packet for message in since]
        if is_ahead(after, snapshot):
            packets.insert(0, joined_packet(self.job_id, Snapshot()))
        batch = FrameBatch(packets, namespace=self.namespace)
        for outlet in outlets:
            if not outlet.closed:
                outlet.send_history(batch)
                metrics.DELIVERED.inc(len(packets) - 1)
                self.followers[outlet.sid] = outlet
        return True

    def settle(self) -> None:
        """Forget what came in, when nobody needs it any more."""
        if not self.joining and not self.behind:
            self._recent.clear()

    def _begin(self, snapshot: Snapshot) -> None:
        """Send the followers another record from its beginning."""
        self._send_history([joined_packet(self.job_id, snapshot), *_after(snapshot, 0)])
        self._move_to(snapshot)

    def _move_to(self, snapshot: Snapshot) -> None:
        if snapshot.epoch in self._dismissed:
            self._dismissed.remove(snapshot.epoch)
        self.epoch, self.seq = snapshot.epoch, snapshot.seq

    def _dismiss(self, asked: Asked) -> list[str]:
        """Drop what had arrived when a read began: the store has shown what is true of it."""
        before = self._recent.take_before(asked.mark)
        others = {message.epoch for message in before} - {self.epoch, asked.cursor.epoch}
        self._dismissed.extend(others)
        if asked.cursor.epoch not in (self.epoch, NO_RECORD):
            self._dismissed.append(asked.cursor.epoch)
        return sorted(others)

    def _advance(self, message: Message) -> bool:
        if message.epoch != self.epoch:
            return False
        if message.seq <= self.seq:
            return True
        if message.seq != self.seq + 1:
            return False
        self._deliver([message])
        return True

    def _deliver(self, messages: Sequence[Message]) -> None:
        for message in messages:
            self.seq = message.seq
            self.quiet = False
            self._unsent.append(message)

    def _send_history(self, packets: Sequence[str]) -> None:
        self.flush()
        batch = FrameBatch(packets, namespace=self.namespace)
        for outlet in self.followers.values():
            outlet.send_history(batch)
        metrics.DELIVERED.inc(len(packets) * len(self.followers))


def is_ahead(cursor: Cursor | None, position: Cursor | Snapshot) -> bool:
    """Return whether a cursor is in a record, and behind its end: the record has gone back."""
    return cursor is not None and cursor.epoch == position.epoch and cursor.seq > position.seq


def _after(snapshot: Snapshot, seen: int) -> list[str]:
    return [message.packet for message in snapshot.events if message.seq > seen]


def joined_packet(job_id: str, snapshot: Snapshot) -> str:
    return packet_of(
        Joined(job_id=job_id, epoch=snapshot.epoch, seq=snapshot.seq, status=snapshot.state)
    )
