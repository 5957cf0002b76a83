"""Publish outcomes that only a worker's main process observes.

A killed child process cannot publish, and a revoked or unknown task never reaches a child. Celery
reports these in the main process, through the task's request and through signals.
"""

from __future__ import annotations

import logging
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime, timedelta
from functools import cache, cached_property, wraps
from typing import Any, Final
from weakref import WeakValueDictionary

from billiard.einfo import ExceptionWithTraceback
from celery import VERSION, Celery, signals, states
from celery.exceptions import (
    NotRegistered,
    Reject,
    TaskRevokedError,
    Terminated,
    TimeLimitExceeded,
    WorkerShutdown,
)
from celery.utils.saferepr import saferepr
from celery.worker import state
from celery.worker.request import Request
from kombu.utils.compat import detect_environment
from kombu.utils.imports import symbol_by_name

from jobcast.celery.background import background
from jobcast.celery.cancelled import fail_dependents
from jobcast.celery.canvas import fail_later_steps, fail_steps
from jobcast.celery.description import info_of_message
from jobcast.celery.enqueue import fields_of, is_followed, is_internal
from jobcast.celery.failures import (
    BrokerLost,
    Expired,
    RunCancelled,
    Unacceptable,
    original_exception,
)
from jobcast.celery.headers import (
    DELIVERY_HEADER,
    OWNER_HEADER,
    SENDING_HEADER,
    origin_of_delivery,
    origin_of_run,
)
from jobcast.celery.jobs import job_of_run
from jobcast.celery.result_backend import can_access_results, read_meta, storable_id
from jobcast.errors import JobCancelled
from jobcast.events import is_job_id, now
from jobcast.publishing.identity import job_id_of
from jobcast.publishing.job import NO_JOB, Job, current_job, use_job
from jobcast.publishing.publisher import FLUSH_TIMEOUT
from jobcast.publishing.runtime import get_runtime, new_job
from jobcast.transports.cancellation import Cancellation
from jobcast.transports.leases import Lease
from jobcast.transports.runs import draw

JOB_HEADERS: Final = frozenset({OWNER_HEADER, SENDING_HEADER})  # headers that only jobs have
# Celery before 5.7 rejects the message of a task whose ETA is out of range, and runs the task.
RUNS_WITHOUT_ETA: Final = VERSION < (5, 7)

logger = logging.getLogger(__name__)


