"""Publish outcomes that only a worker's main process observes.

A killed child process cannot publish, and a revoked or unknown task never reaches a child. Celery
reports these in the main process, through the task's request and through signals.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Final

from billiard.einfo import ExceptionWithTraceback
from celery import VERSION, states
from celery.exceptions import Reject, TimeLimitExceeded, WorkerShutdown
from celery.utils.saferepr import saferepr
from celery.worker import state
from kombu.utils.compat import detect_environment

from jobcast.celery.apps import is_in_signal_handler
from jobcast.celery.background import background
from jobcast.celery.enqueue import is_followed
from jobcast.celery.failure_signals import cause_of_revocation, reporting
from jobcast.celery.failures import BrokerLost, RunCancelled, Unacceptable, original_exception
from jobcast.celery.headers import origin_of_run
from jobcast.celery.outcome_reports import fail, queue, retry, retry_later, succeed
from jobcast.celery.request_registry import active_requests
from jobcast.celery.stored_outcome import OutcomeReadingRequest
from jobcast.events import is_job_id
from jobcast.publishing.identity import job_id_of
from jobcast.publishing.job import NO_JOB, Job, use_job
from jobcast.publishing.publisher import FLUSH_TIMEOUT
from jobcast.publishing.runtime import get_runtime
from jobcast.transports.leases import Lease

# Celery before 5.7 rejects the message of a task whose ETA is out of range, and runs the task.
RUNS_WITHOUT_ETA: Final = VERSION < (5, 7)


class ReportingRequest(OutcomeReadingRequest):
    """A request that reports the outcomes of its run which the run itself cannot report."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._cause: BaseException | None = None
        self._is_reported = False  # the outcome, by this process
        self.is_stopped = False  # by Celery, during the run

    @cached_property
    def is_job(self) -> bool:
        return is_job_id(job_id_of(self.id)) and is_followed(self.task)

    @cached_property
    def lease(self) -> Lease:
        return Lease(job_id_of(self.id), origin_of_run(self._context).run)

    @property
    def holds_lease(self) -> bool:
        """Whether this process renews the lease of the run."""
        return self.is_job

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        super().on_accepted(pid, time_accepted)
        if self.holds_lease:
            background.call(_hold, self, self.lease)

    def on_failure(
        self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False
    ) -> None:
        cause = exception_of(exc_info)
        self._cause = original_exception(cause)
        with reporting(self), self._fail_on_error():
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
        with reporting(self), self._fail_on_error():
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
        reported = background.call(retry_later, self.task, self._context, exc, retried)
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
        # Celery cancels runs while it handles a connection error, or at a shutdown. The signal may
        # interrupt code that handles an error of a connection.
        broken = isinstance(sys.exc_info()[1], self._connection_errors)
        broken = broken and not is_in_signal_handler()
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

    def _announce_revoked(self, reason: str, terminated: bool, signum: Any, expired: bool) -> None:
        outcome = self.stored_outcome() if terminated else None
        if outcome is None:
            self._revoke(reason, terminated, signum, expired)
        else:
            self._end_with(outcome, signum)

    def _revoke(self, reason: str, terminated: bool, signum: Any, expired: bool) -> None:
        """End the task as revoked. It raises what a backend or a broker raises."""
        with reporting(self):
            super()._announce_revoked(reason, terminated, signum, expired)

    def cause_of_revocation(self, terminated: bool, expired: bool) -> BaseException:
        """Return the exception with which the job of the revoked task fails."""
        return cause_of_revocation(terminated, expired)

    def _end_with(self, outcome: Mapping[str, Any], signum: Any) -> None:
        """End a terminated run that has stored its outcome.

        The run has passed the outcome on to its chord and its errbacks. For a success, this repeats
        what Celery's ``on_failure`` does for a lost run in ``if success_meta``, which a terminated
        run does not reach.
        """
        succeeded = outcome["status"] == states.SUCCESS
        state.task_ready(self, successful=succeeded)
        self.acknowledge()
        self._already_revoked = True  # the loss of the child's process is handled
        if succeeded:
            result = saferepr(outcome["result"], self.task.resultrepr_maxsize)
            self.send_event("task-succeeded", result=result, runtime=None)
            self._report_success(outcome)
        elif outcome["status"] == states.REVOKED:
            self.send_event("task-revoked", terminated=True, signum=signum, expired=False)
            self.report_failure(self.cause_of_revocation(True, False))
        else:
            error = outcome["result"]
            traceback = outcome.get("traceback")
            self.send_event("task-failed", exception=saferepr(error), traceback=traceback)
            self.report_failure(error if isinstance(error, Exception) else Exception(error))

    def _report_success(self, success: Mapping[str, Any]) -> None:
        self._is_reported = True
        background.call(succeed, self.task, self._context, success["result"])

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
            background.call(fail, self.task, self._context, cause)

    def report_scheduled(self) -> None:
        """Publish that the task waits for its time here, if the store has no record of the job.

        The answer of the store contains a request to cancel the job, if there is one: this worker
        may have missed the notice, such as before its start.
        """
        background.call(queue, self.task, self._context)

    def _report_requeue(self, cause: BaseException | None) -> None:
        """Publish that the task returns to the broker because of ``cause``."""
        if not self._is_reported and is_followed(self.task):
            self._is_reported = True
            reported = background.call(retry, self.task, self._context, cause)
            # The next run may begin as soon as the broker has the message.
            if detect_environment() == "default":
                reported.wait(FLUSH_TIMEOUT)


def exception_of(exc_info: Any) -> BaseException:
    """Return the exception that a pool reports."""
    exc: BaseException = exc_info.exception
    return exc.exc if isinstance(exc, ExceptionWithTraceback) else exc


def _hold(request: ReportingRequest, lease: Lease) -> None:
    """Renew the lease of a run from the main process.

    The child cannot renew it while the task blocks the other threads of the child.
    """
    runtime = get_runtime(request.app.conf)
    if runtime is not None:
        runtime.publisher.leases.elsewhere = _active
        # If the run has already ended, its lease would stay until it expires.
        if request in state.active_requests:
            runtime.publisher.hold(lease)


def _active() -> list[Lease]:
    """Return the leases of the runs in this worker's children."""
    return [r.lease for r in active_requests() if isinstance(r, ReportingRequest) and r.holds_lease]
