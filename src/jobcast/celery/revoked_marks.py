"""Mark cancelled jobs as revoked in Celery's result backend.

The messages of these jobs are not run, or their run was lost while the backend was away.

A read and a write of each job would occupy the loop of a worker's main process, which serves the
pool, the heartbeats and the timers: thousands of waiting jobs may be cancelled at once.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from celery import states
from msgspec import Struct, structs

from jobcast.aio import RANDOM, Backoff
from jobcast.celery.django_database import close_old_connections
from jobcast.celery.fork_guard import ForkGuard
from jobcast.celery.request_registry import latest_request
from jobcast.celery.result_backend import (
    can_access_results,
    read_meta,
    read_states,
    stores_failures,
)
from jobcast.transports.cancellation import Cancellation

#: States of a task that no worker runs.
NOT_RUNNING: Final = frozenset(
    {states.PENDING, states.RECEIVED, states.RETRY, states.REJECTED}
)  # as in Celery's ``revoke``
#: States of a task that stay when its run is lost.
ENDED: Final = states.READY_STATES | {states.IGNORED}
BATCH: Final = 25  # jobs that one call reads
MAX_STATE_AGE: Final = 0.5  # seconds after which a state is read again before it is replaced
SPREAD: Final = 0.5  # seconds before the first batch, at most
MAX_BYTES: Final = 32 * 1024**2  # of the jobs that wait
MARK_BYTES: Final = 1024  # of a job without its message, roughly
MAX_AGE: Final = 300.0  # seconds for which the mark of a job is retried
RETRY_DELAY: Final = 0.25  # seconds before the first retry, at most
MAX_RETRY_DELAY: Final = 5.0  # seconds
CLOSE_TIMEOUT: Final = 3.0  # seconds that the end of the worker may wait

TOO_MANY: Final = "too many jobs are cancelled at once"

logger = logging.getLogger(__name__)

_guard = ForkGuard()  # of the children that the pool forks


class Mark(Struct, frozen=True, eq=False):
    """A job to mark."""

    app: Any
    cancellation: Cancellation
    added_at: float  # of the monotonic clock
    is_lost: bool = False  # a run of the job; otherwise, no worker runs it

    @property
    def job_id(self) -> str:
        return self.cancellation.job_id

    @property
    def size(self) -> int:
        return MARK_BYTES + len(self.cancellation.message)

    @property
    def backend(self) -> Any:
        """The result backend of the job's task: in most applications, an object of this thread."""
        task = self.app.tasks.get(self.cancellation.task)
        return self.app.backend if task is None else task.backend

    def is_superseded(self) -> bool:
        """Return whether this worker has received the job again since the request."""
        request = latest_request(self.job_id)
        return request is not None and not request.is_covered_by(self.cancellation)

    def store(self, backend: Any, found: FoundStates) -> None:
        """Store that the job is revoked, unless a worker runs it, or it has another outcome.

        Args:
            backend: the result backend of the job's task.
            found: states in the backend. That of this job is read if it is missing or too old.

        The options of the task apply, but those of its message, such as ``ignore_result``, are not
        known. Its chord and its errbacks follow when a worker receives the message.
        """
        state = found.by_job.get(self.job_id)
        # Another worker may have begun the job, if it was sent again.
        if state is None or (self._replaces(state) and found.is_old):
            state = read_meta(backend, self.job_id)["status"]
        # If the job runs between the two calls, backends for key-value stores keep its success.
        if self._replaces(state) and not self.is_superseded():
            backend.mark_as_revoked(self.job_id, self.cancellation.message or "cancelled")

    def _replaces(self, state: str) -> bool:
        return state not in ENDED if self.is_lost else state in NOT_RUNNING


class FoundStates(Struct, frozen=True):
    """States of jobs in a result backend, at one time."""

    by_job: Mapping[str, str]
    read_at: float  # of the monotonic clock

    @classmethod
    def read(cls, marks: Sequence[Mark]) -> FoundStates:
        """Read the states of jobs whose backends read many at once."""
        read_at = time.monotonic()
        ids: dict[int, tuple[Any, list[str]]] = {}
        for mark in marks:
            backend = mark.backend
            ids.setdefault(id(backend), (backend, []))[1].append(mark.job_id)
        found: dict[str, str] = {}
        for backend, job_ids in ids.values():
            found.update(read_states(backend, job_ids))
        return cls(found, read_at)

    @property
    def is_old(self) -> bool:
        return time.monotonic() - self.read_at > MAX_STATE_AGE


