"""The jobs that a client follows: their positions, cached events and followers."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Final

from jobcast.errors import ClientError
from jobcast.events import TERMINAL, JobEvent, JobProgress, JobStatus, Joined, State

MEMORY: Final = 1000  # events of a job that are cached for later followers


class Follower:
    """One iteration over the events of a job, with the seq of the last event it received."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[JobEvent | ClientError] = asyncio.Queue()
        self.seq = 0
        self.awaits_replay = False  # drops events until the server replays the whole record

    def deliver(self, event: JobEvent) -> None:
        if not self.awaits_replay and event.seq > self.seq:
            self.seq = event.seq
            self.queue.put_nowait(event)


class FollowedJob:
    """A followed job: its position, its cached events and its followers."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        self.epoch = ""
        self.seq = 0
        self.status: State | None = None
        self.join_sent = False  # a `joined` that arrives earlier belongs to a previous join
        self.joined = False  # the latest join request took effect
        self.joining: asyncio.Task[None] | None = None
        self.followers: list[Follower] = []
        self._status_seq = 0  # the status covers all events up to this seq
        self._full_replay = False  # the latest join request asked for the whole record
        self._truncated = False  # the cache lacks events that the server may still have
        self._has_ended = False  # later events of the same run can only be late log lines
        self._events: deque[JobEvent] = deque(maxlen=MEMORY)
        self._progress: JobProgress | None = None

    @property
    def awaits_replay(self) -> bool:
        """Whether a follower waits for the server to replay the whole record."""
        return any(follower.awaits_replay for follower in self.followers)

    def join_request(self) -> dict[str, Any]:
        """Return the payload of a join request, and record that it is being sent."""
        self.join_sent = True
        self.joined = False
        self._full_replay = not self.epoch or self.awaits_replay
        after = {} if self._full_replay else {"after": {"epoch": self.epoch, "seq": self.seq}}
        return {"job_id": self.job_id, **after}

    def attach(self) -> Follower:
        """Add a follower. It first receives the cached events, as from a replay by the server."""
        follower = Follower()
        follower.awaits_replay = self._truncated
        cached = [*self._events, *([self._progress] if self._progress else [])]
        for event in sorted(cached, key=lambda event: event.seq):
            follower.deliver(event)
        self.followers.append(follower)
        return follower

    def begin(self, joined: Joined) -> None:
        if not self.join_sent:
            return
        self.joined = True
        self.status, self._status_seq = joined.status, joined.seq
        if joined.epoch != self.epoch:
            self.epoch, self.seq = joined.epoch, 0
            self._clear_cache()
            for follower in self.followers:
                follower.seq = 0
        elif not self._full_replay:
            return
        for follower in self.followers:
            follower.awaits_replay = False

    def receive(self, event: JobEvent) -> None:
        if not self.epoch:  # no `joined` has named a record: the event is of a previous join
            return
        if event.seq > self.seq:
            self._cache(event)
        for follower in self.followers:
            follower.deliver(event)

    def refuse(self, problem: ClientError) -> None:
        for follower in self.followers:
            follower.queue.put_nowait(problem)

    def _cache(self, event: JobEvent) -> None:
        self.seq = event.seq
        if event.seq > self._status_seq:
            self.status = event.state or self.status
        if self._has_ended and isinstance(event, JobStatus):
            # A new run begins. The server's replay does not contain the run that ended either.
            self._clear_cache()
        self._has_ended = self._has_ended or event.kind == TERMINAL
        if isinstance(event, JobProgress):
            self._progress = event
        else:
            self._truncated = self._truncated or len(self._events) == MEMORY
            self._events.append(event)

    def _clear_cache(self) -> None:
        self._events.clear()
        self._progress = None
        self._truncated = False
        self._has_ended = False
