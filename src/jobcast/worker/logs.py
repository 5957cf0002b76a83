"""What the standard library's ``logging`` says inside a running job, as lines of that job."""

from __future__ import annotations

import logging
from typing import Final

from jobcast.settings import Settings
from jobcast.worker.job import Job, current_job

# The machinery around a task is no part of its story, and must not hear itself.
EXCLUDED: Final = (
    "amqp", "billiard", "celery", "engineio", "jobcast", "kombu", "redis", "socketio", "vine",
)  # fmt: skip

# Celery's own handler sits here, and what it gets does not reach the root logger.
TASK_LOGGER: Final = "celery.task"


class JobLogHandler(logging.Handler):
    """Hands a record to the job that is running where it was logged, if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        job = current_job()
        if not isinstance(job, Job) or record.name.partition(".")[0] in EXCLUDED:
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
    for name in settings.log_loggers or ("", TASK_LOGGER):
        logger = logging.getLogger(name)
        if not any(isinstance(handler, JobLogHandler) for handler in logger.handlers):
            logger.addHandler(JobLogHandler(settings.log_level.upper()))
