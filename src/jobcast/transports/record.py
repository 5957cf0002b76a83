"""A job's record in memory, with the rules of ``publish.lua``, and a bounded store of them."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict, deque
from typing import Final

from msgspec import structs

from jobcast.events import PROGRESS, TERMINAL, TERMINAL_STATES, Cursor, State, packet_tail
from jobcast.transports.base import (
    Message,
    Outgoing,
    Retention,
    Snapshot,
    can_resume,
    named,
)
from jobcast.transports.runs import Runs

MAX_RECORDS: Final = 100_000
MAX_EVENTS: Final = 1_000_000  # of all records together
PUBLISHERS: Final = 32  # whose latest numbers are remembered


class Record:
    """What is kept of one job."""

    def __init__(self, owner: str | None, size: int) -> None:
        self.epoch = secrets.token_hex(8)
        self.seq = 0
        self.state: State = "pending"
        self.owner = owner
        self.progress: Message | None = None
        self.events: deque[Message] = deque(maxlen=size)
        self.said: dict[str, int] = {}  # each publisher's latest number; who spoke last is last
        self.runs = Runs()
        self.expires_at = 0.0

    def add(self, outgoing: Outgoing, retention: Retention, publisher: str = "") -> Message | None:
        """Store an event. Returns None if it was here before, or comes too late to be true."""
        if self._has(outgoing, publisher):
            return None
        if outgoing.number:
            self._heard(publisher, outgoing.number)
        if not self._concerns(outgoing):
            return None
        begins = outgoing.state in ("queued", "started") and not outgoing.requires
        if self.runs.standing(outgoing.run) == "newer":
            self.runs.adopt(outgoing.run)
        if begins:
            # What was shown of an earlier run says nothing about this one.
            self.progress = None
            if self.state in TERMINAL_STATES:
                self.events.clear()
        if outgoing.state == "started" and begins:
            self.runs.count += 1
        self.seq += 1
        tail = packet_tail(self.seq, self.runs.count if outgoing.state == "started" else None)
        message = Message(self.epoch, self.seq, outgoing.kind, outgoing.head + tail)
        if outgoing.kind == PROGRESS:
            self.progress = message
        else:
            self.events.append(message)
        if outgoing.state is not None:
            self.state = outgoing.state
        elif self.state == "pending":
            self.state = "started"  # whatever began it is not known any more, but it is running
        ttl = retention.ttl if outgoing.kind == TERMINAL else retention.active_ttl
        self.expires_at = time.monotonic() + ttl
        return message

    def _has(self, outgoing: Outgoing, publisher: str) -> bool:
        return 0 < outgoing.number <= self.said.get(publisher, 0)

    def _heard(self, publisher: str, number: int) -> None:
        self.said.pop(publisher, None)
        self.said[publisher] = number
        if len(self.said) > PUBLISHERS:
            del self.said[next(iter(self.said))]

    def _concerns(self, outgoing: Outgoing) -> bool:
        """Whether the event is of the run that is there, or of one that takes its place."""
        standing = self.runs.standing(outgoing.run)
        ended = self.state in TERMINAL_STATES
        # A run that was begun, and lost before it could say so, is one that was.
        begun = standing == "newer" and not ended and outgoing.requires == "started"
        if standing == "past" or not (outgoing.requires in ("", self.state) or begun):
            return False
        if not ended:
            return True
        begins = outgoing.state in ("queued", "started")
        return begins and (standing == "newer" or not outgoing.run.is_known)

    def lacks(self, outgoing: Outgoing, publisher: str) -> bool:
        """Whether what an event comes after is not there yet, nor the event itself."""
        other, number = named(outgoing.after)
        return self.said.get(other, 0) < number and not self._has(outgoing, publisher)

    def begin_anew(self) -> None:
        """Give it another epoch: something may be missing, so that nobody may go on from before."""
        self.epoch = secrets.token_hex(8)
        for index, message in enumerate(self.events):
            self.events[index] = structs.replace(message, epoch=self.epoch)
        if self.progress is not None:
            self.progress = structs.replace(self.progress, epoch=self.epoch)

    @property
    def position(self) -> Cursor:
        return Cursor(epoch=self.epoch, seq=self.seq)

    def snapshot(self, after: Cursor | None) -> Snapshot:
        first = self.events[0].seq if self.events else 1
        recovered = can_resume(after, epoch=self.epoch, seq=self.seq, first=first)
        seen = after.seq if after is not None and recovered else 0
        kept = [*self.events, *([self.progress] if self.progress else [])]
        events = sorted((m for m in kept if m.seq > seen), key=lambda message: message.seq)
        return Snapshot(
            epoch=self.epoch,
            seq=self.seq,
            state=self.state,
            owner=self.owner,
            events=tuple(events),
            recovered=recovered,
        )


class Records:
    """The records of many jobs, bounded by their number, their events and their age.

    When there are too many, the one that was silent for longest goes, an ended one first. Not
    thread-safe.
    """

    def __init__(
        self,
        retention: Retention,
        max_records: int = MAX_RECORDS,
        max_events: int = MAX_EVENTS,
    ) -> None:
        self._retention = retention
        self._max_records = max_records
        self._max_events = max_events
        self._events = 0
        # In the order of their latest event, so that what is due is at the front.
        self._active: OrderedDict[str, Record] = OrderedDict()
        self._ended: OrderedDict[str, Record] = OrderedDict()

    def __len__(self) -> int:
        return len(self._active) + len(self._ended)

    def add(self, outgoing: Outgoing, publisher: str = "") -> Message | None:
        """Store an event. Returns None if it was here before, or comes too late to be true."""
        self._expire()
        record = self._active.pop(outgoing.job_id, None) or self._ended.pop(outgoing.job_id, None)
        if record is None:
            if outgoing.requires == "stalled" or (
                outgoing.requires == "started" and not outgoing.run.is_known
            ):
                return None
            record = Record(outgoing.owner, self._retention.size)
        before = len(record.events)
        message = record.add(outgoing, self._retention, publisher)
        self._events += len(record.events) - before
        where = self._ended if record.state in TERMINAL_STATES else self._active
        where[outgoing.job_id] = record
        while len(self) > 1 and (len(self) > self._max_records or self._events > self._max_events):
            self._drop_first(self._ended if len(self._ended) else self._active)
        return message

    def lacks(self, outgoing: Outgoing, publisher: str) -> bool:
        """Whether what the event comes after is not there yet.

        Without a record nobody knows what was said before, and there is nothing to wait for.
        """
        if not outgoing.after:
            return False
        record = self.get(outgoing.job_id)
        return record is not None and record.lacks(outgoing, publisher)

    def get(self, job_id: str) -> Record | None:
        self._expire()
        return self._active.get(job_id) or self._ended.get(job_id)

    def begin_anew(self) -> None:
        """Give every record another epoch: something may be missing in any of them."""
        for records in (self._active, self._ended):
            for record in records.values():
                record.begin_anew()

    def snapshot(self, job_id: str, after: Cursor | None) -> Snapshot:
        record = self.get(job_id)
        return Snapshot() if record is None else record.snapshot(after)

    def position(self, job_id: str) -> Cursor:
        record = self.get(job_id)
        return Cursor(epoch="", seq=0) if record is None else record.position

    def _expire(self) -> None:
        now = time.monotonic()
        for records in (self._active, self._ended):
            while records and next(iter(records.values())).expires_at <= now:
                self._drop_first(records)

    def _drop_first(self, records: OrderedDict[str, Record]) -> None:
        _, record = records.popitem(last=False)
        self._events -= len(record.events)
