"""Publish the outcomes of runs from another process than that of the run.

A worker's main process calls these functions in its background thread.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from jobcast.celery.canvas import fail_later_steps
from jobcast.celery.jobs import job_of_run
from jobcast.errors import JobCancelled
from jobcast.events import now
from jobcast.publishing.job import Job
from jobcast.publishing.runtime import get_runtime


def fail(task: Any, context: Any, cause: BaseException) -> None:
    job = job_of_run(context, task.app)
    if job is not None:
        message = None if isinstance(cause, JobCancelled) else task.message_of(cause)
        job.fail(cause, message)
        fail_later_steps(task.app, context)


def retry(task: Any, context: Any, cause: BaseException | None) -> None:
    job = job_of_run(context, task.app)
    if job is not None:
        job.retry_cause = cause, "" if cause is None else task.message_of(cause)
        job.retrying(attempt=job.attempt, retry_at=now())


def retry_later(task: Any, context: Any, cause: BaseException, retried: list[Job]) -> None:
    """Publish that Celery retries a task whose child was lost."""
    job = job_of_run(context, task.app)
    if job is not None:
        retried.append(job)
        job.retry_cause = cause, task.message_of(cause)
        job.retrying(retry_at=now() + timedelta(seconds=task.default_retry_delay))


def queue(task: Any, context: Any) -> None:
    runtime = get_runtime(task.app.conf)
    if runtime is None or not runtime.publisher.learns_of_cancellations:
        return
    job = job_of_run(context, task.app, waits=False)
    if job is not None:
        job.requires = "pending"
        job.queued()


def succeed(task: Any, context: Any, result: Any) -> None:
    job = job_of_run(context, task.app)
    if job is not None:
        job.complete(task.shown_result(result))
