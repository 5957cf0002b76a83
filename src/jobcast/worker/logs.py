"""What the standard library's ``logging`` says inside a running job, as lines of that job."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any, Final

from celery.utils.log import logger_isa, task_logger

from jobcast.settings import Settings
from jobcast.worker.job import Job, current_job

EVERY_LOGGER: Final = "*"  # in JOBCAST_LOG_LOGGERS

# The machinery around a task is no part of its story, and must not hear itself.
EXCLUDED: Final = (
    "amqp", "billiard", "celery", "engineio", "jobcast", "kombu", "redis", "socketio", "vine",
)  # fmt: skip

# Celery's own handler sits here, and what it gets does not reach the root logger.
TASK_LOGGER: Final = task_logger.name


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


def package_of(task: Any) -> str:
    """Return the top-level package of the module that a task is defined in."""
    return str(type(task).__module__).partition(".")[0]


def _is_at_or_below(name: str, parent: str) -> bool:
    return name == parent or name.startswith(f"{parent}.")


def _is_task_logger(name: str) -> bool:
    logger = logging.Logger.manager.loggerDict.get(name)
    return isinstance(logger, logging.Logger) and bool(logger_isa(logger, task_logger))


class JobLogHandler(logging.Handler):
    """Hands a record to the job that is running where it was logged, if there is one.

    Args:
        level: of the records that it takes, or above.
        listed: as :func:`is_captured` takes it.
    """

    def __init__(self, level: str, listed: Collection[str]) -> None:
        super().__init__(level)
        self._listed = listed

    def emit(self, record: logging.LogRecord) -> None:
        job = current_job()
        if not isinstance(job, Job):
            return
        of_task = _is_task_logger(record.name)
        if not is_captured(record.name, job.package, self._listed, of_task=of_task):
            return
        if record.__dict__.setdefault("jobcast_handler", self) is not self:
            return
        try:
            job.log(record.getMessage(), level=record.levelno)
        except Exception:
            self.handleError(record)


def capture(settings: Settings) -> None:
    """Listen to the loggers that the settings select. Calling it again changes nothing.

    It is called when a job begins, because an application may configure logging after jobcast
    was imported, and that removes handlers.
    """
    if settings.log_level == "off":
        return
    listed = [name for name in settings.log_loggers if name != EVERY_LOGGER]
    for name in ("", TASK_LOGGER, *listed):
        logger = logging.getLogger(name)
        if not any(isinstance(handler, JobLogHandler) for handler in logger.handlers):
            logger.addHandler(JobLogHandler(settings.log_level.upper(), settings.log_loggers))
