"""The rooms of one process: who follows a job here, and how far they have been brought."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from jobcast.errors import JobcastError, TransportUnavailable
from jobcast.events import PROGRESS, Cursor, Joined, packet_of
from jobcast.realtime import metrics
from jobcast.realtime.auth import Grant
from jobcast.realtime.bundle import ROOT, Bundle
from jobcast.realtime.outlet import Outlet
from jobcast.transports.base import NO_RECORD, Message, Snapshot


class Newcomer:
    """A follower that waits to be let in, after what it has seen."""

    def __init__(self, outlet: Outlet, after: Cursor | None, grant: Grant) -> None:
        self.outlet = outlet
        self.after = after
        self.grant = grant
        self.found: Snapshot | JobcastError | None = None  # None: nobody has read for it

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
        self._recent: list[Message] = []  # what came while somebody was reading
        self._unsent: list[Message] = []  # what came in this turn of the loop

    @property
    def deserted(self) -> bool:
        return not self.followers and not self.joining

    def receive(self, message: Message) -> bool:
        """Take a message from the transport. Returns False if something before it is missing."""
        self.quiet = False
        if self.joining or self.behind:
            self._recent.append(message)
        if self.behind or not self.followers:
            return True
        return self._advance(message)

    def flush(self) -> None:
        """Send what came since the last time, all of it to one follower after the other."""
        if not self._unsent:
            return
        packets = [message.packet for message in self._unsent]
        values = [self.job_id if message.kind == PROGRESS else None for message in self._unsent]
        self._unsent.clear()
        bundle = Bundle(packets, values, self.namespace)
        for outlet in self.followers.values():
            outlet.send(bundle)
        metrics.DELIVERED.inc(len(packets) * len(self.followers))

    def lags(self, position: Cursor) -> bool:
        """Whether the record is further than the followers have been brought."""
        if not self.followers or self.behind or position.epoch == NO_RECORD:
            return False
        return position.epoch != self.epoch or position.seq > self.seq

    def waiting(self, after: Cursor | None) -> list[Newcomer]:
        """Return the newcomers that wait for the history after a cursor."""
        return [newcomer for newcomer in self.newcomers if newcomer.after == after]

    def needs_rights(self, snapshot: Snapshot) -> bool:
        """Return whether followers are about to be sent a record that nobody let them in to."""
        return bool(
            self.followers
            and snapshot.epoch != NO_RECORD
            and self.allowed != (snapshot.epoch, snapshot.owner)
        )

    def catch_up(self, snapshot: Snapshot) -> None:
        """Bring the followers to where a snapshot ends. It has to reach back to ``seq``."""
        if not self.followers or snapshot.epoch == NO_RECORD:
            pass
        elif snapshot.epoch != self.epoch:
            self._send_history([joined_packet(self.job_id, snapshot), *_after(snapshot, 0)])
        elif snapshot.seq > self.seq:
            self._send_history(_after(snapshot, self.seq))
        else:
            return
        self.epoch, self.seq = snapshot.epoch, snapshot.seq

    def replay(self) -> bool:
        """Deliver what came in while the history was read. Returns False as ``receive`` does."""
        whole = not self.followers or all(self._advance(message) for message in self._recent)
        self.flush()
        return whole

    def admit(self, outlets: Sequence[Outlet], snapshot: Snapshot, seen: int) -> None:
        """Let followers in: first what the history has beyond ``seen``, then what came since.

        ``catch_up`` has been called with the snapshot, and all of them may follow its record.
        """
        if snapshot.epoch != NO_RECORD or not self.followers:
            self.allowed = (snapshot.epoch, snapshot.owner)
        self.flush()  # of this the newcomers get what they should
        packets = [joined_packet(self.job_id, snapshot), *_after(snapshot, seen)]
        packets += [
            message.packet
            for message in self._recent
            if message.epoch == self.epoch and snapshot.seq < message.seq <= self.seq
        ]
        bundle = Bundle(packets, namespace=self.namespace)
        for outlet in outlets:
            if not outlet.closed:
                outlet.send_history(bundle)
                metrics.DELIVERED.inc(len(packets) - 1)
                self.followers[outlet.sid] = outlet

    def settle(self) -> None:
        """Forget what came in, when nobody needs it any more."""
        if not self.joining and not self.behind:
            self._recent.clear()

    def _advance(self, message: Message) -> bool:
        if message.epoch != self.epoch:
            return False
        if message.seq <= self.seq:
            return True
        if message.seq != self.seq + 1:
            return False
        self.seq = message.seq
        self._unsent.append(message)
        return True

    def _send_history(self, packets: Sequence[str]) -> None:
        self.flush()
        bundle = Bundle(packets, namespace=self.namespace)
        for outlet in self.followers.values():
            outlet.send_history(bundle)
        metrics.DELIVERED.inc(len(packets) * len(self.followers))


def _after(snapshot: Snapshot, seen: int) -> list[str]:
    return [message.packet for message in snapshot.events if message.seq > seen]


def joined_packet(job_id: str, snapshot: Snapshot) -> str:
    return packet_of(
        Joined(job_id=job_id, epoch=snapshot.epoch, seq=snapshot.seq, status=snapshot.state)
    )
