"""Cancel one delivery of a task's message, in the main process of a worker."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping
from functools import wraps
from signal import SIGKILL, SIGTERM
from typing import Any, Final

from billiard.exceptions import Terminated, WorkerLostError
from celery import states
from celery.exceptions import TaskPredicate, TimeLimitExceeded
from celery.worker import state

from jobcast.celery.cancelled import fail_dependents
from jobcast.celery.failures import RunCancelled, original_exception
from jobcast.celery.reporting_request import ReportingRequest, exception_of
from jobcast.celery.revoked_marks import revoked_marks
from jobcast.celery.termination import (
    ended_without_outcome,
    forget_termination,
    replace_child,
)
from jobcast.errors import JobCancelled
from jobcast.publishing.cancellation import active_runs
from jobcast.transports.cancellation import Cancellation

#: The exceptions with which a pool of processes reports that a run ended without an outcome of the
#: task. Some versions of billiard report the exception of the signal itself.
LOSSES: Final = (Terminated, WorkerLostError, TimeLimitExceeded, SystemExit, KeyboardInterrupt)

MessageKey = tuple[str, str, int]  # the job, the sending and the attempt

logger = logging.getLogger(__name__)


class CancellableRequest(ReportingRequest):
    """A request that can be discarded before its run begins, and whose run can be terminated.

    When a run is terminated, Celery only learns of it when the pool reports the end of the run: as
    lost, or with an outcome if the run has caught the exception of the signal. A lost run may have
    stored its outcome before. Exactly one of them is stored, in Celery and in the record.
    """

    _terminating_pool: Any = None  # it has sent the signal

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # Celery derives a class for each task, with an on_success() that calls no other one.
        if "on_success" in vars(cls):
            cls.on_success = _as_settling(cls.on_success)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cancellation: Cancellation | None = None  # the request to cancel the job
        self.is_received = False  # this process has handled the message's arrival
        self.is_skipped = False  # another delivery ends the job
        self.was_refused = False  # the consumer gave it to the pool while it was withheld
        self._is_given_to_pool = False  # which may wait for a free process or thread
        self._when_accepted: deque[Callable[[bool], None]] = deque(maxlen=1)

    def is_covered_by(self, cancellation: Cancellation) -> bool:
        """Return whether a request to cancel the job covers this delivery."""
        return self.is_job and cancellation.covers(self.lease.run)

    def repeats(self, other: CancellableRequest) -> bool:
        """Return whether this is another delivery of the same message.

        Redis, for example, delivers it again after its visibility timeout.
        """
        return self.message_key == other.message_key and self is not other

    @property
    def message_key(self) -> MessageKey:
        """What all deliveries of a message share."""
        run = self.lease.run
        return self.lease.job_id, run.sending, run.attempt

    @property
    def cancelled_error(self) -> JobCancelled:
        """The exception that ends the run of a cancelled job."""
        request = self.cancellation
        return JobCancelled() if request is None else request.error

    @property
    def has_begun(self) -> bool:
        """Whether the pool has the task, or waits until it can run it."""
        return bool(self.time_start) or self._is_given_to_pool

    @property
    def is_running(self) -> bool:
        """Whether the pool runs the task."""
        return bool(self.time_start) and not self.is_over

    @property
    def is_over(self) -> bool:
        """Whether the run has ended, or will not begin."""
        ended = bool(self.time_start) and self not in state.active_requests
        return ended or self._already_revoked

    def withhold(self, cancellation: Cancellation) -> None:
        """Do not run the task of a cancelled job, whose message is about to be discarded."""
        self.cancellation, self._already_revoked = cancellation, True
        self.was_refused = False

    def discard(self) -> None:
        """End the withheld task. It raises what a backend or a broker raises."""
        self._announce_revoked("cancelled", False, None, False)

    def release(self) -> None:
        """Let the withheld task run, whose message could not be discarded."""
        self.cancellation, self._already_revoked = None, False
        if not self.was_refused and getattr(self, "_eta_timer_entry", None) is not None:
            # Celery cancels the timers of scheduled requests only if the broker is lost.
            state.task_scheduled(self)

    def skip(self, cancellation: Cancellation) -> None:
        """Let another delivery end the job, and do not run this one."""
        self.cancellation, self.is_skipped = cancellation, True

    def send_sigterm(self, pool: Any) -> None:
        """Send SIGTERM to the child of a cancelled run, or kill its greenlet."""
        self.is_stopped, self._terminating_pool = True, pool
        pool.terminate_job(self.worker_pid, SIGTERM)

    @property
    def is_forgotten(self) -> bool:
        """Whether the pool reports no end of the run, and its process may run another task.

        Celery before 5.7 forgets the runs of a pool of processes when it loses the broker.
        """
        return self._apply_result is not None and self._apply_result() is None

    @property
    def is_unfinished(self) -> bool:
        """Whether the pool has not reported the end of the run."""
        result = None if self._apply_result is None else self._apply_result()
        return result is not None and not result.ready()

    def kill(self) -> None:
        """Kill the process of a terminated run that does not end, such as in C code."""
        logger.warning("job %s: its run ignores SIGTERM; killing its process", self.id)
        self._terminating_pool.terminate_job(self.worker_pid, SIGKILL)

    def on_failure(
        self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False
    ) -> None:
        # The child has reported an outcome if return_ok is set.
        is_lost = not return_ok and isinstance(exception_of(exc_info), LOSSES)
        if is_lost and self._ends_if_lost:
            self._end_lost()
        else:
            super().on_failure(exc_info, send_failed_event, return_ok)

    def on_timeout(self, soft: bool, timeout: float) -> None:
        if not soft and self._ends_if_lost:
            # A pool of processes has called on_failure() before.
            self._end_lost()
        else:
            super().on_timeout(soft, timeout)

    def cancel(self, pool: Any, signal: Any = None, **options: Any) -> None:
        if not self._is_terminated:
            super().cancel(pool, signal, **options)
            return
        # The worker stops, or has lost its broker.
        pool.terminate_job(self.worker_pid, SIGKILL)
        if pool.is_green or self.is_over:
            return  # the pool reports how the greenlet ends, at once or later
        try:
            self._end_lost()
        except Exception:
            # A backend may raise any exception; the other runs have to be cancelled, too.
            logger.exception(
                "job %s: could not store or acknowledge its end in Celery after its termination",
                self.id,
            )

    @property
    def _is_terminated(self) -> bool:
        """Whether the run was terminated because its job is cancelled."""
        return self._terminating_pool is not None

    @property
    def _ends_if_lost(self) -> bool:
        """Whether the loss of the run ends its job as cancelled, and Celery does not requeue it."""
        was_asked = self._request_to_cancel is not None and self.task.cancellable
        return self._is_terminated or was_asked

    @property
    def _request_to_cancel(self) -> Cancellation | None:
        """The request to cancel the job, even if the loop of the worker has not handled it yet."""
        if self.cancellation is not None or not self.is_job:
            return self.cancellation
        return active_runs.known.find(self.lease.job_id, self.lease.run)

    def _end_lost(self) -> None:
        """End a run without an outcome, in Celery and for the followers of the job."""
        # Celery itself cancels runs when it loses the broker: the next delivery ends at its start.
        if self._already_revoked or self._already_cancelled:
            return
        cancellation = self.cancellation = self._request_to_cancel
        signum = SIGTERM if self._is_terminated else None
        try:
            self._announce_revoked("cancelled", True, signum, False)
        except Exception:
            self.report_failure(self.cancelled_error)
            if self.store_errors and cancellation is not None:
                revoked_marks.add(self.app, cancellation, is_lost=True)
            if self.task.acks_late and not self.acknowledged:
                self.reject(requeue=True)  # the next delivery ends at its start
            raise

    def _is_own_outcome(self, meta: Mapping[str, Any]) -> bool:
        # A worker may have stored REVOKED, and no more, for a job that was cancelled as it waited.
        waited = self.cancellation is not None and self.cancellation.outcome == "cancelled"
        if waited and meta["status"] == states.REVOKED:
            return False
        return super()._is_own_outcome(meta)

    def settle(self, report: Callable[..., None], result: Any, options: Mapping[str, Any]) -> None:
        """Handle what the pool reports as the result of the run, with Celery's method for it."""
        if not self._is_terminated:
            report(self, result, **options)
        elif ended_without_outcome(result):
            self._end_lost()
        else:
            try:
                report(self, result, **options)
            finally:
                self._release_child(result)

    def _release_child(self, result: Any) -> None:
        """Have the child of a terminated run replaced, after the run has ended with a result."""
        if not replace_child(self._terminating_pool, self.worker_pid):
            forget_termination(self._terminating_pool, self.worker_pid)
            return
        # The child may not have sent the end of the job, such as in an outage of the transport.
        # The first ending that is stored counts.
        failed, value, _runtime = result
        error = exception_of(value) if failed else None
        if isinstance(error, RunCancelled):
            self.report_failure(self.cancelled_error)
        elif error is not None and not isinstance(error, TaskPredicate):
            self.report_failure(original_exception(error))
        elif error is None and (success := self.stored_success()) is not None:
            self._report_success(success)

    @property
    def holds_lease(self) -> bool:
        return super().holds_lease and not self.is_skipped

    def revoked(self) -> bool:
        if self.is_skipped and not self._already_revoked:
            self._already_revoked = True
            self.acknowledge()
        if self._already_revoked:
            # The consumer has just reserved the withheld or discarded request.
            self.was_refused = True
            state.task_ready(self)
            return True
        found: bool = super().revoked()
        # Celery checks each message when it arrives, and before it gives the task to the pool.
        self._is_given_to_pool = self.is_received and not found
        return found

    def _revoke(self, reason: str, terminated: bool, signum: Any, expired: bool) -> None:
        if self.cancellation is None:
            super()._revoke(reason, terminated, signum, expired)
            return
        cancelled = self.cancelled_error
        super()._revoke(cancelled.message, terminated, signum, expired)
        fail_dependents(self.task, self._context, cancelled, stored=self.store_errors)

    def cause_of_revocation(self, terminated: bool, expired: bool) -> BaseException:
        if self.cancellation is None:
            return super().cause_of_revocation(terminated, expired)
        return self.cancelled_error

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        super().on_accepted(pid, time_accepted)
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


def _as_settling(own: Callable[..., None]) -> Callable[..., None]:
    """Return Celery's ``on_success``, preceded by what a terminated run requires."""

    @wraps(own)
    def on_success(self: CancellableRequest, result: Any, **options: Any) -> None:
        self.settle(own, result, options)

    return on_success
