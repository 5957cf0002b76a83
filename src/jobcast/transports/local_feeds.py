"""The feeds of the jobs whose records are in this process."""

from __future__ import annotations

import logging
import time
from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from jobcast.events import Cursor
from jobcast.feeds import ALL, JobSummary, feeds_of, newest_first
from jobcast.transports.base import (
    ALL_FEED_FACTOR,
    FeedChange,
    FeedRemoval,
    Outgoing,
    Retention,
)
from jobcast.transports.dirty_jobs import DirtyJobs, changes_of
from jobcast.transports.record import Records

MAX_ENTRIES: Final = 500_000  # jobs in all feeds together

logger = logging.getLogger(__name__)

Change = tuple[str, FeedChange]  # with the name of the feed


class LocalFeed:
    """The jobs of one feed, bounded by number and by the age of those that have ended."""

    def __init__(self, size: int, summary_ttl: float, clock: Callable[[], float]) -> None:
        self._size = size
        self._summary_ttl = summary_ttl
        self._clock = clock
        self._jobs: dict[str, JobSummary] = {}
        self._created: list[tuple[float, str]] = []  # sorted
        self._ended: list[tuple[float, str]] = []  # sorted
        self._ended_at: dict[str, float] = {}  # not in the future, whatever a worker's clock says

    def __len__(self) -> int:
        return len(self._jobs)

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._jobs

    @property
    def jobs(self) -> list[JobSummary]:
        return newest_first(self._jobs.values())

    def put(self, job: JobSummary) -> list[JobSummary]:
        """Add or replace a job, and return the jobs that had to leave the feed, maybe this one."""
        self.remove(job.job_id)
        self._jobs[job.job_id] = job
        insort(self._created, _created(job))
        if job.has_ended:
            at = min((job.ended_at or job.created_at).timestamp(), self._clock())
            self._ended_at[job.job_id] = at
            insort(self._ended, (at, job.job_id))
        return [*self.expire(), *self._trim()]

    def remove(self, job_id: str) -> JobSummary | None:
        """Remove a job, and return it if it was in the feed."""
        job = self._jobs.pop(job_id, None)
        if job is not None:
            _discard(self._created, _created(job))
            if job_id in self._ended_at:
                _discard(self._ended, (self._ended_at.pop(job_id), job_id))
        return job

    def expire(self) -> Iterator[JobSummary]:
        """Remove and yield the jobs that ended too long ago."""
        while self._ended and self._ended[0][0] <= self._clock() - self._summary_ttl:
            yield self._pop(self._ended)

    def pop(self) -> JobSummary:
        """Remove and return the job that ended first, or else the oldest one."""
        return self._pop(self._ended or self._created)

    def _trim(self) -> Iterator[JobSummary]:
        while len(self) > self._size:
            yield self.pop()

    def _pop(self, jobs: list[tuple[float, str]]) -> JobSummary:
        job = self._jobs[jobs[0][1]]
        self.remove(job.job_id)
        return job


