"""The monitor of leases, which publishes that runs of lost workers are stalled or lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Literal

from msgspec import UNSET

from jobcast.errors import PublishFailed, TransportUnavailable
from jobcast.events import JobError, JobStatus
from jobcast.transports import Origin, Outgoing, Run
from jobcast.transports.leases import (
    Finding,
    LeaseTimeouts,
    SupportsLeaseMonitoring,
    is_reservation,
)

SCAN_INTERVAL: Final = 1.0  # seconds between two scans at most
SENDER_IS_GONE: Final = "The process that was to send this job is gone"
WORKER_IS_GONE: Final = "The worker running this job is gone, and no other has taken the job over"

logger = logging.getLogger(__name__)


class LeaseMonitor:
    """A monitor of the runs of all workers. One process at a time is active.

    Args:
        source: the store of the leases.
        timeouts: the duration of a lease, and the time after which a stalled run is lost.
        on_published: called with each published finding.
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
        """Scan repeatedly, until cancelled."""
        last_problem = ""
        while True:
            interval = min(SCAN_INTERVAL, self._timeouts.lease / 4)
            await asyncio.sleep(interval)
            try:
                await self.scan()
                last_problem = ""
            except (TransportUnavailable, PublishFailed) as exc:
                level = logging.DEBUG if last_problem else logging.INFO
                logger.log(level, "could not scan leases: %s; retrying in %.1f s", exc, interval)
                last_problem = last_problem or str(exc)
            except Exception as exc:
                # The active monitor is the only one, so it must survive any error.
                if last_problem != repr(exc):
                    logger.exception("could not scan leases; retrying in %.1f s", interval)
                last_problem = repr(exc)

    async def scan(self) -> None:
        """Publish and acknowledge the findings of one scan.

        Raises:
            TransportUnavailable, PublishFailed: a step failed; the next scan repeats the findings.
        """
        findings = await self._source.scan(self._timeouts)
        if findings:
            events = [_event(finding) for finding in findings]
            stored = {*await self._source.publish(events)}
            await self._source.acknowledge(findings, self._timeouts)
            for finding, event in zip(findings, events, strict=True):
                # A lease also expires after the end of its run if it was not released.
                if event in stored:
                    self._report(finding)

    def _report(self, finding: Finding) -> None:
        lease = finding.lease
        logger.info("job %s: %s (attempt %d)", lease.job_id, finding.kind, lease.run.attempt)
        self._on_published(finding)


def _event(finding: Finding) -> Outgoing:
    """Return the event for a finding. The store drops it if the run's state has changed."""
    job_id, run = finding.lease.job_id, finding.lease.run
    origin = Origin(run=run)
    active: Literal["queued", "started"] = "queued" if is_reservation(run) else "started"
    match finding.kind:
        case "stalled":
            stalled = JobStatus(job_id=job_id, status="stalled", attempt=run.attempt or UNSET)
            return Outgoing.of(stalled, origin, requires=active)
        case "revived":
            revived = JobStatus(job_id=job_id, status=active, attempt=run.attempt or UNSET)
            return Outgoing.of(revived, origin, requires="stalled")
        case "lost":
            return Outgoing.of(_end_of(job_id, run), origin, requires="stalled")


def _end_of(job_id: str, run: Run) -> JobError:
    if is_reservation(run):
        return JobError(job_id=job_id, error="NotSent", message=SENDER_IS_GONE, reason="rejected")
    return JobError(
        job_id=job_id, error="WorkerLostError", message=WORKER_IS_GONE, reason="worker_lost"
    )
