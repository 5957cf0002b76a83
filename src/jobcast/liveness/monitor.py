"""Whose worker is gone: runs whose leases ran out, and what is said of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from jobcast.errors import PublishFailed, TransportUnavailable
from jobcast.events import JobError, JobStatus
from jobcast.transports import Origin, Outgoing
from jobcast.transports.leases import Finding, LeaseTimeouts, SupportsLeaseMonitoring

LOOK_INTERVAL: Final = 1.0  # seconds
WORKER_IS_GONE: Final = "The worker running this job is gone, and no other has taken the job over"

logger = logging.getLogger(__name__)


class LeaseMonitor:
    """Looks after the runs of all workers, with one process at a time doing it.

    Args:
        source: where the leases are.
        timeouts: how long things may take.
        on_published: is called with each finding that was published.
    """

    def __init__(
        self,
        source: SupportsLeaseMonitoring,
        timeouts: LeaseTimeouts,
        on_published: Callable[[Finding], None] = lambda _: None,
    ) -> None:
        self._source = source
        self._timeouts = timeouts
        self._on_published = on_published

    async def run(self) -> None:
        """Look, until it is cancelled."""
        said = ""  # what was wrong the last time
        while True:
            await asyncio.sleep(min(LOOK_INTERVAL, self._timeouts.lease / 4))
            try:
                await self.scan()
                said = ""
            except (TransportUnavailable, PublishFailed) as exc:
                logger.log(logging.DEBUG if said else logging.INFO, "leases: %s", exc)
                said = said or str(exc)
            except Exception as exc:
                # Whatever it is, nobody else looks after the workers' runs.
                if said != repr(exc):
                    logger.exception("looking after leases failed, and is tried again")
                said = repr(exc)

    async def scan(self) -> None:
        """Say what is to be said now.

        Raises:
            TransportUnavailable, PublishFailed: it cannot be; it is found again.
        """
        findings = await self._source.scan(self._timeouts)
        if findings:
            await self._source.publish([_event(finding) for finding in findings])
            await self._source.acknowledge(findings, self._timeouts)
            for finding in findings:
                lease = finding.lease
                logger.info(
                    "job %s: %s (attempt %d)", lease.job_id, finding.kind, lease.run.attempt
                )
                self._on_published(finding)


def _event(finding: Finding) -> Outgoing:
    """What is said of a run; the store drops it where somebody knows better by now."""
    job_id, run = finding.lease.job_id, finding.lease.run
    origin = Origin(run=run)
    match finding.kind:
        case "stalled":
            stalled = JobStatus(job_id=job_id, status="stalled", attempt=run.attempt or 1)
            return Outgoing.of(stalled, origin, requires="started")
        case "revived":
            revived = JobStatus(job_id=job_id, status="started", attempt=run.attempt or 1)
            return Outgoing.of(revived, origin, requires="stalled")
        case "lost":
            error = JobError(
                job_id=job_id, error="WorkerLostError", message=WORKER_IS_GONE, reason="worker_lost"
            )
            return Outgoing.of(error, origin, requires="stalled")
