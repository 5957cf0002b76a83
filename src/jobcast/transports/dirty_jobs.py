"""The jobs whose summaries have to be written to feeds, and when."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from heapq import heapify, heappop, heappush
from math import ceil
from typing import Final

from jobcast.events import LOG, PROGRESS
from jobcast.transports.base import Outgoing

PROGRESS_INTERVAL: Final = 1.0  # seconds between two summaries of a job that only reports progress
PROGRESS_TICK: Final = 0.5  # seconds between the times at which progress is written
MAX_DIRTY: Final = 10_000  # jobs whose summaries wait to be written

logger = logging.getLogger(__name__)


def changes_of(batch: Iterable[Outgoing]) -> dict[str, bool]:
    """Return the jobs whose summaries a batch may change, and whether to write each at once."""
    jobs: dict[str, bool] = {}
    for outgoing in batch:
        if outgoing.kind != LOG:
            at_once = outgoing.kind != PROGRESS
            jobs[outgoing.job_id] = at_once or jobs.get(outgoing.job_id, False)
    return jobs


class DirtyJobs:
    """The jobs whose summaries have to be written: at once, or for progress at intervals.

    Not thread-safe.

    Args:
        clock: the time in seconds.
        max_dirty: the number of jobs at most.
        warn: logs a warning.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        max_dirty: int = MAX_DIRTY,
        warn: Callable[[str], None] = logger.warning,
    ) -> None:
        self._clock = clock
        self._origin = clock()
        self._max_dirty = max_dirty
        self._warn = warn
        self._due: dict[str, float] = {}  # by job, when its summary has to be written
        self._at_once: set[str] = set()  # jobs with more than progress
        self._queue: list[tuple[float, str]] = []  # a heap; entries that differ from _due are void
        self._written: OrderedDict[str, float] = OrderedDict()  # by job, in the last interval
        self._has_warned = False

    def __len__(self) -> int:
        return len(self._due)

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._due

    def mark(self, jobs: Mapping[str, bool]) -> None:
        """Note that summaries may have changed, and whether to write each at once."""
        now = self._clock()
        for job_id, at_once in jobs.items():
            written = self._written.get(job_id, float("-inf"))
            due = now if at_once else self._tick(max(now, written + PROGRESS_INTERVAL))
            self._set_due(job_id, due, at_once)

    def postpone(self, job_id: str, delay: float) -> None:
        """Note that a summary could not be written, and has to be after some seconds."""
        self._set_due(job_id, self._clock() + delay, at_once=True)

    def take(self) -> dict[str, bool]:
        """Return the jobs whose summaries are due, and whether they have more than progress.

        They count as written.
        """
        now = self._clock()
        while self._written and next(iter(self._written.values())) <= now - PROGRESS_INTERVAL:
            self._written.popitem(last=False)
        jobs: dict[str, bool] = {}
        while self._queue and self._queue[0][0] <= now:
            due, job_id = heappop(self._queue)
            if self._due.get(job_id) == due:
                jobs[job_id] = self._forget(job_id)
                self._written[job_id] = due  # the tick, not now, which is a little later
                self._written.move_to_end(job_id)
        return jobs

    def take_all(self) -> list[str]:
        """Return all jobs, whether their summaries are due or not."""
        jobs, self._due, self._queue = [*self._due], {}, []
        self._at_once.clear()
        return jobs

    @property
    def due_in(self) -> float | None:
        """Seconds until the next summary is due; None if no job is dirty."""
        return max(0.0, self._queue[0][0] - self._clock()) if self._due else None

    def _tick(self, at: float) -> float:
        """Return the next of the regular times at which the progress of all jobs is written.

        Summaries that are written together share the calls of the store.
        """
        ticks = ceil(round((at - self._origin) / PROGRESS_TICK, 3))
        return self._origin + ticks * PROGRESS_TICK

    def _set_due(self, job_id: str, due: float, at_once: bool) -> None:
        if at_once:
            self._at_once.add(job_id)
        if due < self._due.get(job_id, float("inf")):
            self._due[job_id] = due
            heappush(self._queue, (due, job_id))
            if len(self._due) > self._max_dirty:
                self._drop_oldest()
            if len(self._queue) > 2 * self._max_dirty:
                self._queue = [(at, job_id) for job_id, at in self._due.items()]
                heapify(self._queue)

    def _forget(self, job_id: str) -> bool:
        del self._due[job_id]
        at_once = job_id in self._at_once
        self._at_once.discard(job_id)
        return at_once

    def _drop_oldest(self) -> None:
        self._forget(next(iter(self._due)))
        if not self._has_warned:
            self._has_warned = True
            self._warn(
                f"the feeds of more than {self._max_dirty} jobs could not be written; the oldest"
                " changes are dropped, and feeds show them after the jobs' next events"
            )
