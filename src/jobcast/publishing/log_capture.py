"""Capture what is logged inside a running job, and publish it as the job's log lines."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from typing import Final

from jobcast.publishing.job import Job, current_job
from jobcast.settings import Settings

EVERY_LOGGER: Final = "*"  # in JOBCAST_LOG_LOGGERS

# The machinery around a task is no part of its story, and must not hear itself.
EXCLUDED: Final = (
    "amqp", "billiard", "celery", "engineio", "jobcast", "kombu", "redis", "socketio", "vine",
)  # fmt: skip

# The parent of the loggers that Celery's ``get_task_logger`` makes. Celery's own handler sits here,
# and what it gets does not reach the root logger.
TASK_LOGGER: Final = "celery.task"


def is_captured(
    name: str, package: str | None, listed: Collection[str], *, of_task: bool = False
) -> bool:
    """Return whether the lines of a logger are shown to the followers of the job that logs them.

    A library's lines may have secrets that are not the followers' to see, such as the URLs of
    httpx: they are shown only if the settings list the library.

    Args:
        name: of the logger.
        package: the top-level package of the job's task; None for work that is no task.
        listed: further loggers, each with those below it; ``*`` is every logger.
        of_task: whether the logger was made by Celery's ``get_task_logger``.

    >>> is_captured("shop.reports", package="shop", listed=())
    True
    >>> is_captured("httpx", package="shop", listed=())
    False
    """
    if _is_at_or_below(name, TASK_LOGGER):
        return True
    if name.partition(".")[0] in EXCLUDED:
        return False
    parents = listed if package is None else (package, *listed)
    return of_task or EVERY_LOGGER in listed or any(_is_at_or_below(name, p) for p in parents)


def _is_at_or_below(name: str, parent: str) -> bool:
    return name == parent or name.startswith(f"{parent}.")


def _is_task_logger(name: str) -> bool:
    logger = logging.Logger.manager.loggerDict.get(name)
    parent = logger if isinstance(logger, logging.Logger) else None
    while parent is not None:
        if parent.name == TASK_LOGGER:
            return True
        parent = parent.parent
    return False


class Capture:
    """Captures logging for the jobs of a configuration, while any of them runs.

    Outside of jobs there is no handler: ``basicConfig()`` and ``lastResort`` go by that.
    Jobs begin and end in any thread, so no lock is held while the loggers change.
    """

    def __init__(self, settings: Settings) -> None:
        self.level = settings.log_level.upper()
        self.listed = settings.log_loggers
        self._is_off = settings.log_level == "off"
        self._jobs: dict[int, Job] = {}
        self._handlers: dict[str, JobLogHandler] = {}  # by the name of the logger

    def enter(self, job: Job) -> None:
        """Capture what is logged in a job from here on."""
        if self._is_off:
            return
        self._jobs[id(job)] = job
        self._install(job)

    def leave(self, job: Job) -> None:
        """Capture no more of a job; remove the handlers after the last one."""
        self._jobs.pop(id(job), None)
        if self._jobs:
            return
        for handler in [*self._handlers.values()]:
            handler.logger.removeHandler(handler)
        for other in [*self._jobs.values()]:
            self._install(other)  # it has begun meanwhile

    def _install(self, job: Job) -> None:
        # An application may configure logging at any time, which removes handlers.
        for name in self._loggers_of(job):
            logger = logging.getLogger(name)
            handler = self._handlers.setdefault(name, JobLogHandler(self, logger))
            logger.addHandler(handler)

    def _loggers_of(self, job: Job) -> Iterator[str]:
        """The loggers that get a handler: those at which records arrive that are captured."""
        yield from ("", TASK_LOGGER)
        for name, logger in [*logging.Logger.manager.loggerDict.items()]:
            ends_here = isinstance(logger, logging.Logger) and not logger.propagate
            if ends_here and self.takes(name, job):
                yield name

    def takes(self, name: str, job: Job) -> bool:
        """Return whether a job shows the records of a logger."""
        return is_captured(name, job.package, self.listed, of_task=_is_task_logger(name))


class JobLogHandler(logging.Handler):
    """Hands the records that arrive at a logger to the job that is running, if there is one.

    It has no lock: a record's message may run any code. It leaves the record as it is, because
    other handlers pickle it or print all that it has.
    """

    def __init__(self, capture: Capture, logger: logging.Logger) -> None:
        super().__init__(capture.level)
        self.logger = logger
        self.capture = capture

    def createLock(self) -> None:  # noqa: N802
        self.lock = None

    def handle(self, record: logging.LogRecord) -> bool:
        handlers = _handlers_of(record.name)
        ours = [handler for handler in handlers if isinstance(handler, JobLogHandler)]
        last_resort = logging.lastResort
        alone = ours == handlers and ours[:1] == [self]
        if alone and last_resort is not None and record.levelno >= last_resort.level:
            # Without jobcast's handlers logging would have found none.
            last_resort.handle(record)
        if next((one for one in ours if one.capture is self.capture), self) is self:
            self.emit(record)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        job = current_job()
        if not isinstance(job, Job) or job.capture is not self.capture:
            return
        try:
            if self.capture.takes(record.name, job):
                job.log(record.getMessage(), level=record.levelno)
        except Exception:
            self.handleError(record)


def _handlers_of(name: str) -> list[logging.Handler]:
    """The handlers that get a record of a logger, the nearest first."""
    found: list[logging.Handler] = []
    known = logging.Logger.manager.loggerDict.get(name, logging.getLogger())
    logger = known if isinstance(known, logging.Logger) else None
    while logger is not None:
        found += logger.handlers
        logger = logger.parent if logger.propagate else None
    return found
