"""The room of a feed: all of its jobs, and its followers in this process."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from jobcast.feeds import ALL, JobSummary, feeds_of
from jobcast.realtime.feeds.follower import FeedFollower
from jobcast.realtime.feeds.listing import Listing
from jobcast.transports.base import FeedChange, FeedRemoval

MAX_REMOVED: Final = 10_000  # removed jobs whose positions a room remembers
OVERSIZE: Final = 2  # multiple of the feed's size that a room has at most
EMPTY_WEIGHT: Final = 50  # jobs that the fixed costs of a room correspond to

Position = tuple[str, int]  # the epoch and the seq of a job, which compare in this order


class FeedRoom:
    """The jobs of one feed, and those who follow it.

    Args:
        feed: the name of the feed in the store, never ``mine``.
        size: the number of jobs that the store keeps in the feed.
    """

    def __init__(self, feed: str, size: int) -> None:
        self.feed = feed
        self.listing = Listing()
        self.followers: dict[FeedFollower, None] = {}
        self.users = 0  # requests that use the room now
        self.reading: asyncio.Task[None] | None = None  # the latest read of the feed
        self.was_interrupted = False  # whether changes were lost since the latest read began
        self.linger: asyncio.TimerHandle | None = None  # until the unused room closes
        self._max_jobs = OVERSIZE * size
        self._touched: set[str] = set()  # jobs that have changed since the latest read began
        self._removed: OrderedDict[str, Position] = OrderedDict()

    @property
    def is_unused(self) -> bool:
        return not self.followers and not self.users

    @property
    def weight(self) -> int:
        """The memory that the room takes, in jobs."""
        return EMPTY_WEIGHT + len(self.listing)

    def begin_read(self) -> None:
        """Note that a read of the feed begins. Changes from now on may be newer than its result."""
        self.was_interrupted = False
        self._touched.clear()

    def finish_read(self, jobs: Iterable[JobSummary]) -> None:
        """Take over the result of a read, and send the followers what differs."""
        found = {job.job_id: job for job in jobs if self._has(job)}
        for job_id in self._touched:
            self._keep_newer(job_id, found)
        for job_id in [entry.job.job_id for entry in self.listing]:
            if job_id not in found:
                self._set(job_id, None)
        for job in found.values():
            self._removed.pop(job.job_id, None)
            self._set(job.job_id, job)

    def change(self, change: FeedChange) -> None:
        """Apply a change, unless it is older than the job's version in the room."""
        job_id, position = change.job_id, (change.epoch, change.seq)
        self._touched.add(job_id)
        known = self._position_of(job_id)
        # A tag or the owner of a record may have changed: then the job has left the feed.
        if isinstance(change, FeedRemoval) or not self._has(change):
            if known is None or position >= known:
                self._remember_removed(job_id, position)
                self._set(job_id, None)
        elif known is None or position > known:
            self._removed.pop(job_id, None)
            self._set(job_id, change)

    def _keep_newer(self, job_id: str, found: dict[str, JobSummary]) -> None:
        """Correct the result of a read by a change that arrived during the read."""
        entry, removed = self.listing.get(job_id), self._removed.get(job_id)
        read = found.get(job_id)
        if entry is not None:
            if read is None or _position(entry.job) > _position(read):
                found[job_id] = entry.job
        elif removed is not None and read is not None and _position(read) <= removed:
            del found[job_id]

    def _has(self, job: JobSummary) -> bool:
        return self.feed == ALL or self.feed in feeds_of(job.info)

    def _position_of(self, job_id: str) -> Position | None:
        entry = self.listing.get(job_id)
        return self._removed.get(job_id) if entry is None else _position(entry.job)

    def _remember_removed(self, job_id: str, position: Position) -> None:
        self._removed[job_id] = position
        self._removed.move_to_end(job_id)
        if len(self._removed) > MAX_REMOVED:
            self._removed.popitem(last=False)

    def _set(self, job_id: str, job: JobSummary | None) -> None:
        """Replace the version of a job, or remove it, and notify the followers."""
        former = self.listing.get(job_id)
        if (None if former is None else former.job) == job:
            return
        self.listing.remove(job_id)
        entry = None if job is None else self.listing.put(job)
        for follower in self.followers:
            if not follower.is_conflated(job_id, entry):
                follower.changed(job_id, former, entry)
        if len(self.listing) > self._max_jobs:
            # The store removes jobs from a full feed, and the message about it was lost.
            self._set(self.listing.oldest.job.job_id, None)


def _position(job: JobSummary) -> Position:
    return job.epoch, job.seq
