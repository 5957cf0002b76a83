"""The rooms of one process: the followers of each job, and their position in its record."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Container, Sequence
from typing import Final

from msgspec import UNSET, Struct

from jobcast.errors import JobcastError, TransportUnavailable
from jobcast.events import (
    INFO,
    NO_INFO,
    Cursor,
    JobInfoUpdate,
    Joined,
    packet_head,
    packet_tail,
)
from jobcast.protocol import packet_of
from jobcast.realtime import metrics
from jobcast.realtime.authorization import Grant
from jobcast.realtime.connection.frames import ROOT, FrameBatch, notice
from jobcast.realtime.gap import Gap
from jobcast.realtime.outlet import Outlet
from jobcast.realtime.recent import Recent
from jobcast.targets import JobTarget
from jobcast.transports.base import NO_RECORD, Message, Snapshot

DISMISSED: Final = 8  # foreign records that a room remembers and ignores
NO_UPPER_BOUND: Final = sys.maxsize


class ReadStart(Struct, frozen=True):
    """The position of a room when a read of the store began."""

    cursor: Cursor
    mark: int  # number of messages that had arrived

    def is_ahead_of(self, position: Cursor | Snapshot) -> bool:
        """Return whether the record has gone back, for example to a restored older copy."""
        return is_ahead(self.cursor, position)


class Newcomer:
    """A follower that waits for the history after its cursor."""

    def __init__(self, outlet: Outlet, after: Cursor | None, grant: Grant) -> None:
        self.outlet = outlet
        self.after = after
        self.grant = grant
        self.found: Snapshot | JobcastError | None = None  # None: not read yet

    @property
    def snapshot(self) -> Snapshot:
        """The history that the follower received.

        Raises:
            TransportUnavailable: the transport could not read the history.
            NotAllowed: the follower may not follow the record.
        """
        if not isinstance(self.found, Snapshot):
            raise self.found or TransportUnavailable("the history has not been read")
        return self.found


class Room:
    """The followers of one job in this process. All of them have received events up to ``seq``.

    Args:
        job_id: the job.
        subscribed: the task that subscribes to the job's events.
        namespace: the namespace that the followers are connected to.
    """

    def __init__(self, job_id: str, subscribed: asyncio.Task[None], namespace: str = ROOT) -> None:
        self.job_id = job_id
        self.namespace = namespace
        self.subscribed = subscribed
        self.followers: dict[str, Outlet] = {}
        self.epoch = NO_RECORD
        self.seq = 0
        self.info = NO_INFO  # the description in the latest snapshot
        # The record that all followers may follow, and its description when they were checked.
        self._allowed_epoch = NO_RECORD
        self.target = JobTarget(id=job_id)
        self.joining = 0  # number of joins in progress
        self.newcomers: dict[Newcomer, None] = {}  # joining followers that wait for the history
        # With one read at a time, a read can only miss the messages that arrive during it.
        self.reading = asyncio.Lock()
        self.behind = False  # whether missing events are being read from the history
        self.quiet = True  # whether no message has arrived since the last check of quiet rooms
        self._recent = Recent()  # messages that arrived during a read
        # Records of this job id that the store does not have: former or foreign ones.
        self._dismissed: deque[str] = deque(maxlen=DISMISSED)
        self._unsent: list[Message] = []  # messages of this iteration of the event loop
        self._received = 0  # number of messages received in this iteration
        self._is_scheduled = False  # whether a flush is scheduled for the end of this iteration

    @property
    def is_empty(self) -> bool:
        """Whether the room has no followers and no joins in progress."""
        return not self.followers and not self.joining

    @property
    def position(self) -> Cursor:
        """The position that all followers have received events up to."""
        return Cursor(epoch=self.epoch, seq=self.seq)

    def mark_read_start(self) -> ReadStart:
        """Return the room's position, as of before the store's position is read."""
        return ReadStart(self.position, self._recent.arrived)

    def begin_reading(self) -> ReadStart:
        """Return the room's position, as of before the history is read.

        The caller holds ``reading``.
        """
        if not self.behind:
            self._recent.clear()  # all were delivered, and the history contains them
        return self.mark_read_start()

    def receive(self, message: Message) -> bool:
        """Handle a message from the transport. Return False if earlier messages are missing.

        A message that directly follows the room's position is delivered even while the room is
        behind: the store may evict it before the history is read.
        """
        self._received += 1
        self._flush_soon()
        if message.epoch in self._dismissed:
            return True
        complete = not self.followers or self._advance(message) or self.behind
        if self.joining or self.behind or not complete:
            self._recent.add(message)
        return complete

    def _flush_soon(self) -> None:
        """Schedule a flush at the end of this loop iteration.

        Each follower then gets one write for all events instead of one write per event.
        """
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._flush_turn)

    def _flush_turn(self) -> None:
        self._is_scheduled = False
        self.flush()
        metrics.RECEIVED.inc(self._received)
        self._received = 0

    def flush(self) -> None:
        """Send the messages since the last flush to each follower."""
        if not self._unsent:
            return
        messages, self._unsent = self._unsent, []
        batch = FrameBatch(messages, self.job_id, self.namespace)
        for outlet in self.followers.values():
            outlet.send(batch)
        metrics.DELIVERED.inc(len(messages) * len(self.followers))

    def lags(self, position: Cursor, read_start: ReadStart) -> bool:
        """Return whether the followers lag behind the record's position in the store."""
        if not self.followers or self.behind or position.epoch == NO_RECORD:
            return False
        if position.epoch != self.epoch:
            return True
        return position.seq > self.seq or read_start.is_ahead_of(position)

    def waiting(self, after: Cursor | None) -> list[Newcomer]:
        """Return the newcomers that wait for the history after this cursor."""
        return [newcomer for newcomer in self.newcomers if newcomer.after == after]

    def needs_rights_check(self, snapshot: Snapshot) -> bool:
        """Return whether the followers' rights to this record have yet to be checked."""
        allowed = self._allowed_epoch, self.target.owner
        return bool(
            self.followers
            and snapshot.epoch != NO_RECORD
            and allowed != (snapshot.epoch, snapshot.owner)
        )

    def allow(self, snapshot: Snapshot) -> None:
        """Note that all followers may follow the record of a snapshot."""
        self._allowed_epoch = snapshot.epoch
        self.target = JobTarget.of(self.job_id, snapshot.info)

    def catch_up(self, snapshot: Snapshot, read_start: ReadStart) -> list[str]:
        """Bring the followers to the end of a snapshot.

        Args:
            snapshot: the record from the room's position in ``read_start`` on, or all of it.
            read_start: the room's position when the read began.

        Returns:
            The epochs of records of this job id that sent messages but are not in the store.
        """
        if not self.followers:
            self._move_to(snapshot)
        elif read_start.is_ahead_of(snapshot):
            self._start_record(snapshot, read_start.cursor)
        elif snapshot.epoch != self.epoch:
            self._end_record()
            if snapshot.epoch != NO_RECORD:
                self._start_record(snapshot)
        elif snapshot.seq > self.seq:
            # The room may have received messages that the store has trimmed since.
            received = self._recent.within(self.epoch, self.seq, snapshot.seq)
            merged = {message.seq: message for message in (*received, *snapshot.events)}
            merged |= self._missed_info(snapshot, merged)
            later = [merged[seq] for seq in sorted(merged) if seq > self.seq]
            gap = Gap(self.seq, snapshot.complete_from).without(later)
            self._send_history(gap.events(self.job_id, later))
            self._move_to(snapshot)
        return self._dismiss(read_start)

    def replay(self) -> bool:
        """Deliver the messages that arrived during the read of the history.

        Return False if earlier messages are missing.
        """
        complete = True
        for message in self._recent.take():
            if self.followers and message.epoch not in self._dismissed:
                complete = self._advance(message) and complete
                if not complete:
                    self._recent.add(message)
        self.flush()
        return complete

    def admit(self, outlets: Sequence[Outlet], snapshot: Snapshot, after: Cursor | None) -> bool:
        """Add followers: send them the history after ``after``, then the messages since.

        The caller has called ``catch_up`` with the snapshot, and all of the followers may follow
        its record. Return False, and add no follower, if the buffer has dropped messages that
        arrived since.
        """
        self.flush()  # the newcomers get these messages from the history or from the buffer
        since = self._recent.within(snapshot.epoch, snapshot.seq, self.seq)
        if snapshot.epoch == self.epoch and len(since) < self.seq - snapshot.seq:
            return False
        if snapshot.epoch != NO_RECORD or not self.followers:
            self.allow(snapshot)
        messages = [*_record_messages(self.job_id, snapshot, after), *since]
        batch = FrameBatch(messages, self.job_id, self.namespace)
        open_outlets = [outlet for outlet in outlets if not outlet.closed]
        for outlet in open_outlets:
            outlet.send_history(batch)
            self.followers[outlet.sid] = outlet
        if len(messages) > 1:  # the first one is ``joined``, which is no event
            metrics.DELIVERED.inc((len(messages) - 1) * len(open_outlets))
        return True

    def discard_recent(self) -> None:
        """Clear the buffer of recent messages when no read needs it."""
        if not self.joining and not self.behind:
            self._recent.clear()

    def _start_record(self, snapshot: Snapshot, after: Cursor | None = None) -> None:
        """Send a new record, or one that has gone back, to the followers."""
        self._send_history(_record_messages(self.job_id, snapshot, after))
        self._move_to(snapshot)

    def _end_record(self) -> None:
        """Deliver the rest of a record that the store no longer has, as far as it was received."""
        rest = self._recent.within(self.epoch, self.seq, NO_UPPER_BOUND)
        if rest:
            gap = Gap(self.seq, rest[-1].seq + 1).without(rest)
            self._send_history(gap.events(self.job_id, rest))
            self.seq = rest[-1].seq

    def _missed_info(self, snapshot: Snapshot, known: Container[int]) -> dict[int, Message]:
        """Return a ``job_info`` by its seq if the followers may have missed one.

        The history has no ``job_info`` events. The returned one stands for them, in the place of
        the latest event that the room lacks.
        """
        now, before = snapshot.info, self.info
        seq = next((seq for seq in range(snapshot.seq, self.seq, -1) if seq not in known), None)
        if seq is None or (now.title, now.tags) == (before.title, before.tags):
            return {}
        packet = packet_head(JobInfoUpdate(job_id=self.job_id)) + packet_tail(seq, info=now)
        return {seq: Message(snapshot.epoch, seq, INFO, packet)}

    def _move_to(self, snapshot: Snapshot) -> None:
        if snapshot.epoch in self._dismissed:
            self._dismissed.remove(snapshot.epoch)
        self.epoch, self.seq, self.info = snapshot.epoch, snapshot.seq, snapshot.info

    def _dismiss(self, read_start: ReadStart) -> list[str]:
        """Drop the messages from before a read, and dismiss records that the store does not have.

        Return the epochs of these records, except for the room's former one.
        """
        others: set[str] = set()
        if before := self._recent.take_before(read_start.mark):
            others = {message.epoch for message in before} - {self.epoch, read_start.cursor.epoch}
            self._dismissed.extend(others)
        if read_start.cursor.epoch not in (self.epoch, NO_RECORD):
            self._dismissed.append(read_start.cursor.epoch)
        return sorted(others)

    def _advance(self, message: Message) -> bool:
        if message.epoch != self.epoch:
            return False
        if message.seq <= self.seq:
            return True
        if message.seq != self.seq + 1:
            return False
        self.seq = message.seq
        self.quiet = False
        self._unsent.append(message)
        return True

    def _send_history(self, messages: Sequence[Message]) -> None:
        self.flush()
        batch = FrameBatch(messages, self.job_id, self.namespace)
        for outlet in self.followers.values():
            outlet.send_history(batch)
        metrics.DELIVERED.inc(len(messages) * len(self.followers))


