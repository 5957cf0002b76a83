"""The jobs that a client follows: their positions, cached events and followers."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Final

from msgspec import structs

from jobcast.errors import ClientError
from jobcast.events import (
    INFO,
    NO_INFO,
    PROGRESS,
    TERMINAL,
    JobEvent,
    JobGap,
    JobInfo,
    JobStatus,
    Joined,
    info_of,
)

MEMORY: Final = 1000  # events of a job that are cached for later followers


class Follower:
    """One iteration over the events of a job, with the seq of the last event it received."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[JobEvent | JobGap | ClientError] = asyncio.Queue()
        self.seq = 0
        self.joined_at = 0  # the seq when the latest replay began
        self.awaits_replay = False  # drops events until the server replays the whole record

    def deliver(self, event: JobEvent) -> None:
        if not self.awaits_replay and event.seq > self.seq:
            self.seq = event.seq
            self.queue.put_nowait(event)

    def skip(self, gap: JobGap) -> None:
        missing = unseen_part(gap, self.joined_at)
        if not self.awaits_replay and missing is not None:
            self.queue.put_nowait(missing)

    def begin(self, *, is_new_record: bool) -> None:
        """Note that the server begins to send the events that follow the position."""
        self.seq = 0 if is_new_record else self.seq
        self.joined_at = self.seq


class FollowedJob:
    """A followed job: its position, its cached events and its followers."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        self.epoch = ""
        self.seq = 0
        self.status: str | None = None
        self.info = NO_INFO
        self.join_sent = False  # a `joined` that arrives earlier belongs to a previous join
        self.joined = False  # the latest join request took effect
        self.joining: asyncio.Task[None] | None = None
        self.followers: list[Follower] = []
        self._joined_seq = 0  # the latest `joined` has the status and the description up to it
        self._full_replay = False  # the latest join request asked for the whole record
        self._truncated = False  # the cache lacks events that the server may still have
        self._has_ended = False  # later events of the same run can only be late log lines
        self._joined_at = 0  # the seq when the latest replay began
        self._events: deque[JobEvent | JobGap] = deque(maxlen=MEMORY)
        self._values: dict[str, JobEvent] = {}  # the latest progress and the latest info event

    def needs_replay(self) -> bool:
        """Return whether a follower waits for the server to replay the whole record."""
        return any(follower.awaits_replay for follower in self.followers)

    def join_request(self) -> dict[str, Any]:
        """Return the payload of a join request, and record that it is being sent."""
        self.join_sent = True
        self.joined = False
        self._full_replay = not self.epoch or self.needs_replay()
        after = {} if self._full_replay else {"after": {"epoch": self.epoch, "seq": self.seq}}
        return {"job_id": self.job_id, **after}

    def attach(self) -> Follower:
        """Add a follower. It first receives the cached events, as from a replay by the server."""
        follower = Follower()
        follower.awaits_replay = self._truncated
        cached = [*self._events, *self._values.values()]
        for item in sorted(cached, key=_position):
            if isinstance(item, JobGap):
                follower.skip(item)
            else:
                follower.deliver(item)
        follower.joined_at = self._joined_at
        self.followers.append(follower)
        return follower

    def begin(self, joined: Joined) -> None:
        if not self.join_sent:
            return
        self.joined = True
        self.status, self.info, self._joined_seq = joined.status, info_of(joined), joined.seq
        is_new_record = joined.epoch != self.epoch
        if is_new_record:
            self.epoch, self.seq = joined.epoch, 0
            self._clear_cache()
        self._joined_at = self.seq
        for follower in self.followers:
            follower.begin(is_new_record=is_new_record)
            if is_new_record or self._full_replay:
                follower.awaits_replay = False

    def receive(self, event: JobEvent) -> None:
        if not self.epoch:  # no `joined` has named a record: the event is of a previous join
            return
        if event.seq > self.seq:
            self._cache(event)
        for follower in self.followers:
            follower.deliver(event)

    def skip(self, gap: JobGap) -> None:
        """Show a gap to the followers that lack events in it."""
        if not self.epoch:
            return
        missing = unseen_part(gap, self._joined_at)
        if missing is not None:
            self._remember(missing)
        for follower in self.followers:
            follower.skip(gap)

    def refuse(self, problem: ClientError) -> None:
        for follower in self.followers:
            follower.queue.put_nowait(problem)

    def _cache(self, event: JobEvent) -> None:
        self.seq = event.seq
        if event.seq > self._joined_seq:
            self.status = event.state or self.status
            self._describe(event)
        if self._has_ended and isinstance(event, JobStatus):
            # A new run begins. The server's replay does not contain the run that ended either.
            self._clear_cache()
        self._has_ended = self._has_ended or event.kind == TERMINAL
        if event.kind in (PROGRESS, INFO):
            self._values[event.kind] = event
        else:
            self._remember(event)

    def _describe(self, event: JobEvent) -> None:
        """Merge an event into the description, as the server does."""
        begins = isinstance(event, JobStatus) and event.status in ("queued", "started")
        known = JobInfo(owner=self.info.owner) if begins and self._has_ended else self.info
        self.info = known.updated(info_of(event))

    def _remember(self, item: JobEvent | JobGap) -> None:
        self._truncated = self._truncated or len(self._events) == MEMORY
        self._events.append(item)

    def _clear_cache(self) -> None:
        self._events.clear()
        self._values.clear()
        self._truncated = False
        self._has_ended = False


def unseen_part(gap: JobGap, seq: int) -> JobGap | None:
    """Return the part of a gap after ``seq``; None if there is none."""
    after = max(gap.after, seq)
    return structs.replace(gap, after=after) if after + 1 < gap.before else None


def _position(item: JobEvent | JobGap) -> tuple[int, bool]:
    """Return the sort key of an item: a gap precedes the first event after it."""
    return (item.before, False) if isinstance(item, JobGap) else (item.seq, True)
