"""Handlers of Celery's signals for the start and end of runs, and for the start of workers."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

from celery import signals, states
from celery.exceptions import Retry
from kombu.utils.compat import detect_environment

from jobcast.celery.enqueue import is_followed
from jobcast.celery.failures import original_exception
from jobcast.celery.headers import STANDS_IN_HEADER, headers_of
from jobcast.celery.hooks import request_class_of
from jobcast.celery.jobs import fail_run, keep_aborted, raised_in
from jobcast.celery.pools import in_pool_child
from jobcast.celery.progress_mirror import stop_mirroring
from jobcast.errors import SettingsError
from jobcast.events import now
from jobcast.publishing.identity import job_id_of
from jobcast.publishing.job import Job, current_job
from jobcast.publishing.notice_board import create_board
from jobcast.settings import Settings


def _followed_task(task: Any) -> Any | None:
    """Return the :class:`~jobcast.celery.task.ProgressTask` of a run's job; None if there is none.

    The task may stand in for the job's task, which ``self.replace()`` has replaced.
    """
    if is_followed(task):
        return task
    replaced = headers_of(task.request).get(STANDS_IN_HEADER)
    found = task.app.tasks.get(replaced) if isinstance(replaced, str) else None
    return found if hasattr(found, "begin_run") else None


def _enter(task: Any, **_: object) -> None:
    """Begin the job of a run, independently of the task's hooks."""
    followed = _followed_task(task)
    if followed is not None:
        followed.begin_run(task)


def _leave(
    task_id: str, task: Any = None, state: str | None = None, retval: Any = None, **_: object
) -> None:
    """End the job of a run, even if Celery calls no hook for it."""
    job = current_job()
    stop_mirroring(task_id)
    if isinstance(job, Job) and job.job_id == job_id_of(task_id):
        job.restore_outer()
        if not job.ended:
            _finish(job, task, state, retval)
        job.flush()


def _finish(job: Job, task: Any, state: str | None, retval: Any) -> None:
    """Publish the outcome of a run that no hook has reported, if this process knows it."""
    followed = _followed_task(task)
    # A run without a state ended by an exception, possibly the one that the caller is handling.
    exc = sys.exc_info()[1] if state is None else raised_in(job)
    if followed is None or (state == states.IGNORED and job.replaced):
        return
    if state == states.REJECTED and retval.requeue and _is_acknowledged_late(task):
        job.retry_cause = retval, followed.message_of(retval)
        job.retrying(attempt=job.attempt, retry_at=now())
    elif state in (states.IGNORED, states.REJECTED):
        _fail(job, followed, task, retval)
    elif exc is not None:
        if task.request.is_eager or not _is_reported_elsewhere(task, exc):
            # The caller receives the exception. If it is a Retry, Celery does not run the retry.
            cause = exc.exc if isinstance(exc, Retry) else None
            _fail(job, followed, task, original_exception(cause or exc, job.retry_cause[0]))
        else:
            keep_aborted(job)
    elif state == states.SUCCESS:
        job.complete(followed.shown_result(retval))
    elif state == states.FAILURE and isinstance(retval, BaseException):
        _fail(job, followed, task, retval)
    elif state is None:
        keep_aborted(job)


def _fail(job: Job, followed: Any, task: Any, cause: BaseException) -> None:
    fail_run(job, task, cause, followed.message_of(cause))


def _is_acknowledged_late(task: Any) -> bool:
    """Return whether the broker still has the message of a task that has run."""
    return bool(task.acks_late) and not task.request.is_eager


def _is_reported_elsewhere(task: Any, exc: BaseException) -> bool:
    """Return whether Celery reports the exception that ended a run to jobcast's ``Request``.

    Celery reports exceptions in a pool's child to the main process. In a pool of greenlets, it
    reports any ``Timeout`` of a task with a time limit as that limit, and the end of a revoked
    task. In threads and greenlets it reports no other ``BaseException``.
    """
    if in_pool_child():
        return True
    pool = sys.modules.get(detect_environment())  # gevent or eventlet
    if pool is None:
        return False
    if isinstance(exc, sys.modules["greenlet"].GreenletExit):
        request = import_module("jobcast.celery.request_registry").request_of(task.request)
        return request is not None and request.is_stopped
    limits = (task.request.timelimit or [None])[0], task.time_limit, task.app.conf.task_time_limit
    return isinstance(exc, pool.Timeout) and any(limits)


def _check_settings(sender: Any, **_: object) -> None:
    """Abort the start of a worker with an invalid setting."""
    app = getattr(sender, "app", None)
    try:
        Settings.load(celery_conf=None if app is None else app.conf)
    except SettingsError as exc:
        raise SystemExit(f"jobcast: {exc}") from None


def _watch_main_process(sender: Any, **_: object) -> None:
    """Observe outcomes in the main process, including those of unknown tasks."""
    import_module("jobcast.celery.request")
    import_module("jobcast.celery.refused_messages")
    import_module("jobcast.celery.cancel_requests")
    import_module("jobcast.celery.startup_check")
    create_board()  # before the pool forks
    app = getattr(sender, "app", None)
    for task in [] if app is None else app.tasks.values():
        try:
            if is_followed(task):
                request_class_of(task)
        except TypeError as exc:
            raise SystemExit(f"jobcast: task {task.name}: {exc}") from None


signals.task_prerun.connect(_enter, weak=False)
signals.task_postrun.connect(_leave, weak=False)
signals.worker_init.connect(_watch_main_process, weak=False)
signals.worker_init.connect(_check_settings, weak=False)
