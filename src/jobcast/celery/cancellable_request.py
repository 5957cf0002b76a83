"""Cancel one delivery of a task's message, in the main process of a worker."""

from __future__ import annotations

import logging
import signal
from collections import deque
from collections.abc import Callable
from typing import Any

from celery.worker import state

from jobcast.celery.cancelled import fail_dependents
from jobcast.celery.reporting_request import ReportingRequest
from jobcast.errors import JobCancelled
from jobcast.transports.cancellation import Cancellation

logger = logging.getLogger(__name__)


class CancellableRequest(ReportingRequest):
    """A request that can be discarded before its run begins, and whose run can be terminated."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cancellation: Cancellation | None = None  # the request to cancel the job
        self.is_received = False  # this process has handled the message's arrival
        self._is_taken = False  # Celery gives the task to the pool, which may wait for a free run
        self._when_accepted: deque[Callable[[bool], None]] = deque(maxlen=1)

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

    def _revoke(self, reason: str, terminated: bool, signum: Any, expired: bool) -> None:
        if self.cancellation is None:
            super()._revoke(reason, terminated, signum, expired)
            return
        cancelled = self.cancelled_error
        super()._revoke(cancelled.message, terminated, signum, expired)
        fail_dependents(self.task, self._context, cancelled, stored=self.store_errors)

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
