"""Capture log records of running jobs, and publish them as the jobs' log lines."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from typing import Final

from jobcast.publishing.job import Job, current_job
from jobcast.settings import Settings

EVERY_LOGGER: Final = "*"  # in JOBCAST_LOG_LOGGERS

# Records of the infrastructure are not about the task, and capturing them would recurse.
EXCLUDED: Final = (
    "amqp", "billiard", "celery", "engineio", "jobcast", "kombu", "redis", "socketio", "vine",
)  # fmt: skip

# The parent of the loggers that Celery's ``get_task_logger`` creates. Celery's handler is attached
# here, and records do not propagate to the root logger.
TASK_LOGGER: Final = "celery.task"


def is_captured(
    name: str, package: str | None, listed: Collection[str], *, of_task: bool = False
) -> bool:
    """Return whether the records of a logger are shown to the followers of a job.

    Records of libraries may contain secrets, such as the URLs that httpx logs. They are shown only
    if the settings list the library.

    Args:
        name: the name of the logger.
        package: the top-level package of the job's task or of the caller of ``open_job``; None if
            there is none.
        listed: names of further loggers, each including its children; ``*`` is every logger.
        of_task: whether Celery's ``get_task_logger`` created the logger.

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
    """Log capture for the jobs of a configuration, active while any of them runs.

    Without a running job no handler is installed, because ``basicConfig()`` and ``lastResort``
    depend on that. Jobs begin and end in any thread; no lock is held while loggers change.
    """

    def __init__(self, settings: Settings) -> None:
        self.level = settings.log_level.upper()
        self.listed = settings.log_loggers
        self._is_off = settings.log_level == "off"
        self._jobs: dict[int, Job] = {}
        self._handlers: dict[str, JobLogHandler] = {}  # by the name of the logger

    def enter(self, job: Job) -> None:
        """Begin to capture the records of a job."""
        if self._is_off:
            return
        self._jobs[id(job)] = job
        self._install(job)

    def leave(self, job: Job) -> None:
        """Stop capturing the records of a job. Remove the handlers after the last job."""
        self._jobs.pop(id(job), None)
        if self._jobs:
            return
        for handler in [*self._handlers.values()]:
            handler.logger.removeHandler(handler)
        for other in [*self._jobs.values()]:
            self._install(other)  # the job has begun meanwhile

    def _install(self, job: Job) -> None:
        # An application that configures logging removes handlers, so every job installs them.
        for name in self._loggers_of(job):
            logger = logging.getLogger(name)
            handler = self._handlers.setdefault(name, JobLogHandler(self, logger))
            logger.addHandler(handler)

    def _loggers_of(self, job: Job) -> Iterator[str]:
        """Yield the names of the loggers that need a handler to receive a job's records."""
        yield from ("", TASK_LOGGER)
        for name, logger in [*logging.Logger.manager.loggerDict.items()]:
            ends_here = isinstance(logger, logging.Logger) and not logger.propagate
            if ends_here and self.takes(name, job):
                yield name

    def takes(self, name: str, job: Job) -> bool:
        """Return whether a job shows the records of a logger."""
        return is_captured(name, job.package, self.listed, of_task=_is_task_logger(name))


class JobLogHandler(logging.Handler):
    """A handler that publishes the records of a logger as log lines of the current job.

    It has no lock, because formatting a message may run any code. It does not modify the record,
    because other handlers pickle it or print all of its attributes.
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
            # Without jobcast's handlers, logging would use the handler of last resort.
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
                job.publish_log(record.getMessage(), record.levelno)
        except Exception:
            self.handleError(record)


def _handlers_of(name: str) -> list[logging.Handler]:
    """Return the handlers that receive the records of a logger, the nearest first."""
    found: list[logging.Handler] = []
    known = logging.Logger.manager.loggerDict.get(name, logging.getLogger())
    logger = known if isinstance(known, logging.Logger) else None
    while logger is not None:
        found += logger.handlers
        logger = logger.parent if logger.propagate else None
    return found
