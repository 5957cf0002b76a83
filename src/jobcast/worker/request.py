"""Endings that only a worker's main process sees.

A child that is killed says nothing any more, and a task that is revoked or that nobody knows never
reaches a child. Celery tells the main process, by the task's request and by signals. Nothing here
waits: the main process serves all children.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cached_property
from typing import Any

from billiard.einfo import ExceptionWithTraceback
from celery import current_app, signals, states
from celery.exceptions import (
    NotRegistered,
    Reject,
    TaskRevokedError,
    Terminated,
    TimeLimitExceeded,
    WorkerShutdown,
)
from celery.worker import state
from celery.worker.request import Request

from jobcast.events import is_job_id, now
from jobcast.transports.leases import Lease
from jobcast.transports.runs import draw
from jobcast.worker.canvas import never_run
from jobcast.worker.endings import Expired
from jobcast.worker.job import Job
from jobcast.worker.message import (
    DELIVERY_HEADER,
    OWNER_HEADER,
    SENDING_HEADER,
    origin_of,
    origin_of_run,
)
from jobcast.worker.process import new_job, process


class JobRequest(Request):
    """What a worker's main process knows of one delivery of a task."""

    def __init__(self, message: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(message, *args, **kwargs)
        # The child gets it with the message: both speak of the same run.
        self.request_dict[DELIVERY_HEADER] = draw()
        self._cause: BaseException | None = None
        self._told = False

    @cached_property
    def lease(self) -> Lease:
        return Lease(self.id, origin_of_run(self._context).run)

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        super().on_accepted(pid, time_accepted)
        # A child that is busy with something that lets no other thread run is alive all the same.
        here = process(current_app.conf)
        if here is not None and is_job_id(self.id):
            here.publisher.leases.elsewhere = _active
            here.publisher.hold(self.lease)

    def on_failure(
        self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False
    ) -> None:
        cause = exc_info.exception
        self._cause = cause.exc if isinstance(cause, ExceptionWithTraceback) else cause
        with _speaking_of(self):
            super().on_failure(exc_info, send_failed_event, return_ok)
        if not return_ok and not self._told:
            self._succeeded_before_it_was_lost()

    def on_timeout(self, soft: bool, timeout: float) -> None:
        if not soft:
            self._cause = TimeLimitExceeded(timeout)
        with _speaking_of(self):
            super().on_timeout(soft, timeout)

    def reject(self, requeue: bool = False) -> None:
        # The child has told of a Reject, which it raised.
        if requeue and not self.acknowledged and not isinstance(self._cause, Reject):
            self._comes_again(self._cause)
        super().reject(requeue)

    def cancel(self, pool: Any, signal: Any = None, emit_retry: bool = True) -> None:
        super().cancel(pool, signal, emit_retry)
        if self._already_cancelled:
            if self.task.acks_late and not self.acknowledged:
                self._comes_again(WorkerShutdown())
            else:
                # Celery says that it is tried again, and never sends it.
                self.failed(WorkerShutdown())

    def failed(self, cause: BaseException) -> None:
        """Say that the run has failed."""
        if not self._told:
            self._told = True
            _fail(self.task, self._context, cause)

    def _comes_again(self, cause: BaseException | None) -> None:
        """Say that the broker is given the task back, and why."""
        if not self._told:
            self._told = True
            # It waits, because the next run may begin as soon as the broker has the message.
            job = _job(self._context, waits=True)
            if job is not None:
                job.retry_cause = cause, "" if cause is None else self.task.message_of(cause)
                job.retrying(attempt=job.attempt, eta=now())

    def _succeeded_before_it_was_lost(self) -> None:
        """Say what the child did not come to say: that it has stored a result."""
        if self._already_revoked or self._already_cancelled:
            return
        meta = self.task.backend.get_task_meta(self.id)
        job = _job(self._context)
        if meta["status"] == states.SUCCESS and job is not None:
            job.complete(self.task.shown_result(meta["result"]))


def _active() -> list[Lease]:
    """What the children of this worker are doing."""
    for _ in range(10):
        try:
            requests = tuple(state.active_requests)
        except RuntimeError:  # the main thread has just changed it
            continue
        return [r.lease for r in requests if isinstance(r, JobRequest) and is_job_id(r.id)]
    return []


_spoken_of: ContextVar[JobRequest | None] = ContextVar("jobcast_request", default=None)


@contextmanager
def _speaking_of(request: JobRequest) -> Iterator[None]:
    token = _spoken_of.set(request)
    try:
        yield
    finally:
        _spoken_of.reset(token)


def _failed(task_id: str, exception: BaseException, **_: object) -> None:
    """A failure that the main process has decided on; those of a child have hooks of the task."""
    request = _spoken_of.get()
    if request is not None and request.id == task_id and not isinstance(exception, Reject):
        request.failed(exception)


def _revoked(sender: Any, request: Any, terminated: bool, expired: bool, **_: object) -> None:
    if getattr(sender, "is_followed", False):
        cause = Expired() if expired else Terminated() if terminated else TaskRevokedError()
        _fail(sender, request, cause)


def _unknown(message: Any, name: str, id: str, **_: object) -> None:  # noqa: A002
    """A task that this worker does not know is a job if its message says so."""
    headers = message.headers
    if OWNER_HEADER in headers or SENDING_HEADER in headers:
        origin = origin_of(headers)
        job = new_job(id, origin=origin, celery_conf=current_app.conf, waits=False)
        if isinstance(job, Job):
            job.fail(NotRegistered(name))


def _fail(task: Any, context: Any, cause: BaseException) -> None:
    job = _job(context)
    if job is not None:
        job.fail(cause, task.message_of(cause))
        never_run(context)


def _job(context: Any, *, waits: bool = False) -> Job | None:
    """The job of a run that is, or would be, another process's."""
    origin = origin_of_run(context)
    job = new_job(context.id, origin=origin, celery_conf=current_app.conf, waits=waits)
    return job if isinstance(job, Job) else None


signals.task_failure.connect(_failed, weak=False)
signals.task_revoked.connect(_revoked, weak=False)
signals.task_unknown.connect(_unknown, weak=False)