class LocalFeeds:
    """The feeds of the jobs of some :class:`Records`, with the rules of ``feed.lua``.

    Not thread-safe.

    Args:
        records: the records of the jobs.
        retention: the bounds of feeds.
        clock: the time in seconds since 1970.
        max_entries: the number of jobs in all feeds together at most.
        warn: logs a warning.
    """

    def __init__(
        self,
        records: Records,
        retention: Retention,
        clock: Callable[[], float] = time.time,
        max_entries: int = MAX_ENTRIES,
        warn: Callable[[str], None] = logger.warning,
    ) -> None:
        self._records = records
        self._retention = retention
        self._clock = clock
        self._max_entries = max_entries
        self._entries = 0
        self._feeds: OrderedDict[str, LocalFeed] = OrderedDict()  # ordered by the latest write
        self._feeds_of: dict[str, tuple[str, ...]] = {}  # by job, in some of which it is
        self._warn = warn
        self._dirty = DirtyJobs(warn=warn)

    @property
    def due_in(self) -> float | None:
        """Seconds until the next change; None if there is none."""
        return self._dirty.due_in

    def mark(self, batch: Iterable[Outgoing]) -> None:
        """Note that events may have changed the summaries of their jobs."""
        if self._retention.feed_size:
            self._dirty.mark(changes_of(batch))

    def mark_job(self, job_id: str) -> None:
        """Note that the summary of a job has changed, and has to be written at once."""
        if self._retention.feed_size:
            self._dirty.mark({job_id: True})

    def refresh(self) -> list[Change]:
        """Write the summaries that are due, and return the changes of feeds."""
        changes: list[Change] = []
        for job_id in self._dirty.take():
            job = self._summarize(job_id)
            if job is not None:
                changes += self._put(job)
        return changes

    def read(self, feed: str) -> tuple[list[JobSummary], list[Change]]:
        """Return the jobs of a feed, and the changes that made them equal to their records."""
        changes: list[Change] = []
        for job in self._feeds[feed].jobs if feed in self._feeds else []:
            if self._records.position(job.job_id) == Cursor(epoch=job.epoch, seq=job.seq):
                continue
            current = self._summarize(job.job_id)
            if current is not None:
                changes += self._put(current)
            elif not job.has_ended:
                changes += self._drop(job)
        changes += [(feed, _removal(job)) for job in self._expire(feed)]
        return self._feeds[feed].jobs if feed in self._feeds else [], changes

    def _summarize(self, job_id: str) -> JobSummary | None:
        """Return the summary of a job; None without a record that can be read."""
        record = self._records.get(job_id)
        if record is None:
            return None
        try:
            return record.summary(job_id)
        except ValueError as exc:
            self._warn(f"job {job_id}: no feed has it, because an event is invalid: {exc}")
            return None

    def _put(self, job: JobSummary) -> Iterator[Change]:
        former, feeds = self._feeds_of.get(job.job_id, ()), feeds_of(job.info)
        for feed in former:
            if feed not in feeds and self._remove(feed, job.job_id):
                yield feed, _removal(job)
        for feed in feeds:
            self._feeds_of[job.job_id] = feeds
            yield from self._put_into(feed, job)
        while self._entries > self._max_entries:
            yield self._make_room()

    def _put_into(self, name: str, job: JobSummary) -> Iterator[Change]:
        size = self._retention.feed_size * (ALL_FEED_FACTOR if name == ALL else 1)
        ttl = self._retention.summary_ttl
        feed = self._feeds.setdefault(name, LocalFeed(size, ttl, self._clock))
        self._feeds.move_to_end(name)
        was_in = job.job_id in feed
        self._entries += not was_in
        left = feed.put(job)
        if job.job_id in feed:
            yield name, job
        for other in left:
            self._left(name, other.job_id)
            if was_in or other is not job:
                yield name, _removal(other)

    def _drop(self, job: JobSummary) -> Iterator[Change]:
        """Remove a job from all its feeds."""
        for feed in self._feeds_of.get(job.job_id, ()):
            if self._remove(feed, job.job_id):
                yield feed, _removal(job)

    def _expire(self, name: str) -> list[JobSummary]:
        feed = self._feeds.get(name)
        expired = [] if feed is None else [*feed.expire()]
        for job in expired:
            self._left(name, job.job_id)
        return expired

    def _remove(self, name: str, job_id: str) -> bool:
        feed = self._feeds.get(name)
        if feed is None or feed.remove(job_id) is None:
            return False
        self._left(name, job_id)
        return True

    def _make_room(self) -> Change:
        """Remove a job from the feed that has not changed for the longest time."""
        name, feed = next(iter(self._feeds.items()))
        job = feed.pop()
        self._left(name, job.job_id)
        return name, _removal(job)

    def _left(self, name: str, job_id: str) -> None:
        """Note that a job is no longer in a feed."""
        self._entries -= 1
        if not self._feeds[name]:
            del self._feeds[name]
        feeds = self._feeds_of.get(job_id, ())
        if not any(job_id in self._feeds[feed] for feed in feeds if feed in self._feeds):
            self._feeds_of.pop(job_id, None)


def _created(job: JobSummary) -> tuple[float, str]:
    return job.created_at.timestamp(), job.job_id


def _discard(jobs: list[tuple[float, str]], entry: tuple[float, str]) -> None:
    del jobs[bisect_left(jobs, entry)]


def _removal(job: JobSummary) -> FeedRemoval:
    return FeedRemoval(job.job_id, job.epoch, job.seq)
