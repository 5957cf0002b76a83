"""End cancelled runs in Celery: as REVOKED and acknowledged, with their errbacks and chords.

Celery calls no errback of a revoked task and fails no later step of its chain.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from typing import Any

from celery import signals, states
from celery.exceptions import TaskPredicate, TaskRevokedError
from celery.result import EagerResult

from jobcast.celery.canvas import fail_later_steps
from jobcast.celery.failures import RunCancelled
from jobcast.celery.result_backend import stores_failures
from jobcast.errors import JobCancelled
from jobcast.publishing.cancellation import find_cancelled
from jobcast.publishing.identity import job_id_of
from jobcast.publishing.job import Job, current_job
from jobcast.publishing.texts import interrupts

logger = logging.getLogger(__name__)


@contextmanager
def cancellable(task: Any) -> Iterator[None]:
    """Run a task's own code, and end its job if the job is cancelled before or meanwhile.

    Raises:
        RunCancelled: the job was cancelled. Celery acknowledges the message and stores nothing.
    """
    if is_skipped(task.request):
        raise RunCancelled("the run of another delivery ends the job")
    job = current_job()
    if not isinstance(job, Job) or job.in_body or job.job_id != job_id_of(task.request.id):
        yield
        return
    try:
        with job.body(), _confirming_start(job):
            yield
    except BaseException as exc:
        cancelled = find_cancelled(exc)
        if cancelled is None:
            raise
        end_cancelled(job, task, cancelled)
        raise RunCancelled(cancelled.message) from exc


def is_skipped(context: Any) -> bool:
    """Return whether another delivery, in this process, ends the job of a run.

    A child of a pool does not know of it, so no delivery that a child may have is skipped.

    Args:
        context: the ``celery.app.task.Context`` of the run.
    """
    registry = sys.modules.get("jobcast.celery.request_registry")  # in a worker
    request = None if registry is None else registry.request_of(context)
    return request is not None and request.is_skipped


def end_cancelled(job: Job, task: Any, cancelled: JobCancelled) -> None:
    """End the job of a run, and its task in Celery."""
    request = task.request
    mark_cancelled(task, request, cancelled)
    job.fail(cancelled)
    fail_later_steps(task.app, request)
    logger.info("job %s: its run has ended, because %s", job.job_id, cause_of(cancelled))
    signals.task_revoked.send(
        sender=task, request=request, terminated=False, signum=None, expired=False
    )


def revoked_if_cancelled(result: EagerResult) -> EagerResult:
    """Return the result of an eager run, with the state ``REVOKED`` if its job was cancelled.

    Celery gives it the state ``IGNORED``. As the result of a worker's run does, it raises
    ``TaskRevokedError`` when it is read.
    """
    cause = result.result
    if not isinstance(cause, RunCancelled):
        return result
    error = TaskRevokedError(str(cause))
    return EagerResult(result.id, error, states.REVOKED, result.traceback, name=result.name)


def cause_of(cancelled: JobCancelled) -> str:
    """Return who cancelled a job, for a log line."""
    return f"{cancelled.by} cancelled it" if cancelled.by else "it was cancelled"


def mark_cancelled(task: Any, request: Any, cancelled: JobCancelled) -> None:
    """Store in Celery's result backend that a run was cancelled.

    The run's chord counts it as failed, the later steps of its chain fail, and its errbacks are
    called. Errors of the backend are logged, and not raised.

    Args:
        task: the task.
        request: the ``celery.app.task.Context`` of the run.
        cancelled: the cause.

    Raises:
        BaseException: a signal, such as that of a soft time limit, has interrupted the call.
    """
    stored = stores_failures(task.app.conf, task, request)
    try:
        task.backend.mark_as_revoked(
            request.id, cancelled.message, request=request, store_result=stored
        )
        fail_dependents(task, request, cancelled, stored=stored)
    except Exception as exc:
        if interrupts(exc):
            raise
        # A backend may raise any exception. The followers of the job learn of its end anyway.
        logger.exception(
            "job %s: could not store in Celery's result backend that it was cancelled;"
            " callers that wait for its result may wait for ever", request.id,
        )  # fmt: skip


def fail_dependents(task: Any, request: Any, cancelled: JobCancelled, *, stored: bool) -> None:
    """Fail the later steps of a cancelled run's chain, and call the run's errbacks.

    Celery does both after a failure only. Its function for that also stores the failure of one
    task: that of a later step here, because the run itself is REVOKED.
    """
    rest = copy(request)
    rest.chord = None  # the chord already has the outcome of the run
    fail_chain = getattr(task.backend, "_fail_chain", None)
    if fail_chain is not None:
        # Celery 5.7 calls no chord of a step whose failure is stored, so the steps come first.
        error = TaskRevokedError(cancelled.message)
        fail_chain(request.chain, error, store_result=stored)
        rest.chain = None
        task.backend.mark_as_failure(request.id, error, request=rest, store_result=False)
        return
    later = [(step.get("options") or {}).get("task_id") for step in request.chain or ()]
    step_id = next(filter(None, later), None)
    task.backend.mark_as_failure(
        step_id or request.id, TaskRevokedError(cancelled.message), request=rest,
        store_result=stored and step_id is not None,
    )  # fmt: skip


@contextmanager
def _confirming_start(job: Job) -> Iterator[None]:
    """Confirm the start of a run before Celery stores its outcome."""
    try:
        yield
    except TaskPredicate:
        # Celery stores no outcome of a task that raises Ignore or Reject. A retry was confirmed
        # before its message was sent.
        raise
    except Exception:
        job.confirm_start()
        raise
    job.confirm_start()
