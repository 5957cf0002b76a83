"""A user with jobs whose events a test publishes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from jobcast.events import JobComplete, JobError, JobEvent, JobStatus
from jobcast.transports import Origin, Outgoing, open_publisher
from tests.support import new_id


class Owner:
    """A user whom no other test uses.

    Args:
        url: the URL of the transport.
    """

    def __init__(self, url: str) -> None:
        self.name = new_id("owner")
        self._publisher = open_publisher(url)

    def close(self) -> None:
        self._publisher.close()

    def publish(self, *events: JobEvent) -> None:
        origin = Origin(owner=self.name)
        self._publisher.publish([Outgoing.of(event, origin) for event in events])

    def start(self, job_id: str | None = None, *, age: float = 0, **info: Any) -> str:
        """Start a job that was created ``age`` seconds ago. Returns its id."""
        job_id = job_id or new_id()
        now = datetime.now(UTC)
        created_at = now - timedelta(seconds=age)
        self.publish(
            JobStatus(job_id=job_id, status="queued", created_at=created_at, timestamp=now, **info),
            JobStatus(job_id=job_id, status="started", attempt=1, timestamp=now),
        )
        return job_id

    def complete(self, job_id: str) -> None:
        self.publish(JobComplete(job_id=job_id, result=1))

    def fail(self, job_id: str) -> None:
        self.publish(JobError(job_id=job_id, error="KeyError", message="no", reason="failure"))
