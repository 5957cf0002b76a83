"""The jobs of runs in this process, including aborted runs whose hooks Celery may still call."""

from __future__ import annotations

import sys
from collections import OrderedDict
from typing import Any, Final

from jobcast.celery import shutdown as shutdown  # connects Celery's signals
from jobcast.celery.canvas import fail_later_steps
from jobcast.celery.description import info_of_message
from jobcast.celery.headers import KEPT_BY_RETRIES, headers_of, origin_of_run
from jobcast.publishing.identity import job_id_of
from jobcast.publishing.job import Job
from jobcast.publishing.runtime import new_job

MAX_ABORTED: Final = 1000  # runs aborted by a BaseException; Celery may still call their hooks

_aborted: OrderedDict[str, Job] = OrderedDict()


def job_of_run(request: Any, app: Any, *, waits: bool = True) -> Job | None:
    """Return the job of a run in this or another process; None if it cannot be published.

    Args:
        request: the ``celery.app.task.Context`` of the run.
        app: the Celery application of its task.
        waits: whether flushes of the job wait.
    """
    headers = headers_of(request)
    job = new_job(
        job_id_of(request.id), origin=origin_of_run(request), celery_conf=app.conf, waits=waits
    )
    if not isinstance(job, Job):
        return None
    delivery_info, worker = request.delivery_info, request.hostname
    job.info = info_of_message(app, headers, request.task, delivery_info, worker)
    job.kept_headers = {name: headers[name] for name in KEPT_BY_RETRIES if name in headers}
    return job


def fail_run(job: Job, task: Any, cause: BaseException, message: str) -> None:
    """Fail the job of a run, and the jobs of all later steps of its chain or chord."""
    job.fail(cause, message)
    fail_later_steps(task.app, task.request)


def keep_aborted(job: Job) -> None:
    """Keep a job whose run ended without an outcome, until Celery calls a hook of the run."""
    _aborted[job.job_id] = job
    while len(_aborted) > MAX_ABORTED:
        _aborted.popitem(last=False)


def take_aborted(job_id: str) -> Job | None:
    """Remove and return the job of an aborted run."""
    return _aborted.pop(job_id, None)


def raised_in(job: Job) -> BaseException | None:
    """Return the exception that is being handled in a run.

    Ignore an exception that the caller was handling when an eager run began.
    """
    handled = sys.exc_info()[1]
    return None if handled is job.handled_at_start else handled
