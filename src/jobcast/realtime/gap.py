"""The trimmed part of a job's history, and the event that tells the followers about it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence

from msgspec import Struct

from jobcast.events import JobGap
from jobcast.protocol import packet_of
from jobcast.realtime.connection.frames import notice
from jobcast.transports.base import Message


class Gap(Struct, frozen=True):
    """The history between two positions, some of which was trimmed; it may be empty."""

    after: int  # the seq up to which the followers have every event
    before: int  # the seq from which on the history is complete

    def without(self, messages: Iterable[Message]) -> Gap:
        """Return the gap that remains if the followers get these messages."""
        seqs = {message.seq for message in messages}
        after, before = self.after, self.before
        while after + 1 in seqs:
            after += 1
        while before - 1 in seqs:
            before -= 1
        return Gap(after, before)

    def events(self, job_id: str, messages: Sequence[Message]) -> list[Message]:
        """Return the messages, with a ``job_gap`` before the first later one."""
        if self.after + 1 >= self.before:
            return list(messages)
        place = bisect_left(messages, self.before, key=lambda message: message.seq)
        gap = JobGap(job_id=job_id, after=self.after, before=self.before)
        return [*messages[:place], notice(packet_of(gap)), *messages[place:]]
