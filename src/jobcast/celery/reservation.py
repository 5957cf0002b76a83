"""Jobs that followers can join before their task is sent, such as those of a transaction."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from jobcast.celery.failures import NotSent
from jobcast.publishing.job import Job
from jobcast.transports.leases import Lease

_reserved: ContextVar[Job | None] = ContextVar("jobcast_reserved", default=None)


class Reservation:
    """A job that is ``queued`` before its task is sent.

    This process renews a lease for it. If the process dies before it sends the task, the lease
    expires, and the job ends.

    Args:
        job: the published job.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._pid = os.getpid()

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Send the task in the block. If that fails, the job ends."""
        token = _reserved.set(self._job)
        try:
            yield
        except BaseException:
            self.withdraw(NotSent())
            raise
        finally:
            _reserved.reset(token)
        self._job.source.publisher.release(Lease(self._job.job_id, self._job.origin.run))

    def withdraw(self, cause: Exception) -> None:
        """End the job, without waiting. A finalizer may call this.

        In a forked child of the process this does nothing: the parent may still send the task.
        """
        if os.getpid() == self._pid and not self._job.ended:
            job = self._job
            job.ended = True
            Job(job.source, job.job_id, origin=job.origin, waits=False).fail(cause)


def current_reservation(job_id: str) -> Job | None:
    """Return the reserved job whose task is being sent; None if it is not this job."""
    job = _reserved.get()
    return job if job is not None and job.job_id == job_id else None