def is_ahead(cursor: Cursor | None, position: Cursor | Snapshot) -> bool:
    """Return whether a cursor is beyond the end of its record: the record has gone back."""
    return cursor is not None and cursor.epoch == position.epoch and cursor.seq > position.seq


def _record_messages(job_id: str, snapshot: Snapshot, after: Cursor | None) -> list[Message]:
    """Return a record's messages for followers with a cursor: all that they have to get.

    If the record has gone back, its content differs although the epoch is the same. An empty record
    precedes it then, because clients discard their state when the epoch changes.
    """
    has_gone_back = is_ahead(after, snapshot)
    is_same = after is not None and after.epoch == snapshot.epoch and not has_gone_back
    known = after.seq if after is not None and is_same else 0
    seen = known if snapshot.recovered else 0
    events = [message for message in snapshot.events if message.seq > seen]
    records = [Snapshot(), snapshot] if has_gone_back else [snapshot]
    messages = [joined_message(job_id, record) for record in records]
    return messages + Gap(known, snapshot.complete_from).events(job_id, events)


def joined_message(job_id: str, snapshot: Snapshot) -> Message:
    """Return the ``joined`` message that precedes a record's events."""
    joined = Joined(
        job_id=job_id,
        epoch=snapshot.epoch,
        seq=snapshot.seq,
        status=snapshot.state,
        complete_from=snapshot.complete_from if snapshot.complete_from > 1 else UNSET,
        **snapshot.info.fields,
    )
    return notice(packet_of(joined))
