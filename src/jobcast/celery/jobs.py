"""The jobs of the runs in this process, also of runs that Celery may still call a hook of."""

from __future__ import annotations

import sys
from collections import OrderedDict
from typing import Any, Final

from jobcast.celery import shutdown as shutdown  # connects Celery's signals
from jobcast.celery.canvas import never_run
from jobcast.celery.headers import KEPT_BY_RETRIES, headers_of, origin_of_run
from jobcast.publishing.identity import job_id_of
from jobcast.publishing.job import Job
from jobcast.publishing.runtime import new_job

MAX_ABORTED: Final = 1000  # runs aborted by a BaseException, whose hook Celery may call later

_aborted: OrderedDict[str, Job] = OrderedDict()


def job_of_run(request: Any, app: Any, *, waits: bool = True) -> Job | None:
    """Return the job of a run, also of another process's; None if it cannot be published.

    Args:
        request: the ``celery.app.task.Context`` of the run.
        app: the Celery application of its task.
        waits: whether the end of the job is flushed.
    """
    headers = headers_of(request)
    job = new_job(
        job_id_of(request.id), origin=origin_of_run(request), celery_conf=app.conf, waits=waits
    )
    if not isinstance(job, Job):
        return None
    job.kept_headers = {name: headers[name] for name in KEPT_BY_RETRIES if name in headers}
    return job


def fail_run(job: Job, task: Any, cause: BaseException, message: str) -> None:
    """Fail the job of a run, and those of all steps that were to come after it."""
    job.fail(cause, message)
    never_run(task.app, task.request)


def keep_aborted(job: Job) -> None:
    """Keep a job whose run ended without an outcome, until Celery calls a hook of the run."""
    _aborted[job.job_id] = job
    while len(_aborted) > MAX_ABORTED:
        _aborted.popitem(last=False)


def take_aborted(job_id: str) -> Job | None:
    """Return the job of an aborted run, and forget it."""
    return _aborted.pop(job_id, None)


def raised_in(job: Job) -> BaseException | None:
    """Return the exception that is being handled in a run.

    In eager mode the caller may have been handling another one when the run began.
    """
    handled = sys.exc_info()[1]
    return None if handled is job.handled_around else handled
