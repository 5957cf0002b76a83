"""The handle of a running job, through which a task publishes its events."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from time import time as _time
from types import TracebackType
from typing import Any, Final, Protocol, TypeVar

from msgspec import UNSET, Struct, structs

from jobcast.errors import JobCancelled
from jobcast.events import LEVELS, JobComplete, JobError, JobLog, Level
from jobcast.publishing.cancellation import CancellableRun, active_runs, find_cancelled
from jobcast.publishing.failures import or_default_message
from jobcast.publishing.host import find_host
from jobcast.publishing.labels import tags_of
from jobcast.publishing.progress import Stage, number
from jobcast.publishing.run_reporter import PublisherSource
from jobcast.publishing.sanitize import interrupts, safe_result, safe_text
from jobcast.settings import DEFAULT_RESULT_LIMIT
from jobcast.transports import NO_ORIGIN, Origin, Run
from jobcast.transports.base import Required
from jobcast.transports.runs import draw

T = TypeVar("T")

logger = logging.getLogger(__name__)

#: The levels with their numbers in :mod:`logging`, in ascending order.
NUMBERS: Final[tuple[tuple[int, Level], ...]] = tuple(
    (logging.getLevelNamesMapping()[name.upper()], name) for name in LEVELS
)

PLAIN_NUMBERS: Final = frozenset({int, float, type(None)})


class Loop(Struct, eq=False):
    """A loop that is being tracked."""

    began: float


class LogCapture(Protocol):
    def enter(self, job: Job) -> None: ...
    def leave(self, job: Job) -> None: ...


class Job(CancellableRun):
    """A job that can be followed. Get one with :func:`current_job` or :func:`jobcast.open_job`.

    No method raises an error of the transport. No method waits for the transport, except that the
    end of a job is flushed within a bounded time.

    :meth:`progress`, :meth:`log`, :meth:`track` (with each item), :meth:`stage` and the end of
    :meth:`shielded` are cancellation points: while the job is to be cancelled, they raise
    :class:`~jobcast.errors.JobCancelled`, in every thread. In a ``finally`` block, or an ``except``
    block, that handles such an exception they publish and do not raise.

    >>> with open_job("nightly-2026-11-23", owner="alice") as job:
    ...     for row in job.track(rows):
    ...         job.log(f"read {row}")
    """

    def __init__(
        self,
        source: PublisherSource,
        job_id: object,
        *,
        origin: Origin = NO_ORIGIN,
        result_limit: int = DEFAULT_RESULT_LIMIT,
        waits: bool = True,
    ) -> None:
        super().__init__(source, job_id, origin=origin, waits=waits)
        self.package: str | None = None  # the top-level package of the task, or of the caller
        self.outer: Job | NoJob = NO_JOB  # the current job before this one
        self.capture: LogCapture | None = None
        self._result_limit = result_limit
        self._stage = Stage()
        self._message: str | None = None
        self._loops: list[Loop] = []  # the tracked loops that are not finished, the latest last
        self._loop: Loop | None = None  # the tracked loop whose progress is reported

    def progress(
        self,
        percentage: float | None = None,
        message: str | None = None,
        *,
        current: float | None = None,
        total: float | None = None,
    ) -> None:
        """Report the progress of the job, or of its current stage.

        A call costs about a microsecond. A newer progress replaces an older one that has not been
        sent yet.

        Args:
            percentage: 0 to 100. Values outside are clamped, and a value below an earlier one
                does not move the bar back. None to compute it from ``current`` and ``total``, or
                if it is unknown.
            message: a text that describes the current work. It stays until the stage has another.
                Given alone, it leaves the numbers unchanged.
            current: the number of finished items, in any unit.
            total: the number of all items; None if it is unknown.

        >>> job.progress(40, "resizing")
        >>> job.progress(current=12, total=30)
        """
        if self.ended:
            return
        if self.cancelled:
            self._interrupt()
        stage = self._stage
        if message is None:
            message = self._message
        else:
            if type(message) is not str:
                message = safe_text(message)
            self._message = message
            if percentage is None and current is None and self.slot is not None:
                _, percentage, _, current, total, stage, _ = self.slot
        # Foreign types are converted here, in the caller's thread and without a lock.
        reported: Any = percentage if type(percentage) in PLAIN_NUMBERS else number(percentage)
        done: Any = current if type(current) in PLAIN_NUMBERS else number(current)
        of: Any = total if type(total) in PLAIN_NUMBERS else number(total)
        began = None if self._loop is None else self._loop.began
        self.slot = (_time(), reported, message, done, of, stage, began)
        if not self.dirty:
            self.source.publisher.mark(self)

    def log(self, message: object, level: str | int | None = "info") -> None:
        """Publish a log line.

        Args:
            message: the line. It is truncated to 8192 characters.
            level: debug, info, warning, error or critical, in upper or lower case, or a number as
                in :mod:`logging`. A number between two levels counts as the lower one. None and
                any other value count as info.

        >>> job.log("skipped an empty page", level="warning")
        """
        if self.cancelled:
            self._interrupt()
        self.publish_log(message, level)

    def publish_log(self, message: object, level: str | int | None) -> None:
        """Publish a log line as :meth:`log` does, without being a cancellation point."""
        known = _level(level)
        if known is None:
            logger.warning(
                "job %s: invalid log level %s; published as info", self.job_id, safe_text(level)
            )
        self._add(JobLog(job_id=self.job_id, level=known or "info", message=safe_text(message)))

    def track(
        self, iterable: Iterable[T], total: float | None = None, message: str | None = None
    ) -> Iterator[T]:
        """Iterate, and report progress, rate and remaining time.

        Args:
            iterable: the items.
            total: the number of items; by default ``len(iterable)``, if that is available.
            message: a text that describes the current work.

        >>> for row in job.track(rows, message="importing"):
        ...     save(row)
        """
        if total is None:
            total = _length(iterable)
        loop = Loop(_time())
        self._loops.append(loop)
        try:
            self._loop = loop
            self.progress(message=message, current=0, total=total)
            for count, item in enumerate(iterable, 1):
                self._loop = loop  # an interleaved loop may have replaced it
                yield item
                self._loop = loop
                self.progress(current=count, total=total)
        finally:
            self._loops.remove(loop)
            self._loop = self._loops[-1] if self._loops else None

    @contextmanager
    def stage(self, name: str, weight: float = 1, of: float | None = None) -> Iterator[None]:
        """Run a stage of the job, in which percentages from 0 to 100 refer to the stage.

        Args:
            name: the name to show.
            weight: the weight of the stage, relative to the other stages at the same level.
            of: the sum of the weights at this level, if it is known in advance. Passing it to the
                first stage is enough. Without it, the stages begun so far divide the whole, and
                the bar steps back when another stage begins.

        Raises:
            ValueError: ``weight`` or ``of`` is not a positive and finite number, or ``of`` is less
                than the sum of the weights so far.

        >>> with job.stage("download", weight=1, of=4):
        ...     job.progress(50)  # 12.5 % of the job
        >>> with job.stage("convert", weight=3):
        ...     job.progress(50)  # 62.5 % of the job
        """
        around, message = self._stage, self._message
        self._stage, self._message = around.enter(name, weight, of), None
        try:
            self.progress(0)
            yield
            self.progress(100)
        finally:
            self._stage, self._message = around, message

    def complete(self, result: Any = None) -> None:
        """End the job as successful, and publish ``result``.

        Parts that cannot be encoded, and results that are too large, are replaced by descriptions.
        The job publishes nothing after its end.

        >>> job.complete({"rows": 1200})
        """
        self._end(
            lambda: JobComplete(job_id=self.job_id, result=safe_result(result, self._result_limit))
        )

    def fail(
        self, exc: BaseException, message: str | None = None, *, requires: Required = ""
    ) -> None:
        """End the job as failed.

        Args:
            exc: the cause. Its class name is published, its traceback never.
            message: the text to show instead of the exception's own. If it is blank, a default
                message is shown.
            requires: the state that the job must be in for the event to be stored.

        >>> job.fail(error, "The archive is damaged")
        """
        self.requires = requires
        host = find_host()
        self._end(
            lambda: JobError(
                job_id=self.job_id,
                error=type(exc).__name__,
                message=or_default_message(
                    safe_text(host.failure_message(exc) if message is None else message)
                ),
                reason=host.reason_of(exc),
                by=exc.by or UNSET if isinstance(exc, JobCancelled) else UNSET,
            )
        )

    def __enter__(self) -> Job:
        run = Run(sending=draw(), attempt=1, delivery=draw())
        self.origin = structs.replace(self.origin, run=run)
        self.become_current()
        self.started()
        self._in_body = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._in_body = False
        if exc is None:
            self.complete()
        elif (cancelled := find_cancelled(exc)) is not None:
            self.fail(cancelled)
        else:
            self.fail(exc, find_host().program_failure_message(exc))
        self.restore_outer()

    def become_current(self) -> None:
        """Make this the current job, until :meth:`restore_outer`."""
        self.outer = _current.get()
        self.handled_at_start = sys.exc_info()[1]
        _current.set(self)
        active_runs.enter(self)
        if self.capture is not None:
            self.capture.enter(self)

    def restore_outer(self) -> None:
        """Restore the job that was the current one before."""
        if self.capture is not None:
            self.capture.leave(self)
        active_runs.leave(self)
        _current.set(self.outer)


class NoJob:
    """The return value of :func:`current_job` outside of a job. Its methods do nothing."""

    job_id: str | None = None
    owner: str | None = None
    cancelled = False

    def progress(self, *args: Any, **kwargs: Any) -> None: ...
    def log(self, *args: Any, **kwargs: Any) -> None: ...
    def set_title(self, title: object) -> None: ...
    def complete(self, *args: Any, **kwargs: Any) -> None: ...
    def fail(self, *args: Any, **kwargs: Any) -> None: ...
    def check_cancelled(self) -> None: ...
    def on_cancel(self, callback: Callable[[], object]) -> None: ...

    @contextmanager
    def shielded(self) -> Iterator[None]:
        yield

    def run_async(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run(coroutine)

    def track(
        self, iterable: Iterable[T], total: float | None = None, message: str | None = None
    ) -> Iterator[T]:
        del total, message
        return iter(iterable)

    def add_tags(self, *tags: str) -> None:
        tags_of(tags)  # invalid arguments raise outside of a job, too

    @contextmanager
    def stage(self, name: str, weight: float = 1, of: float | None = None) -> Iterator[None]:
        Stage().enter(name, weight, of)  # invalid arguments raise outside of a job, too
        yield

    def flush(self) -> bool:
        return True

    def __enter__(self) -> NoJob:
        return self

    def __exit__(self, *_: object) -> None: ...


NO_JOB: Final = NoJob()
_current: ContextVar[Job | NoJob] = ContextVar("jobcast_job", default=NO_JOB)


def current_job() -> Job | NoJob:
    """Return the running job, at any depth of its call stack.

    Outside of a job, the methods of the returned object do nothing. A function can therefore
    report progress whether or not a job calls it:

    >>> def read(rows):
    ...     for row in current_job().track(rows):
    ...         ...

    A thread that a task starts has its own context, and so no current job. Run it in a copy of the
    task's context, one copy per thread, or pass the job to it:

    >>> Thread(target=copy_context().run, args=(read, rows))  # of contextvars
    >>> Thread(target=read, args=(rows, current_job()))
    """
    return _current.get()


@contextmanager
def use_job(job: Job | NoJob) -> Iterator[None]:
    """Make a job the current one, for a run in another process."""
    token = _current.set(job)
    try:
        yield
    finally:
        _current.reset(token)


def _length(iterable: object) -> int | None:
    """Return the number of items; None if it is unknown.

    A ``__len__`` may raise, such as that of PyTorch's ``DataLoader`` for an iterable data set.
    """
    if not isinstance(iterable, Sized):
        return None
    try:
        return len(iterable)
    except Exception as exc:
        if interrupts(exc):
            raise
        logger.debug(
            "could not get the length of a %s; its progress has no total",
            type(iterable).__name__, exc_info=True,
        )  # fmt: skip
        return None


def _level(level: object) -> Level | None:
    """Return the level for a value; None if the value is not a level."""
    if level is None:
        return "info"
    if isinstance(level, int | float):
        above = [name for number, name in NUMBERS if level >= number]
        return above[-1] if above else "debug"
    text = safe_text(level).lower()
    return next((name for name in LEVELS if name == text), None)
