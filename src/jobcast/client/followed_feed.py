"""The state of a feed that a client follows, computed from the server's messages."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import UNSET, structs

from jobcast.errors import ClientError
from jobcast.feeds import (
    MAX_FEED_LIMIT,
    FeedGone,
    FeedJob,
    FeedSnapshot,
    JobSummary,
    JoinFeed,
    newest_first,
)

FeedItem = JobSummary | FeedGone
FeedMessage = FeedSnapshot | FeedJob | FeedGone


class FeedReader:
    """The latest change of each job in a feed that one reader has not read yet.

    A job that joined and left the list since the last read causes no change. So the changes for a
    slow reader need at most the memory of two lists.

    Args:
        feed: the name of the feed.
        on_change: called after each change, and when there is a problem.
    """

    def __init__(self, feed: str, on_change: Callable[[], None]) -> None:
        self._feed = feed
        self._on_change = on_change
        self._known: set[str] = set()  # the jobs of the list, as the reader knows it
        self._pending: dict[str, FeedItem] = {}
        self.problem: ClientError | None = None

    def upsert(self, job: JobSummary) -> None:
        self._pending[job.job_id] = job
        self.wake()

    def remove(self, job_id: str) -> None:
        if job_id in self._known:
            self._pending[job_id] = FeedGone(feed=self._feed, job_id=job_id)
        else:
            self._pending.pop(job_id, None)
        self.wake()

    def refuse(self, problem: ClientError) -> None:
        self.problem = problem
        self.wake()

    def wake(self) -> None:
        self._on_change()

    def skip_all(self) -> None:
        """Regard all pending changes as known."""
        while self.take() is not None:
            pass

    def take(self) -> FeedItem | None:
        """Return the next change, and forget it; None if there is none.

        Raises:
            ClientError: the feed has ended, and the reader has taken all changes before.
        """
        if not self._pending:
            if self.problem is not None:
                raise self.problem
            return None
        job_id = next(iter(self._pending))
        item = self._pending.pop(job_id)
        if isinstance(item, FeedGone):
            self._known.discard(job_id)
        else:
            self._known.add(job_id)
        return item


class FollowedFeed:
    """A followed feed: its jobs and its readers.

    The list has at most ``MAX_FEED_LIMIT`` jobs. Beyond it, the oldest ones leave the list.

    Args:
        request: the request for the feed.
    """

    def __init__(self, request: JoinFeed) -> None:
        self.request = request
        self.joined = False  # a snapshot of the latest join request has arrived
        self.joining: asyncio.Task[None] | None = None
        self.has_snapshot = False  # the first snapshot is complete
        self.has_more = False  # the feed has older jobs that match
        self.readers: list[FeedReader] = []
        self._wanted = request.limit  # jobs that the list should have
        self._requested = request.limit  # jobs of the latest join request
        self._covered = request.limit  # jobs of the request that the list is complete for
        self._total: int | None = None
        self._jobs: dict[str, JobSummary] = {}
        self._incoming: dict[str, JobSummary] | None = None  # the list of an incomplete snapshot
        self._sorted: tuple[JobSummary, ...] | None = None

    @property
    def jobs(self) -> tuple[JobSummary, ...]:
        """The jobs, the newest first."""
        if self._sorted is None:
            self._sorted = tuple(newest_first(self._jobs.values()))
        return self._sorted

    @property
    def total(self) -> int | None:
        """The number of jobs of the feed that match the filter; None if it is not known yet.

        While the feed has older jobs than the list, it does not count those that leave it.
        """
        if not self.has_more and self.has_snapshot:
            return len(self._jobs)
        return None if self._total is None else max(self._total, len(self._jobs))

    @property
    def is_loading(self) -> bool:
        """Whether older jobs that a reader wants have not arrived yet."""
        return self.has_more and self._covered < self._wanted

    @property
    def needs_older_jobs(self) -> bool:
        """Whether to join again for older jobs.

        A reader wants them, or so many jobs have left the list that they should take their places.
        """
        is_live = self.joined and self._incoming is None
        is_short = self.is_loading or len(self._jobs) <= self._wanted // 2
        return is_live and self.has_more and is_short

    def want_more(self) -> None:
        """Extend the list by as many older jobs as the limit, unless some are on their way."""
        if self.has_more and not self.is_loading:
            listed = max(self._wanted, len(self._jobs))
            self._wanted = min(MAX_FEED_LIMIT, listed + self.request.limit)

    def join_request(self) -> dict[str, Any]:
        """Return the payload of a join request, and record that it is being sent."""
        self.joined = False
        self._requested = limit = min(MAX_FEED_LIMIT, max(self._wanted, len(self._jobs)))
        payload: dict[str, Any] = msgspec.to_builtins(structs.replace(self.request, limit=limit))
        return payload

    def accept(self, total: int) -> None:
        """Record the total of the server's acknowledgement."""
        self._total = total
        for reader in self.readers:
            reader.wake()

    def attach(self, on_change: Callable[[], None]) -> FeedReader:
        """Add a reader. Its first changes are the jobs of the list."""
        reader = FeedReader(self.request.feed, on_change)
        for job in self.jobs:
            reader.upsert(job)
        self.readers.append(reader)
        return reader

    def receive(self, message: FeedMessage) -> None:
        """Apply a message of the server."""
        if isinstance(message, FeedSnapshot):
            self._receive_page(message)
        elif isinstance(message, FeedJob):
            self._upsert(summary_of(message))
        else:
            self._remove(message.job_id)

    def refuse(self, problem: ClientError) -> None:
        for reader in self.readers:
            reader.refuse(problem)

    def _receive_page(self, page: FeedSnapshot) -> None:
        if page.reset:
            self.joined = True
            self._incoming = {}
        for job in page.jobs:
            self._upsert(job)
        if page.last:
            self.has_more = page.cursor is not UNSET
            self._finish_snapshot()

    def _finish_snapshot(self) -> None:
        incoming, self._incoming = self._incoming, None
        self.has_snapshot = True
        if incoming is not None:
            self._covered = self._requested
            for job_id in self._jobs.keys() - incoming.keys():
                self._drop(job_id)
            for job in newest_first(incoming.values()):
                if self._jobs.get(job.job_id) != job:
                    self._show(job)
        for reader in self.readers:
            reader.wake()

    def _upsert(self, job: JobSummary) -> None:
        if self._incoming is not None:
            self._incoming[job.job_id] = job
            return
        if self._total is not None and job.job_id not in self._jobs:
            self._total += 1
        self._show(job)
        if len(self._jobs) > MAX_FEED_LIMIT:
            self.has_more = True
            self._drop(self.jobs[-1].job_id)

    def _remove(self, job_id: str) -> None:
        if self._incoming is not None:
            self._incoming.pop(job_id, None)
        elif job_id in self._jobs:
            if self._total is not None:
                self._total -= 1
            self._drop(job_id)

    def _show(self, job: JobSummary) -> None:
        self._jobs[job.job_id] = job
        self._sorted = None
        for reader in self.readers:
            reader.upsert(job)

    def _drop(self, job_id: str) -> None:
        del self._jobs[job_id]
        self._sorted = None
        for reader in self.readers:
            reader.remove(job_id)


def summary_of(message: FeedJob) -> JobSummary:
    """Return the summary that a message contains."""
    return JobSummary(**{name: getattr(message, name) for name in JobSummary.__struct_fields__})
