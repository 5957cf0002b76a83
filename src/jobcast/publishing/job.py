"""The handle of a running job: what a task says goes through it to the publisher."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from time import time as _time
from types import TracebackType
from typing import Any, Final, Protocol, TypeVar

from msgspec import UNSET, Struct, UnsetType, structs

from jobcast.events import (
    LEVELS,
    JobComplete,
    JobError,
    JobEvent,
    JobLog,
    JobProgress,
    JobStatus,
    Level,
    check_job_id,
)
from jobcast.publishing.failures import or_default_message
from jobcast.publishing.host import find_host
from jobcast.publishing.progress import Number, Shown, Stage, number
from jobcast.publishing.sanitize import interrupts, safe_result, safe_text
from jobcast.settings import DEFAULT_RESULT_LIMIT
from jobcast.transports import NO_ORIGIN, Origin, Run
from jobcast.transports.base import Required
from jobcast.transports.runs import draw

T = TypeVar("T")

logger = logging.getLogger(__name__)


#: The levels by the numbers that ``logging`` has for them, the least first.
NUMBERS: Final[tuple[tuple[int, Level], ...]] = tuple(
    (logging.getLevelNamesMapping()[name.upper()], name) for name in LEVELS
)

# A progress as the task said it: when, percentage, message, current, total, stage, and when the
# tracked loop began. A bare tuple, because most of them are replaced before anyone looks. The
# values are plain ones: they are looked at under the publisher's lock.
Slot = tuple[float, Any, str | None, Any, Any, Stage, float | None]

PLAIN_NUMBERS: Final = frozenset({int, float, type(None)})


class Loop(Struct, eq=False):
    """A tracked loop."""

    began: float


class Sent(Protocol):
    """An event that was handed to the publisher."""

    @property
    def reference(self) -> str:
        """Name the event as :attr:`Origin.after <jobcast.transports.Origin.after>` does."""


class LogCapture(Protocol):
    def enter(self, job: Job) -> None: ...
    def leave(self, job: Job) -> None: ...


class PublisherSource(Protocol):
    """What has the publisher of a process. After a fork that is another one."""

    @property
    def publisher(self) -> JobPublisher: ...


class JobPublisher(Protocol):
    def mark(self, job: Job) -> None: ...
    def add(self, job: Job, event: JobEvent) -> Sent: ...
    def flush(self, timeout: float = ...) -> bool: ...
    def hurry(self) -> None: ...


class Job:
    """A job that can be followed. Get one with :func:`current_job` or :func:`jobcast.open_job`.

    No method raises for what is wrong with the transport, and none waits for it, except that the
    end of a job is flushed within a bounded time.

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
        self.job_id = str.__str__(check_job_id(job_id))  # a subclass does not encode
        self.origin = origin
        self.ended = False
        self.retried = False
        self.replaced = False  # by another task, which has the same id
        self.last_status: Sent | None = None  # the next run of the task comes after it
        self.kept_headers: Mapping[str, Any] = {}  # of the message, which the next run has too
        self.retry_cause: tuple[BaseException | None, str] = None, ""
        self.requires: Required = ""  # of all that is said from here on
        self.package: str | None = None  # the top-level one of its task; None if there is no task
        self.dirty = False
        self.outer: Job | NoJob = NO_JOB  # what was the current job when this one began
        self.handled_around: BaseException | None = None  # what was being handled then
        self.capture: LogCapture | None = None  # of what is logged in it
        # Gets each progress that is published, in the publisher's thread and under its lock.
        self.on_progress: Callable[[JobProgress], None] | None = None
        self.source = source
        self._result_limit = result_limit
        self.patience: float | None = None  # seconds that a flush takes at most; None for the usual
        self._waits = waits  # until what has to be stored is; a worker's main process never does
        self._stage = Stage()
        self._shown = Shown()
        self._message: str | None = None
        self._loops: list[Loop] = []  # the tracked ones that go on, the latest last
        self._loop: Loop | None = None  # the one that progress is reported of
        self.slot: Slot | None = None  # the latest progress
        self._taken: Slot | None = None

    @property
    def attempt(self) -> int:
        """Which try this is, from 1."""
        return self.origin.run.attempt or 1

    @property
    def owner(self) -> str | None:
        """The subject whose token may follow the job."""
        return self.origin.owner

    @property
    def last_event_ref(self) -> str:
        """Name the event that the next run of the task comes after; empty if there is none."""
        return "" if self.last_status is None else self.last_status.reference

    def progress(
        self,
        percentage: float | None = None,
        message: str | None = None,
        *,
        current: float | None = None,
        total: float | None = None,
    ) -> None:
        """Say how far the job, or its present stage, has come.

        Costs about a microsecond, whatever becomes of it: a newer progress replaces an older one
        that was not sent yet.

        Args:
            percentage: 0 to 100; what is beyond is clamped, and what is less than was shown
                before is not shown. None where ``current`` and ``total`` say it, or where nobody
                knows.
            message: what the job is doing; the last one of the stage stays until there is another.
                Alone it changes nothing else.
            current: how many of ``total`` are done, in any unit.
            total: how many there are; None if that is not known.
        """
        if self.ended:
            return
        stage = self._stage
        if message is None:
            message = self._message
        else:
            if type(message) is not str:
                message = safe_text(message)
            self._message = message
            if percentage is None and current is None and self.slot is not None:
                _, percentage, _, current, total, stage, _ = self.slot
        # Foreign values become plain ones here, in the thread that they belong to.
        said: Any = percentage if type(percentage) in PLAIN_NUMBERS else number(percentage)
        done: Any = current if type(current) in PLAIN_NUMBERS else number(current)
        of: Any = total if type(total) in PLAIN_NUMBERS else number(total)
        began = None if self._loop is None else self._loop.began
        self.slot = (_time(), said, message, done, of, stage, began)
        if not self.dirty:
            self.source.publisher.mark(self)

    def log(self, message: object, level: str | int | None = "info") -> None:
        """Send a line of log.

        Args:
            message: the line; what is beyond 8192 characters is cut off.
            level: debug, info, warning, error or critical, in any case, or a number of
                ``logging``, of which those between two levels count as the lower one. None is
                info, and so is whatever else it may be.
        """
        known = _level(level)
        if known is None:
            logger.warning("job %s: %s is no level; logged as info", self.job_id, safe_text(level))
        self._add(JobLog(job_id=self.job_id, level=known or "info", message=safe_text(message)))

    def track(
        self, iterable: Iterable[T], total: float | None = None, message: str | None = None
    ) -> Iterator[T]:
        """Iterate, and report the progress with rate and time left.

        Args:
            iterable: what to go through.
            total: how many items there are; by default ``len(iterable)``, where that can be had.
            message: what the job is doing.
        """
        if total is None:
            total = _length(iterable)
        loop = Loop(_time())
        self._loops.append(loop)
        try:
            self._loop = loop
            self.progress(message=message, current=0, total=total)
            for count, item in enumerate(iterable, 1):
                self._loop = loop  # another loop, in turn with this one, may have gone on
                yield item
                self._loop = loop
                self.progress(current=count, total=total)
        finally:
            self._loops.remove(loop)
            self._loop = self._loops[-1] if self._loops else None

    @contextmanager
    def stage(self, name: str, weight: float = 1, of: float | None = None) -> Iterator[None]:
        """Do a part of the job, in which 0 to 100 means that part.

        Args:
            name: what the part is called.
            weight: its share, beside the other parts at the same level.
            of: the sum of the weights at this level, if it is known ahead; to say it with the
                first part is enough. Without it the share is one of the parts begun so far, and
                the bar steps back when another begins.

        Raises:
            ValueError: a weight is not a positive and finite number, or ``of`` is too small.
        """
        around, message = self._stage, self._message
        self._stage, self._message = around.enter(name, weight, of), None
        self.progress(0)
        try:
            yield
            self.progress(100)
        finally:
            self._stage, self._message = around, message

    def complete(self, result: Any = None) -> None:
        """End the job: it succeeded. ``result`` is shown to whoever follows it.

        What does not encode, or is too large, is described instead. Nothing is said of the job
        after its end.
        """
        self._end(
            lambda: JobComplete(job_id=self.job_id, result=safe_result(result, self._result_limit))
        )

    def fail(
        self, exc: BaseException, message: str | None = None, *, requires: Required = ""
    ) -> None:
        """End the job: it failed.

        Args:
            exc: why; its class name is shown, its traceback never.
            message: what to show instead of the exception's own text. Where there is nothing to
                show a sentence says that.
            requires: a state that the job has to be in, so that it is said at all.
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
            )
        )

    def started(self, *, task: str | None = None) -> None:
        """Say that a run begins; what a former one showed is forgotten."""
        self._add(
            JobStatus(job_id=self.job_id, status="started", task=_name(task), attempt=self.attempt)
        )

    def queued(self, *, task: str | None = None) -> Sent | None:
        """Say that the task was sent."""
        return self._add(JobStatus(job_id=self.job_id, status="queued", task=_name(task)))

    def retrying(self, *, eta: datetime, attempt: int | None = None) -> None:
        """Say, once, that the job is tried again; ``retry_cause`` is why.

        Args:
            eta: when.
            attempt: which try that is; by default the next. One that is delivered again is not.
        """
        if self.retried:
            return
        exc, message = self.retry_cause
        self.last_status = self._add(
            JobStatus(
                job_id=self.job_id,
                status="retrying",
                attempt=attempt or self.attempt + 1,
                eta=eta,
                error=UNSET if exc is None else type(exc).__name__,
                message=safe_text(message),
            )
        )
        self.retried = True
        self.flush()

    def flush(self) -> bool:
        """Wait, within a bounded time, until all that was said is stored."""
        if not self._waits:
            return False
        publisher = self.source.publisher
        return publisher.flush() if self.patience is None else publisher.flush(self.patience)

    def settle(self) -> None:
        """Wait as :meth:`flush` does, but not in an event loop, which others wait for."""
        if _in_event_loop():
            self.source.publisher.hurry()
        else:
            self.flush()

    def take_progress(self, slot: Slot | None) -> JobProgress | None:
        """The progress that ``slot`` held, if it is newer than what was taken before."""
        # Once the latest is taken, whatever another thread still carries along is older.
        if slot is None or self._taken is slot or self._taken is self.slot:
            return None
        progress = self._progress_of(slot)
        if self.on_progress is not None:
            self.on_progress(progress)
        self._taken = slot  # last: a time limit may interrupt the task anywhere
        return progress

    def drop_progress(self, slot: Slot | None) -> None:
        """Skip a progress whose values cannot be read."""
        self._taken = slot

    def _progress_of(self, slot: Slot) -> JobProgress:
        said_at, percentage, message, current, total, stage, began = slot
        done, of = number(current), number(total)
        rate, eta = _pace(done, of, UNSET if began is None else said_at - began)
        return JobProgress(
            job_id=self.job_id,
            timestamp=datetime.fromtimestamp(said_at, UTC),
            percentage=self._shown.percentage(number(percentage), done, of, stage),
            message=None if message is None else safe_text(message),
            current=done,
            total=of,
            stage=_name(stage.name),
            rate=rate,
            eta=eta,
        )

    def __enter__(self) -> Job:
        run = Run(sending=draw(), attempt=1, delivery=draw())
        self.origin = structs.replace(self.origin, run=run)
        self.become_current()
        self.started()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc is None:
            self.complete()
        else:
            self.fail(exc, find_host().program_failure_message(exc))
        self.resign()

    def become_current(self) -> None:
        """Make this the job that is running here, until it resigns."""
        self.outer = _current.get()
        self.handled_around = sys.exc_info()[1]
        _current.set(self)
        if self.capture is not None:
            self.capture.enter(self)

    def resign(self) -> None:
        """Make the job that was running before the current one again."""
        if self.capture is not None:
            self.capture.leave(self)
        _current.set(self.outer)

    def _add(self, event: JobEvent) -> Sent | None:
        return None if self.ended else self.source.publisher.add(self, event)

    def _end(self, event: Callable[[], JobEvent]) -> None:
        if not self.ended:
            self.source.publisher.add(self, event())
            self.ended = True
            self.settle()


class NoJob:
    """What :func:`current_job` gives outside of a job: every method does nothing."""

    job_id: str | None = None
    owner: str | None = None

    def progress(self, *args: Any, **kwargs: Any) -> None: ...
    def log(self, *args: Any, **kwargs: Any) -> None: ...
    def complete(self, *args: Any, **kwargs: Any) -> None: ...
    def fail(self, *args: Any, **kwargs: Any) -> None: ...

    def track(
        self, iterable: Iterable[T], total: float | None = None, message: str | None = None
    ) -> Iterator[T]:
        del total, message
        return iter(iterable)

    @contextmanager
    def stage(self, name: str, weight: float = 1, of: float | None = None) -> Iterator[None]:
        Stage().enter(name, weight, of)  # what is wrong inside of a job is wrong outside too
        yield

    def flush(self) -> bool:
        return True

    def __enter__(self) -> NoJob:
        return self

    def __exit__(self, *_: object) -> None: ...


NO_JOB: Final = NoJob()
_current: ContextVar[Job | NoJob] = ContextVar("jobcast_job", default=NO_JOB)


def current_job() -> Job | NoJob:
    """The job that is running here, anywhere in its call stack.

    Outside of a job its methods do nothing, so that a function may use it without knowing who
    calls it:

    >>> def read(rows):
    ...     for row in current_job().track(rows):
    ...         ...

    A thread that a task starts is outside too: it has a context of its own. It is inside if it is
    started in the task's, one copy for each thread, or it takes the job along:

    >>> Thread(target=copy_context().run, args=(read, rows))  # of contextvars
    >>> Thread(target=read, args=(rows, current_job()))
    """
    return _current.get()


@contextmanager
def use_job(job: Job | NoJob) -> Iterator[None]:
    """Make a job the current one, of a run that is not here."""
    token = _current.set(job)
    try:
        yield
    finally:
        _current.reset(token)


def _pace(done: Number, of: Number, seconds: Number) -> tuple[Number, Number]:
    """Items a second and seconds left, of a tracked loop."""
    if done is UNSET or seconds is UNSET or done <= 0 or seconds <= 0:
        return UNSET, UNSET
    rate = done / seconds
    if rate <= 0:  # too small for a number
        return UNSET, UNSET
    left = UNSET if of is UNSET else number(round(max(0.0, (of - done) / rate), 3))
    return number(round(rate, 3)), left


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _length(iterable: object) -> int | None:
    """Return the number of items; None if it is unknown.

    There may be a ``__len__`` that raises: PyTorch's ``DataLoader`` has one, of any data set.
    """
    if not isinstance(iterable, Sized):
        return None
    try:
        return len(iterable)
    except Exception as exc:
        if interrupts(exc):
            raise
        logger.debug("a %s has no length", type(iterable).__name__, exc_info=True)
        return None


def _name(name: str | None) -> str | UnsetType:
    return safe_text(name) if name else UNSET


def _level(level: object) -> Level | None:
    """The level that a task means; None if it is none."""
    if level is None:
        return "info"
    if isinstance(level, int | float):
        above = [name for number, name in NUMBERS if level >= number]
        return above[-1] if above else "debug"
    text = safe_text(level).lower()
    return next((name for name in LEVELS if name == text), None)
