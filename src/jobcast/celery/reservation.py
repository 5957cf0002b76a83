"""Jobs that followers can join before their task is sent, such as those of a transaction."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from jobcast.celery.failures import NotSent
from jobcast.publishing.job import Job
from jobcast.publishing.runtime import Runtime
from jobcast.transports.leases import Lease

_current: ContextVar[Reservation | None] = ContextVar("jobcast_reservation", default=None)


class Reservation:
    """A job that is ``queued`` before its task is sent.

    This process renews a lease for it. If the process dies before it sends the task, the lease
    expires, and the job ends.

    Args:
        job: the published job.
        runtime: the publisher of its events.
    """

    def __init__(self, job: Job, runtime: Runtime) -> None:
        self.job = job
        self.is_sent = False
        self._runtime = runtime
        self._pid = os.getpid()

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Send the task in the block. If its message is not sent, the job ends."""
        token = _current.set(self)
        has_failed = True
        try:
            yield
            has_failed = False
        finally:
            _current.reset(token)
            if has_failed and not self.is_sent:
                self.withdraw(NotSent())
            else:
                self._runtime.publisher.release(Lease(self.job.job_id, self.job.origin.run))

    def withdraw(self, cause: Exception) -> None:
        """End the job, without waiting. A finalizer may call this.

        In a forked child of the process this does nothing: the parent may still send the task.
        """
        job = self.job
        if os.getpid() == self._pid and not job.ended:
            job.ended = True
            ending = Job(job.source, job.job_id, origin=job.origin, waits=False)
            ending.info = job.info
            ending.fail(cause)


def current_reservation(job_id: str) -> Reservation | None:
    """Return the reservation whose task is being sent; None if it is not that of this job."""
    reservation = _current.get()
    return reservation if reservation is not None and reservation.job.job_id == job_id else None
