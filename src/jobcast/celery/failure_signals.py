"""Report the failures and revocations that Celery signals in a worker's main process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from celery import signals
from celery.exceptions import Reject, TaskRevokedError, Terminated

from jobcast.celery.background import background
from jobcast.celery.enqueue import is_followed
from jobcast.celery.failures import Expired
from jobcast.celery.outcome_reports import fail
from jobcast.publishing.identity import job_id_of
from jobcast.publishing.job import Job, current_job

if TYPE_CHECKING:
    from jobcast.celery.reporting_request import ReportingRequest

_reported_request: ContextVar[ReportingRequest | None] = ContextVar("jobcast_request", default=None)


@contextmanager
def reporting(request: ReportingRequest) -> Iterator[None]:
    """Attribute the failure or revocation that Celery signals in a block to a request."""
    token = _reported_request.set(request)
    try:
        yield
    finally:
        _reported_request.reset(token)


def _failed(task_id: str, exception: BaseException, **_: object) -> None:
    """Report a failure that the main process detects. Failures in a child call the task's hooks."""
    request = _reported_request.get()
    if request is not None and request.id == task_id and not isinstance(exception, Reject):
        request.report_failure(exception)


def _revoked(sender: Any, request: Any, terminated: bool, expired: bool, **_: object) -> None:
    job = current_job()
    if isinstance(job, Job) and job.ended and job.job_id == job_id_of(request.id):
        return  # the run has reported it
    if is_followed(sender):
        known = _reported_request.get()
        cause = cause_of_revocation(terminated, expired)
        if known is not None and known.id == request.id:
            cause = known.cause_of_revocation(terminated, expired)
        background.call(fail, sender, request, cause)


def cause_of_revocation(terminated: bool, expired: bool) -> BaseException:
    """Return the exception for a task that is revoked by means of Celery."""
    return Expired() if expired else Terminated() if terminated else TaskRevokedError()


signals.task_failure.connect(_failed, weak=False)
signals.task_revoked.connect(_revoked, weak=False)