class JobRequest(Request):
    """One delivery of a task's message, in a worker's main process."""

    _success: Mapping[str, Any] | None = None  # the result of the run

    def __init__(self, message: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(message, *args, **kwargs)
        self.id = self.request_dict["id"] = storable_id(self.request_dict["id"], self.task)
        # The child receives the header with the message, so both processes name the same run.
        self.request_dict[DELIVERY_HEADER] = draw()
        self._cause: BaseException | None = None
        self._is_reported = False  # the outcome, by this process
        self.is_stopped = False  # by Celery, during the run
        self.is_received = False  # this process has handled the message's arrival
        self._is_taken = False  # Celery gives the task to the pool, which may wait for a free run
        self.cancellation: Cancellation | None = None  # the request to cancel the job
        self._when_accepted: deque[Callable[[bool], None]] = deque(maxlen=1)
        _requests[job_id_of(self.id)] = self

    @cached_property
    def is_job(self) -> bool:
        return is_job_id(job_id_of(self.id)) and is_followed(self.task)

    @cached_property
    def lease(self) -> Lease:
        return Lease(job_id_of(self.id), origin_of_run(self._context).run)

    def is_covered_by(self, cancellation: Cancellation) -> bool:
        """Return whether a request to cancel the job covers this delivery."""
        return self.is_job and cancellation.covers(self.lease.run)

    @property
    def cancelled_error(self) -> JobCancelled:
        """The exception that ends the run of a cancelled job."""
        request = self.cancellation
        return JobCancelled() if request is None else request.error

    @property
    def has_begun(self) -> bool:
        """Whether the pool has the task, or waits until it can run it."""
        return bool(self.time_start) or self._is_taken

    @property
    def is_running(self) -> bool:
        """Whether the pool runs the task."""
        return bool(self.time_start) and not self.is_over

    @property
    def is_over(self) -> bool:
        """Whether the run has ended, or will not begin."""
        ended = bool(self.time_start) and self not in state.active_requests
        return ended or self._already_revoked

    def discard(self, cancellation: Cancellation) -> None:
        """End the task of a cancelled job before the pool has it.

        It raises what a backend or a broker raises. The task may run then, unless Celery has
        already acknowledged its message.
        """
        # First, because a timer may give the task to the pool while this waits for the backend.
        self.cancellation, self._already_revoked = cancellation, True
        try:
            self._announce_revoked("cancelled", False, None, False)
        except BaseException:
            if not self.acknowledged:
                self.cancellation, self._already_revoked = None, False
            raise

    def kill(self, pool: Any, pid: int) -> None:
        """Kill the process of a terminated run that does not end, such as in C code."""
        result = None if self._apply_result is None else self._apply_result()
        if result is not None and not result.ready():
            logger.warning("job %s: its run ignores SIGTERM; killing its process", self.id)
            pool.terminate_job(pid, signal.SIGKILL)

    def revoked(self) -> bool:
        if self._already_revoked:
            # The timer of a task with an ETA has just reserved the discarded request.
            state.task_ready(self)
        found: bool = super().revoked()
        # Celery checks each message when it arrives, and before it gives the task to the pool.
        self._is_taken = self.is_received and not found
        return found

    def _announce_revoked(self, reason: str, terminated: bool, signum: Any, expired: bool) -> None:
        if terminated and (success := self.stored_success()) is not None:
            self._end_successful(success)
            return
        if self.cancellation is None:
            super()._announce_revoked(reason, terminated, signum, expired)
            return
        cancelled = self.cancelled_error
        super()._announce_revoked(cancelled.message, terminated, signum, expired)
        fail_dependents(self.task, self._context, cancelled, stored=self.store_errors)

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        super().on_accepted(pid, time_accepted)
        if self.is_job:
            background.call(_hold, self, self.lease)
        self._report_accepted(was_waiting=True)

    def call_when_accepted(self, function: Callable[[bool], None]) -> None:
        """Call a function when the pool has begun the run, or now if it has.

        The function gets whether the run began after this call. A thread of the pool may call it.
        """
        if self.time_start:
            function(False)
            return
        self._when_accepted.append(function)
        if self.time_start:  # set by another thread meanwhile
            self._report_accepted(was_waiting=True)

    def _report_accepted(self, *, was_waiting: bool) -> None:
        try:
            function = self._when_accepted.popleft()
        except IndexError:  # there is none, or another thread calls it
            return
        function(was_waiting)

    def on_failure(
        self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False
    ) -> None:
        cause = exc_info.exception
        cause = cause.exc if isinstance(cause, ExceptionWithTraceback) else cause
        self._cause = original_exception(cause)
        with _reporting(self), self._fail_on_error():
            super().on_failure(exc_info, send_failed_event, return_ok)
        if isinstance(cause, RunCancelled):
            self.send_event("task-revoked", terminated=False, signum=None, expired=False)
        if not (return_ok or self._is_reported or self._already_revoked or self._already_cancelled):
            success = self.stored_success()
            if success is not None:
                self._report_success(success)

    def on_timeout(self, soft: bool, timeout: float) -> None:
        if not soft:
            self._cause = TimeLimitExceeded(timeout)
        with _reporting(self), self._fail_on_error():
            super().on_timeout(soft, timeout)
        # Only a pool of processes calls on_failure() after this, where Celery may requeue the task.
        if not soft and detect_environment() != "default":
            self.report_failure(TimeLimitExceeded(timeout))

    def reject(self, requeue: bool = False) -> None:
        # The child has already published a Reject that its task raised.
        if requeue and not self.acknowledged and not isinstance(self._cause, Reject):
            self._report_requeue(self._cause)
        elif not (requeue or self._cause or self.time_start or RUNS_WITHOUT_ETA):
            self.report_failure(Unacceptable("invalid ETA"))
        super().reject(requeue)

    def _retry_worker_lost(self, exc: BaseException, exc_info: Any) -> bool:
        # Celery calls on_retry after sending the retry, when another worker may have begun it.
        retried: list[Job] = []
        reported = background.call(_retry_later, self.task, self._context, exc, retried)
        if detect_environment() == "default":
            reported.wait(FLUSH_TIMEOUT)
        with use_job(retried[0] if retried else NO_JOB):
            sent: bool = super()._retry_worker_lost(exc, exc_info)
        self._is_reported = self._is_reported or sent
        return sent

    def terminate(self, *args: Any, **kwargs: Any) -> None:
        self.is_stopped = True
        super().terminate(*args, **kwargs)

    def cancel(self, pool: Any, signal: Any = None, **options: Any) -> None:
        self.is_stopped = True
        # Celery cancels runs while it handles a connection error, or at a shutdown.
        broken = isinstance(sys.exc_info()[1], self._connection_errors)
        cause = BrokerLost() if broken else WorkerShutdown()
        given_back = self.task.acks_late and not (self.acknowledged or pool.is_green)
        ended = bool(self.time_start)
        try:
            super().cancel(pool, signal, **options)
        except NotImplementedError as exc:
            ended = False
            # The error may interrupt the task, which then fails with it: name the real reason.
            raise exc from cause
        finally:
            # Report the outcome even if Celery could not store it.
            if ended and given_back:
                self._report_requeue(cause)
            elif ended:
                # Celery reports a retry here, but never sends one.
                self.report_failure(cause)

    def stored_success(self) -> Mapping[str, Any] | None:
        """Return the meta data of the result if the run has stored its success.

        A child stores the result before it publishes the end of the job, and may be lost or
        terminated in between. Celery then keeps the result, so the job has to succeed, too.
        """
        if self._success is None and self.time_start:
            meta = self._read_success()
            self._success = meta if meta and self._is_own_result(meta) else None
        return self._success

    def _success_was_stored(self) -> Any:
        """Answer Celery 5.7, which asks after the loss of a child."""
        success = self.stored_success() if self.time_start else self._read_success()
        return success or False

    def _read_success(self) -> Mapping[str, Any] | None:
        """Return the meta data of a stored success, maybe that of another run with the same id.

        The read is not repeated without limit, because it blocks the loop that serves all children.
        Celery reads and stores results in this thread, too. Another thread could hold a lock of the
        backend during a fork, and deadlock the new child.
        """
        backend = self.task.backend
        if self.ignore_result or not can_access_results(backend):
            return None
        try:
            read = getattr(super(), "_success_was_stored", None)
            if read is not None:
                return read() or None
            meta = read_meta(backend, self.id)
            return meta if meta["status"] == states.SUCCESS else None
        except Exception:
            # A backend may raise any exception; it must not end the loop that serves all children.
            logger.exception(
                "could not read the result of job %s, which its run may have stored before it was"
                " lost; without another outcome, the job ends as lost after JOBCAST_LOST_AFTER",
                self.id,
            )
            return None

    def _is_own_result(self, meta: Mapping[str, Any]) -> bool:
        """Return whether a result may be of this run.

        An id can be used again. The backends for key-value stores then keep the first success.
        """
        done = meta.get("date_done")
        done = datetime.fromisoformat(done) if isinstance(done, str) else done
        if not isinstance(done, datetime) or done.tzinfo is None:
            return True  # the time cannot be compared
        return done.timestamp() >= (self.time_start or 0)

    def _end_successful(self, success: Mapping[str, Any]) -> None:
        """End a terminated run that has stored its success, as Celery ends a lost one."""
        state.task_ready(self, successful=True)
        self.acknowledge()
        self._already_revoked = True  # the loss of the child's process is handled
        result = saferepr(success["result"], self.task.resultrepr_maxsize)
        self.send_event("task-succeeded", result=result, runtime=None)
        self._report_success(success)

    def _report_success(self, success: Mapping[str, Any]) -> None:
        self._is_reported = True
        background.call(_succeed, self.task, self._context, success["result"])

    @contextmanager
    def _fail_on_error(self) -> Iterator[None]:
        """Report the run as failed if Celery raises while it handles the end of the run."""
        try:
            yield
        except Exception as exc:
            self.report_failure(self._cause or exc)
            raise

    def report_failure(self, cause: BaseException) -> None:
        """Publish that the run has failed, unless this process has published its outcome."""
        if self._is_reported or not is_followed(self.task):
            return
        success = self.stored_success()
        if success is not None:
            self._report_success(success)
        else:
            self._is_reported = True
            background.call(_fail, self.task, self._context, cause)

    def report_scheduled(self) -> None:
        """Publish that the task waits for its time here, if the store has no record of the job.

        The answer of the store contains a request to cancel the job, if there is one: this worker
        may have missed the notice, such as before its start.
        """
        background.call(_queue, self.task, self._context)

    def _report_requeue(self, cause: BaseException | None) -> None:
        """Publish that the task returns to the broker because of ``cause``."""
        if not self._is_reported and is_followed(self.task):
            self._is_reported = True
            reported = background.call(_retry, self.task, self._context, cause)
            # The next run may begin as soon as the broker has the message.
            if detect_environment() == "default":
                reported.wait(FLUSH_TIMEOUT)


@cache
def request_class(own: Any) -> type[JobRequest]:
    """Return a class of requests that combines ``JobRequest`` with a project's own class.

    Args:
        own: the project's class or its qualified name; Celery's class if the project has none.

    Raises:
        TypeError: the two classes cannot be combined.
    """
    cls = symbol_by_name(own)
    if not (isinstance(cls, type) and issubclass(cls, Request)):
        raise TypeError(
            f"its Request is {own!r}, but should be a subclass of celery.worker.request.Request"
        )
    if issubclass(cls, JobRequest):
        return cls
    if cls is Request:
        return JobRequest
    try:
        # JobRequest comes first, so that the project's methods need not call super().
        both: type[JobRequest] = type(
            cls.__name__, (JobRequest, cls), {"__module__": cls.__module__}
        )
    except TypeError as exc:
        raise TypeError(
            f"its Request, {cls.__qualname__}, cannot be combined with jobcast's ({exc}):"
            " derive it from jobcast.celery.request.JobRequest"
        ) from None
    return both


# The latest request of each job id. Celery's own list no longer has the requests that it has just
# stopped.
_requests: WeakValueDictionary[str, JobRequest] = WeakValueDictionary()


def latest_request(task_id: object) -> JobRequest | None:
    """Return the latest request of a job in this process."""
    return _requests.get(job_id_of(task_id))


def is_active(job_id: str) -> bool:
    """Return whether the pool runs a task with the id of a job, from any thread.

    The task may be one that replaces the job's own, and the run need not be of the latest request.
    """
    return any(job_id_of(request.id) == job_id for request in _active_requests())


def is_stopped(task_id: object) -> bool:
    """Return whether Celery has stopped the run of a task in this process."""
    request = latest_request(task_id)
    return request is not None and request.is_stopped


def _hold(request: JobRequest, lease: Lease) -> None:
    """Renew the lease of a run from the main process.

    The child cannot renew it while the task blocks the other threads of the child.
    """
    runtime = get_runtime(request.app.conf)
    if runtime is not None:
        runtime.publisher.leases.elsewhere = _active
        # If the run has already ended, its lease would stay until it expires.
        if request in state.active_requests:
            runtime.publisher.hold(lease)


def _refuse(app: Celery, message: Any, fields: Mapping[str, Any], cause: BaseException) -> None:
    """Fail the job of a message that no worker will run, and the jobs of its later steps."""
    origin = origin_of_delivery(message.headers, fields.get("retries"), message.delivery_info)
    job = new_job(job_id_of(fields["id"]), origin=origin, celery_conf=app.conf)
    if isinstance(job, Job):
        name, delivery_info = fields.get("task"), message.delivery_info
        job.info = info_of_message(app, message.headers, name, delivery_info)
        job.fail(cause)
    match _payload_of(message):
        case [_, _, {"chain": steps, "chord": body}]:
            fail_steps(app, steps, body, origin.owner)


def _payload_of(message: Any) -> Any:
    try:
        return message.payload
    except Exception as exc:
        # A serializer may raise any exception, which may be the reason for the refusal.
        logger.debug("could not decode message %s: %s", message.delivery_tag, exc)
        return None


def _fail(task: Any, context: Any, cause: BaseException) -> None:
    job = job_of_run(context, task.app)
    if job is not None:
        message = None if isinstance(cause, JobCancelled) else task.message_of(cause)
        job.fail(cause, message)
        fail_later_steps(task.app, context)


def _retry(task: Any, context: Any, cause: BaseException | None) -> None:
    job = job_of_run(context, task.app)
    if job is not None:
        job.retry_cause = cause, "" if cause is None else task.message_of(cause)
        job.retrying(attempt=job.attempt, retry_at=now())


def _retry_later(task: Any, context: Any, cause: BaseException, retried: list[Job]) -> None:
    """Publish that Celery retries a task whose child was lost."""
    job = job_of_run(context, task.app)
    if job is not None:
        retried.append(job)
        job.retry_cause = cause, task.message_of(cause)
        job.retrying(retry_at=now() + timedelta(seconds=task.default_retry_delay))


def _queue(task: Any, context: Any) -> None:
    runtime = get_runtime(task.app.conf)
    if runtime is None or not runtime.publisher.learns_of_cancellations:
        return
    job = job_of_run(context, task.app, waits=False)
    if job is not None:
        job.requires = "pending"
        job.queued()


def _succeed(task: Any, context: Any, result: Any) -> None:
    job = job_of_run(context, task.app)
    if job is not None:
        job.complete(task.shown_result(result))


def _active() -> list[Lease]:
    """Return the leases of the runs in this worker's children."""
    return [r.lease for r in _active_requests() if isinstance(r, JobRequest) and r.is_job]


def _active_requests() -> list[Request]:
    """Return the requests whose runs are active, from any thread."""
    for _ in range(10):
        try:
            return [*state.active_requests]
        except RuntimeError:  # the main thread has changed the set during the iteration
            continue
    return []


_reported_request: ContextVar[JobRequest | None] = ContextVar("jobcast_request", default=None)


@contextmanager
def _reporting(request: JobRequest) -> Iterator[None]:
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
        known = latest_request(request.id)
        cause: BaseException
        if known is not None and known.cancellation is not None:
            cause = known.cancelled_error
        else:
            cause = Expired() if expired else Terminated() if terminated else TaskRevokedError()
        background.call(_fail, sender, request, cause)


def _unknown(sender: Any, message: Any, name: str, **_: object) -> None:
    refuse(sender.app, message, NotRegistered(name))


def _rejected(sender: Any, message: Any, exc: BaseException | None, **_: object) -> None:
    refuse(sender.app, message, Unacceptable(str(exc)))


def refuse(app: Celery, message: Any, cause: BaseException) -> None:
    """Fail the job of a message that this worker refuses, if the headers are those of a job."""
    headers = message.headers
    if not isinstance(headers, Mapping) or not headers.keys() & JOB_HEADERS:
        return
    fields = headers if "id" in headers else fields_of(headers, _payload_of(message))
    if "id" in fields and not is_internal(str(fields.get("task"))):
        background.call(_refuse, app, message, fields, cause)


def _prepare(sender: Any, **_: object) -> None:
    """Load the transport before the first task is acknowledged, and observe decoding errors."""
    background.call(get_runtime, sender.app.conf)
    sender.on_decode_error = _with_refusal(sender.app, sender.on_decode_error)
    # The current task consumer already has the method. Celery sets it again on a reconnection.
    sender.task_consumer.on_decode_error = sender.on_decode_error


def _with_refusal(app: Celery, own: Callable[..., Any]) -> Callable[..., Any]:
    """Return Celery's handler of undecodable messages, preceded by failing their jobs.

    Celery has no signal for such messages.
    """

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
