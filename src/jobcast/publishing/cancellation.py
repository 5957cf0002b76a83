"""Cancellation of the jobs that run in this process.

A run is interrupted cooperatively: its cancellation points raise
:class:`~jobcast.errors.JobCancelled`. The publisher of the process, the control channel and, in a
child of a worker's pool, the main process pass requests to :func:`learn`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Lock
from typing import Any, Final, TypeVar

from jobcast.errors import JobCancelled
from jobcast.events import now
from jobcast.publishing.run_reporter import RunReporter
from jobcast.transports.cancellation import DEFAULT_MESSAGE, KEPT_FOR, MAX_KEPT, Cancellation
from jobcast.transports.runs import Run

T = TypeVar("T")

MAX_CONTEXTS: Final = 100  # exceptions of a chain to look at

logger = logging.getLogger(__name__)


class CancellableRun(RunReporter):
    """A run that can be cancelled.

    Attributes:
        cancelled: whether the job was cancelled. Reading it costs nothing and never raises.
    """

    # Slots are fast to read. More attributes in the instance dictionary would exceed the size up to
    # which it is fast, and slow progress() down.
    __slots__ = (
        "_callbacks", "_cancellation", "_confirms_start", "_in_body", "_root_tasks", "_shields",
        "cancelled", "handled_at_start", "is_start_confirmed",
    )  # fmt: skip

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cancelled = False
        self.handled_at_start: BaseException | None = None  # by the caller of the run
        self.is_start_confirmed = False  # the store has the start, or needs none
        self._cancellation: Cancellation | None = None
        self._in_body = False  # cancellation points raise in the task's own code only
        self._confirms_start = False  # waits for the store's answer to the run's start
        self._callbacks: deque[Callable[[], object]] = deque()
        self._root_tasks: list[_RootTask] = []  # of run_async
        self._shields: list[object] = []

    def check_cancelled(self) -> None:
        """Raise :class:`~jobcast.errors.JobCancelled` if the job was cancelled.

        Unlike the other cancellation points, it raises in ``except`` and ``finally`` blocks, too.

        >>> while not finished():
        ...     job.check_cancelled()
        ...     work()
        """
        if self.cancelled and not self._is_shielded:
            self.end_if_cancelled()

    def end_if_cancelled(self) -> None:
        """Raise ``JobCancelled`` in a cancelled run, even within a shield."""
        if self.cancelled and self._in_body:
            raise self.cancelled_error()

    def confirm_start(self) -> None:
        """Raise ``JobCancelled`` if the job was cancelled before the store had the run's start.

        The request may have ended the job in the store, while the run continued.
        """
        if self._in_body and not self.is_start_confirmed:
            self._confirms_start = True
            try:
                self.is_start_confirmed = self.settle()
            finally:
                self._confirms_start = False
            self.check_cancelled()

    @contextmanager
    def shielded(self) -> Iterator[None]:
        """Delay a cancellation until the end of a block that must not be interrupted.

        Blocks may be nested. The outermost one raises at its end if the job was cancelled
        meanwhile. A block does not extend ``cancel_grace``, the time after which the worker
        terminates the run.

        >>> with job.shielded():
        ...     move(draft, published)
        """
        token = _shields.set((*_shields.get(), self))
        self._shields.append(token)
        try:
            yield
        finally:
            self._shields.remove(token)
            _shields.reset(token)
        if self.cancelled:
            self._cancel_root_tasks()
            self._interrupt()

    def on_cancel(self, callback: Callable[[], object]) -> None:
        """Call a function, once, when the job is cancelled.

        The function runs in the thread that receives the request. That thread also publishes the
        events of all jobs of this process, so the function should return quickly. If the job was
        cancelled before, the function runs at once, in the caller's thread. Exceptions are logged.

        >>> job.on_cancel(connection.cancel)
        """
        self._callbacks.append(callback)
        if self.cancelled:
            self._call_back()

    def run_async(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in an event loop of its own, and cancel it if the job is cancelled.

        The coroutine gets ``asyncio.CancelledError`` at its next ``await``, as after
        ``asyncio.Task.cancel()``. This method then raises :class:`~jobcast.errors.JobCancelled`.

        >>> job.run_async(download(urls))
        """
        root = _RootTask(self)
        try:
            self.check_cancelled()
            return asyncio.run(root.run(coroutine))
        except BaseException as exc:
            if self.cancelled and self._in_body and is_cancellation(exc):
                raise self.cancelled_error() from exc
            raise
        finally:
            coroutine.close()

    def cancel_run(self, cancellation: Cancellation) -> None:
        """Interrupt the run at its next cancellation point. Any thread may call this.

        The body of a job that cannot be cancelled is not interrupted.
        """
        if self.cancelled or self.ended or self._is_protected:
            return
        self._cancellation = cancellation
        self.cancelled = True
        self._cancel_root_tasks()
        self._call_back()

    def cancelled_error(self) -> JobCancelled:
        """Return the exception that ends the run."""
        request = self._cancellation
        return JobCancelled(DEFAULT_MESSAGE) if request is None else request.error

    @contextmanager
    def body(self) -> Iterator[None]:
        """Make cancellation points raise within the block, and check once at its beginning."""
        self._in_body = True
        try:
            self.check_cancelled()
            yield
        finally:
            self._in_body = False

    @property
    def _is_protected(self) -> bool:
        """Whether requests have no effect: the task is not cancellable, and its body has begun.

        A request that ended the job before its start has an effect: no event may follow the end.
        """
        return self._in_body and not (self._info.cancellable or self._confirms_start)

    @property
    def in_body(self) -> bool:
        """Whether the task's own code runs."""
        return self._in_body

    def _interrupt(self) -> None:
        """Raise at a cancellation point, unless the run is already ending."""
        if not self.ended and not self._is_ending:
            self.check_cancelled()

    @property
    def _is_shielded(self) -> bool:
        return any(job is self for job in _shields.get())

    @property
    def _is_ending(self) -> bool:
        """Whether the run handles an exception that ends it, as in a ``finally`` block."""
        exc = sys.exc_info()[1]
        for _ in range(MAX_CONTEXTS):
            if exc is None or exc is self.handled_at_start:
                return False
            if not isinstance(exc, Exception):
                return True
            exc = exc.__context__
        return False

    def _call_back(self) -> None:
        while self._callbacks:
            try:
                callback = self._callbacks.popleft()
            except IndexError:  # another thread has called it
                return
            token = _shields.set((*_shields.get(), self))
            try:
                callback()
            except BaseException:
                # The thread publishes the events of all jobs, and has to survive any exception.
                logger.exception("job %s: a callback of on_cancel failed", self.job_id)
            finally:
                _shields.reset(token)

    def _cancel_root_tasks(self) -> None:
        for root in [*self._root_tasks]:
            root.cancel()

    @property
    def has_shields(self) -> bool:
        """Whether any thread or coroutine delays the cancellation."""
        return bool(self._shields)

    def add_root_task(self, root: _RootTask) -> None:
        self._root_tasks.append(root)
        if self.cancelled:
            root.cancel()

    def remove_root_task(self, root: _RootTask) -> None:
        self._root_tasks.remove(root)