class WaitingMarks:
    """The jobs to mark, of which the latest request counts. It is bounded in bytes and in time."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._marks: dict[str, Mark] = {}
        self._size = 0
        self._pushed_out = 0
        self._is_closing = False

    def __len__(self) -> int:
        return len(self._marks)

    def __contains__(self, mark: Mark) -> bool:
        return self._marks.get(mark.job_id) is mark

    def add(self, mark: Mark) -> None:
        """Add a job. It may push out the oldest ones."""
        with self._changed:
            former = self._remove(mark.job_id)
            if former is not None and former.is_lost:
                mark = structs.replace(mark, is_lost=True)
            self._marks[mark.job_id] = mark
            self._size += mark.size
            while self._size > MAX_BYTES and len(self._marks) > 1:
                self._remove(next(iter(self._marks)))
                self._pushed_out += 1
            self._changed.notify_all()

    def take_pushed_out(self) -> int:
        """Return how many jobs others have pushed out since the last call."""
        with self._changed:
            count, self._pushed_out = self._pushed_out, 0
        return count

    def sample(self) -> Sequence[Mark]:
        """Return some of the jobs, in a random order.

        Each worker has the same jobs. In this order the workers share the work: what one has marked
        costs the others a read.
        """
        with self._changed:
            marks = [*self._marks.values()]
        return RANDOM.sample(marks, min(BATCH, len(marks)))

    def done(self, mark: Mark) -> None:
        """Remove a job, unless it has been added again meanwhile."""
        with self._changed:
            if mark in self:
                self._remove(mark.job_id)

    def drop_before(self, added_at: float) -> int:
        """Remove the jobs that were added before a time. Return their number."""
        with self._changed:
            dropped = [mark.job_id for mark in self._marks.values() if mark.added_at < added_at]
            for job_id in dropped:
                self._remove(job_id)
        return len(dropped)

    def wait(self) -> bool:
        """Wait for a job. Return False if there will be none."""
        with self._changed:
            self._changed.wait_for(lambda: self._marks or self._is_closing)
            return bool(self._marks)

    def pause(self, seconds: float) -> None:
        """Wait for some time, or until this is closed."""
        with self._changed:
            if not self._is_closing:
                self._changed.wait_for(lambda: self._is_closing, seconds)
                return
        time.sleep(seconds)

    def close(self) -> None:
        """End the waits. Jobs that are left may still be taken."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()

    def clear(self) -> int:
        """Remove all jobs. Return their number."""
        with self._changed:
            left = len(self._marks)
            self._marks.clear()
            self._size = 0
        return left

    def _remove(self, job_id: str) -> Mark | None:
        mark = self._marks.pop(job_id, None)
        if mark is not None:
            self._size -= mark.size
        return mark


class RevokedMarks:
    """A thread that marks jobs. It starts with the first job.

    The loop of a worker adds jobs and closes this. Threads of the pool add jobs, too.
    """

    def __init__(self) -> None:
        self.reset_after_fork()

    def reset_after_fork(self) -> None:
        """Reset the state in a forked process, in which the thread does not exist."""
        # A handler of a signal may add a job while its thread does so.
        self._lock = threading.RLock()
        self._waiting: WaitingMarks | None = None
        self._thread: threading.Thread | None = None

    def add(self, app: Any, cancellation: Cancellation, *, is_lost: bool = False) -> None:
        """Mark a job soon, if Celery stores the failures of its task.

        Args:
            app: the application.
            cancellation: the request to cancel the job.
            is_lost: whether a run of the job was lost. By default, the job is one that no worker
                runs.
        """
        if not stores_failures(app.conf, app.tasks.get(cancellation.task)):
            return
        with self._lock:
            if self._waiting is None:
                self._waiting = WaitingMarks()
                self._thread = threading.Thread(
                    target=self._run, args=(self._waiting,), name="jobcast-revoked-marks",
                    daemon=True,
                )  # fmt: skip
                self._thread.start()
            self._waiting.add(Mark(app, cancellation, time.monotonic(), is_lost))

    def close(self, timeout: float = CLOSE_TIMEOUT) -> None:
        """Wait until all jobs are marked, for at most ``timeout`` seconds, and drop the others."""
        with self._lock:
            waiting, thread = self._waiting, self._thread
            self._waiting = self._thread = None
        if waiting is not None and thread is not None:
            waiting.close()
            thread.join(timeout)
            _warn_of(waiting.take_pushed_out(), TOO_MANY)
            _warn_of(waiting.clear(), "the worker ends")

    def _run(self, waiting: WaitingMarks) -> None:
        backoff = Backoff(RETRY_DELAY, MAX_RETRY_DELAY)
        while waiting.wait():
            # Each worker gets the notice at the same time, and a single job needs one of them.
            waiting.pause(RANDOM.uniform(0, SPREAD))
            while batch := waiting.sample():
                try:
                    self._mark(waiting, batch)
                    backoff.reset()
                except Exception:
                    # A backend may raise any exception. Celery's own attempts may have taken long.
                    if not waiting:
                        break  # the worker ends
                    level = logging.DEBUG if backoff.failures else logging.WARNING
                    logger.log(
                        level,
                        "could not store in the result backend that %d cancelled jobs are revoked;"
                        " retrying for up to %g s",
                        len(waiting), MAX_AGE, exc_info=True,
                    )  # fmt: skip
                    backoff.failed()
                    _warn_of(
                        waiting.drop_before(time.monotonic() - MAX_AGE),
                        "its result backend does not answer",
                    )
                    waiting.pause(backoff.delay())
            _warn_of(waiting.take_pushed_out(), TOO_MANY)

    def _mark(self, waiting: WaitingMarks, batch: Sequence[Mark]) -> None:
        """Mark jobs. The first error ends it, so that it waits once for a backend that is away.

        A job that always fails delays the others, but they come before it in some order.
        """
        try:
            with _guard.operation():
                found = FoundStates.read(batch)
            for mark in batch:
                if mark not in waiting:  # it was added again, pushed out, or dropped by the end
                    continue
                with _guard.operation():
                    backend = mark.backend
                    if can_access_results(backend):
                        mark.store(backend, found)
                waiting.done(mark)
        finally:
            # The backend may be a table of Django, and this thread has its own connection.
            close_old_connections()


def _warn_of(dropped: int, reason: str) -> None:
    if dropped:
        logger.warning(
            "could not store in the result backend that %d cancelled jobs are revoked, because %s;"
            " their states follow when a worker receives their messages",
            dropped, reason,
        )  # fmt: skip


revoked_marks = RevokedMarks()
# Celery announces no end of a worker in a cold shutdown, which does not wait either.
atexit.register(revoked_marks.close, 0)


def _reset_after_fork() -> None:
    _guard.after_fork_in_child()
    revoked_marks.reset_after_fork()


os.register_at_fork(
    before=_guard.before_fork, after_in_parent=_guard.after_fork, after_in_child=_reset_after_fork
)
