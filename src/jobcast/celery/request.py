"""Endings that only a worker's main process sees.

A child that is killed says nothing any more, and a task that is revoked or that nobody knows never
reaches a child. Celery tells the main process, by the task's request and by signals.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from functools import cache, cached_property, wraps
from typing import Any, Final
from weakref import WeakValueDictionary

from billiard.einfo import ExceptionWithTraceback
from celery import Celery, signals, states
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
from kombu.utils.compat import detect_environment
from kombu.utils.imports import symbol_by_name

from jobcast.celery.background import background
from jobcast.celery.canvas import never_run, never_run_steps
from jobcast.celery.enqueue import fields_of, is_celerys, is_followed
from jobcast.celery.failures import BrokerLost, Expired, Unacceptable, original_exception
from jobcast.celery.headers import (
    DELIVERY_HEADER,
    OWNER_HEADER,
    SENDING_HEADER,
    origin_of_delivery,
    origin_of_run,
)
from jobcast.celery.jobs import job_of_run
from jobcast.events import is_job_id, now
from jobcast.publishing.identity import job_id_of
from jobcast.publishing.job import NO_JOB, Job, use_job
from jobcast.publishing.publisher import FLUSH_TIMEOUT
from jobcast.publishing.runtime import get_runtime, new_job
from jobcast.transports.leases import Lease
from jobcast.transports.runs import draw

SAY_OF_JOBS: Final = frozenset({OWNER_HEADER, SENDING_HEADER})  # headers that only jobs have

logger = logging.getLogger(__name__)


class JobRequest(Request):
    """What a worker's main process knows of one delivery of a task."""

    def __init__(self, message: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(message, *args, **kwargs)
        # The child gets it with the message: both speak of the same run.
        self.request_dict[DELIVERY_HEADER] = draw()
        self._cause: BaseException | None = None
        self._told = False
        self.is_stopped = False  # by Celery, in the middle of its run
        _requests[job_id_of(self.id)] = self

    @cached_property
    def is_job(self) -> bool:
        return is_job_id(job_id_of(self.id)) and is_followed(self.task)

    @cached_property
    def lease(self) -> Lease:
        return Lease(job_id_of(self.id), origin_of_run(self._context).run)

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        super().on_accepted(pid, time_accepted)
        if self.is_job:
            background.call(_hold, self, self.lease)

    def on_failure(
        self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False
    ) -> None:
        cause = exc_info.exception
        cause = cause.exc if isinstance(cause, ExceptionWithTraceback) else cause
        self._cause = original_exception(cause)
        with _speaking_of(self), self._ending():
            super().on_failure(exc_info, send_failed_event, return_ok)
        if not (return_ok or self._told or self._already_revoked or self._already_cancelled):
            self._tell_success()

    def on_timeout(self, soft: bool, timeout: float) -> None:
        if not soft:
            self._cause = TimeLimitExceeded(timeout)
        with _speaking_of(self), self._ending():
            super().on_timeout(soft, timeout)

    def reject(self, requeue: bool = False) -> None:
        # The child has told of a Reject, which it raised.
        if requeue and not self.acknowledged and not isinstance(self._cause, Reject):
            self._comes_again(self._cause)
        elif not requeue and self._cause is None and not self.time_start:
            self.failed(Unacceptable("it is to start at a time that there is not"))
        super().reject(requeue)

    def _retry_worker_lost(self, exc: BaseException, exc_info: Any) -> bool:
        # Celery tells the task of it when the retry is sent, and may be under way elsewhere.
        retried: list[Job] = []
        said = background.call(_retry_later, self.task, self._context, exc, retried)
        if detect_environment() == "default":
            said.wait(FLUSH_TIMEOUT)
        with use_job(retried[0] if retried else NO_JOB):
            sent: bool = super()._retry_worker_lost(exc, exc_info)
        self._told = self._told or sent
        return sent

    def terminate(self, *args: Any, **kwargs: Any) -> None:
        self.is_stopped = True
        super().terminate(*args, **kwargs)

    def cancel(self, pool: Any, signal: Any = None, **options: Any) -> None:
        self.is_stopped = True
        # What Celery deals with when it cancels for another reason than a shutdown.
        broken = isinstance(sys.exc_info()[1], self._connection_errors)
        cause = BrokerLost() if broken else WorkerShutdown()
        given_back = self.task.acks_late and not (self.acknowledged or pool.is_green)
        ended = bool(self.time_start)
        try:
            super().cancel(pool, signal, **options)
        except NotImplementedError as exc:
            ended = False
            # Where this interrupts the task, it fails of it, for a reason that does not show.
            raise exc from cause
        finally:
            # Also where Celery could not store that it has ended the task.
            if ended and given_back:
                self._comes_again(cause)
            elif ended:
                # Celery says that it is tried again, and never sends it.
                self.failed(cause)

    def _tell_success(self) -> None:
        """Say what a child did not come to say any more: that it has stored a result."""
        # Celery has asked the backend for it, here. Another thread would hold locks of the
        # backend's meanwhile, and a child that is forked then would wait for them for ever.
        try:
            meta = self.task.backend.get_task_meta(self.id)
        except Exception:
            # Any backend may stand behind it, and the loop that serves all children goes on.
            logger.exception("what %s has come to could not be read", self.id)
            return
        if meta["status"] == states.SUCCESS:
            background.call(_succeed, self.task, self._context, meta["result"])

    @contextmanager
    def _ending(self) -> Iterator[None]:
        """What goes wrong while Celery deals with the end of a run leaves it ended."""
        try:
            yield
        except Exception as exc:
            self.failed(self._cause or exc)
            raise

    def failed(self, cause: BaseException) -> None:
        """Say that the run has failed."""
        if not self._told and is_followed(self.task):
            self._told = True
            background.call(_fail, self.task, self._context, cause)

    def _comes_again(self, cause: BaseException | None) -> None:
        """Say that the broker is given the task back, and why."""
        if not self._told and is_followed(self.task):
            self._told = True
            said = background.call(_retry, self.task, self._context, cause)
            # The next run may begin as soon as the broker has the message.
            if detect_environment() == "default":
                said.wait(FLUSH_TIMEOUT)


@cache
def request_class(own: Any) -> type[JobRequest]:
    """The class of requests that has jobcast's part and a project's own.

    Args:
        own: the project's class, or its qualified name; Celery's own if it has none.

    Raises:
        TypeError: they do not go together.
    """
    cls = symbol_by_name(own)
    if not (isinstance(cls, type) and issubclass(cls, Request)):
        raise TypeError(
            f"its Request is {own!r}, and should be a subclass of celery.worker.request.Request"
        )
    if issubclass(cls, JobRequest):
        return cls
    if cls is Request:
        return JobRequest
    try:
        # jobcast's part is around the project's, whose methods need not call super().
        both: type[JobRequest] = type(
            cls.__name__, (JobRequest, cls), {"__module__": cls.__module__}
        )
    except TypeError as exc:
        raise TypeError(
            f"its Request, {cls.__qualname__}, does not go together with jobcast's ({exc}):"
            " derive it from jobcast.celery.request.JobRequest"
        ) from None
    return both


# The latest of each id. Celery's own list has those no more that it has just stopped.
_requests: WeakValueDictionary[str, JobRequest] = WeakValueDictionary()


def is_stopped(task_id: object) -> bool:
    """Whether Celery itself has stopped the run of a task in this process."""
    request = _requests.get(job_id_of(task_id))
    return request is not None and request.is_stopped


def _hold(request: JobRequest, lease: Lease) -> None:
    """Keep a run alive whose own process may let no other thread run for long."""
    here = get_runtime(request.app.conf)
    if here is not None:
        here.publisher.leases.elsewhere = _active
        # One that has ended by now has no need of it, and nobody would give it back.
        if request in state.active_requests:
            here.publisher.hold(lease)


def _refuse(app: Celery, message: Any, fields: Mapping[str, Any], cause: BaseException) -> None:
    """Say that no worker will do what a message asks for, nor what was to come after it."""
    origin = origin_of_delivery(message.headers, fields.get("retries"), message.delivery_info)
    job = new_job(job_id_of(fields["id"]), origin=origin, celery_conf=app.conf)
    if isinstance(job, Job):
        job.fail(cause)
    match _payload_of(message):
        case [_, _, {"chain": steps, "chord": body}]:
            never_run_steps(app, steps, body, origin.owner)


def _payload_of(message: Any) -> Any:
    try:
        return message.payload
    except Exception as exc:
        # Whatever a serializer raises: it may be why the message is refused.
        logger.debug("message %s: %s", message.delivery_tag, exc)
        return None


def _fail(task: Any, context: Any, cause: BaseException) -> None:
    job = job_of_run(context, task.app)
    if job is not None:
        message = task.message_of(cause)
        job.fail(cause, message)
        never_run(task.app, context)


def _retry(task: Any, context: Any, cause: BaseException | None) -> None:
    job = job_of_run(context, task.app)
    if job is not None:
        job.retry_cause = cause, "" if cause is None else task.message_of(cause)
        job.retrying(attempt=job.attempt, eta=now())


def _retry_later(task: Any, context: Any, cause: BaseException, retried: list[Job]) -> None:
    """Say that Celery sends the task once more, whose child is gone."""
    job = job_of_run(context, task.app)
    if job is not None:
        retried.append(job)
        job.retry_cause = cause, task.message_of(cause)
        job.retrying(eta=now() + timedelta(seconds=task.default_retry_delay))


def _succeed(task: Any, context: Any, result: Any) -> None:
    job = job_of_run(context, task.app)
    if job is not None:
        job.complete(task.shown_result(result))


def _active() -> list[Lease]:
    """What the children of this worker are doing."""
    for _ in range(10):
        try:
            requests = tuple(state.active_requests)
        except RuntimeError:  # the main thread has just changed it
            continue
        return [r.lease for r in requests if isinstance(r, JobRequest) and r.is_job]
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
    if is_followed(sender):
        cause = Expired() if expired else Terminated() if terminated else TaskRevokedError()
        background.call(_fail, sender, request, cause)


def _unknown(sender: Any, message: Any, name: str, **_: object) -> None:
    refuse(sender.app, message, NotRegistered(name))


def _rejected(sender: Any, message: Any, exc: BaseException | None, **_: object) -> None:
    refuse(sender.app, message, Unacceptable(str(exc)))


def refuse(app: Celery, message: Any, cause: BaseException) -> None:
    """Say that this worker does not take a message: it is a job's if it says so."""
    headers = message.headers
    if not isinstance(headers, Mapping) or not headers.keys() & SAY_OF_JOBS:
        return
    fields = headers if "id" in headers else fields_of(headers, _payload_of(message))
    if "id" in fields and not is_celerys(str(fields.get("task"))):
        background.call(_refuse, app, message, fields, cause)


def _prepare(sender: Any, **_: object) -> None:
    """Load the transport before the first task is acknowledged, and listen to its consumer."""
    background.call(get_runtime, sender.app.conf)
    sender.on_decode_error = _with_refusal(sender.app, sender.on_decode_error)
    # It has been given the method already, and asks for it again after a reconnection only.
    sender.task_consumer.on_decode_error = sender.on_decode_error


def _with_refusal(app: Celery, own: Callable[..., Any]) -> Callable[..., Any]:
    """What Celery does with a message that cannot be decoded: there is no signal of it."""

    @wraps(own)
    def on_decode_error(message: Any, exc: BaseException) -> Any:
        refuse(app, message, Unacceptable(str(exc)))
        return own(message, exc)

    return on_decode_error


signals.worker_ready.connect(_prepare, weak=False)
signals.task_failure.connect(_failed, weak=False)
signals.task_revoked.connect(_revoked, weak=False)
signals.task_unknown.connect(_unknown, weak=False)
signals.task_rejected.connect(_rejected, weak=False)