class _RootTask:
    """The asyncio task of :meth:`CancellableRun.run_async`."""

    def __init__(self, job: CancellableRun) -> None:
        self._job = job

    async def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        self._job.add_root_task(self)
        try:
            return await coroutine
        finally:
            self._job.remove_root_task(self)

    def cancel(self) -> None:
        """Cancel the task, from any thread, unless a shield delays the cancellation."""
        try:
            self._loop.call_soon_threadsafe(self._cancel)
        except RuntimeError:
            return  # the loop is closed: the coroutine has ended

    def _cancel(self) -> None:
        if self._task is not None and not self._job.has_shields:
            self._task.cancel()


def is_cancellation(exc: BaseException) -> bool:
    """Return whether an exception only results from the cancellation of a job or its coroutines."""
    if isinstance(exc, BaseExceptionGroup):
        return all(is_cancellation(one) for one in exc.exceptions)
    return isinstance(exc, JobCancelled | asyncio.CancelledError)


def find_cancelled(exc: BaseException) -> JobCancelled | None:
    """Return the ``JobCancelled`` that an exception is or, in groups, consists of."""
    if isinstance(exc, JobCancelled):
        return exc
    if isinstance(exc, BaseExceptionGroup) and is_cancellation(exc):
        found = (find_cancelled(one) for one in exc.exceptions)
        return next((one for one in found if one is not None), None)
    return None


class KnownRequests:
    """The latest requests that this process has received. Any thread may call the methods."""

    def __init__(self) -> None:
        self._requests: dict[str, Cancellation] = {}
        self.reset_lock()

    def reset_lock(self) -> None:
        """Replace the lock, which another thread may have held during a fork."""
        self._lock = Lock()

    def add(self, cancellation: Cancellation) -> None:
        with self._lock:
            self._requests.pop(cancellation.job_id, None)
            self._requests[cancellation.job_id] = cancellation
            if len(self._requests) > MAX_KEPT:
                del self._requests[next(iter(self._requests))]

    def find(self, job_id: str, run: Run) -> Cancellation | None:
        """Return the request that covers a run."""
        found = self._requests.get(job_id)
        if found is None or not found.covers(run):
            return None
        # The record of the job, and so the request, may have expired since.
        return found if (now() - found.requested_at).total_seconds() < KEPT_FOR else None


class ActiveRuns:
    """The runs of this process that can be cancelled. Any thread may call the methods."""

    def __init__(self) -> None:
        self._runs: dict[int, CancellableRun] = {}
        self.known = KnownRequests()
        self.generation = 0  # changes whenever a run begins

    def __len__(self) -> int:
        return len(self._runs)

    def __contains__(self, run: object) -> bool:
        return id(run) in self._runs

    def enter(self, run: CancellableRun) -> None:
        """Add a run, and cancel it if a request that came before its start covers it."""
        self._runs[id(run)] = run
        self.generation += 1
        known = self.known.find(run.job_id, run.origin.run)
        if known is not None:
            run.cancel_run(known)

    def leave(self, run: CancellableRun) -> None:
        self._runs.pop(id(run), None)

    def cancel(self, cancellation: Cancellation) -> None:
        """Interrupt the runs that a request covers, now or when they begin."""
        if cancellation.outcome in ("cancelled", "requested"):
            self.known.add(cancellation)  # requests with other outcomes have no effect
        for run in [*self._runs.values()]:
            if run.job_id == cancellation.job_id and cancellation.covers(run.origin.run):
                run.cancel_run(cancellation)


active_runs: Final = ActiveRuns()
_shields: ContextVar[tuple[CancellableRun, ...]] = ContextVar("jobcast_shields", default=())
_observers: list[Callable[[Cancellation], None]] = []


def learn(cancellation: Cancellation) -> None:
    """Handle a request to cancel a job, in any thread. A repeated request has no effect."""
    if not cancellation.is_for_later_messages:
        active_runs.cancel(cancellation)
    for observe in [*_observers]:
        observe(cancellation)


def observe_requests(observe: Callable[[Cancellation], None]) -> None:
    """Call a function with each request that this process receives, but not in its forks."""
    _observers.append(observe)


def stop_observing(observe: Callable[[Cancellation], None]) -> None:
    """Undo :func:`observe_requests`. In a fork of the process there is nothing to undo."""
    if observe in _observers:
        _observers.remove(observe)


os.register_at_fork(after_in_child=_observers.clear)
os.register_at_fork(after_in_child=active_runs.known.reset_lock)
