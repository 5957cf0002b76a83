"""Leases: a worker renews the lease of each of its runs; a run whose lease expires is stalled.

The server side looks for expired leases and marks their jobs ``stalled``. A renewal or another run
revives such a job; without one the job ends as lost after a while. A process that sends a task
later, such as at the end of a database transaction, holds the lease of a reservation, which has no
run yet. All times are the store's, so clocks need not agree.

Only the process that publishes the ending of a run releases its lease, after the ending is stored.
A lease that expires after the end of its run changes nothing; the feeds of the job are written
again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Literal, Protocol, runtime_checkable

from msgspec import Struct

from jobcast.transports.base import Outgoing
from jobcast.transports.runs import Run

DEFAULT_LEASE: Final = 15  # seconds
DEFAULT_LOST_AFTER: Final = 120  # seconds that a job may be stalled
SCAN_LIMIT: Final = 500  # leases per scan

Kind = Literal["stalled", "revived", "lost"]


class Lease(Struct, frozen=True):
    """A run of a job that a worker keeps alive."""

    job_id: str
    run: Run

    def __str__(self) -> str:
        return f"{self.job_id} {self.run}"

    @classmethod
    def parse(cls, text: str) -> Lease:
        """Parse the text of a lease.

        Raises:
            ValueError: the text is not a lease.
        """
        job_id, _, run = text.partition(" ")
        return cls(job_id, Run.parse(run))


def is_reservation(run: Run) -> bool:
    """Return whether a run stands for the process that will send the task."""
    return run.attempt == 0 and bool(run.delivery)


class Finding(Struct, frozen=True):
    """A change of a run's liveness that has to be published."""

    kind: Kind
    lease: Lease


class LeaseTimeouts(Struct, frozen=True, kw_only=True):
    """The timeouts of leases and of stalled jobs, in seconds."""

    lease: float = DEFAULT_LEASE
    lost_after: float = DEFAULT_LOST_AFTER


@runtime_checkable
class SupportsLeaseRenewal(Protocol):
    """A publisher that can renew leases. Optional."""

    def renew(self, leases: Sequence[Lease], seconds: float) -> None:
        """Extend the leases so that they expire after ``seconds`` from now.

        Raises:
            PublishFailed: the leases could not be renewed.
        """

    def release(self, leases: Sequence[Lease]) -> None:
        """Remove the leases of runs that have ended.

        Raises:
            PublishFailed: the leases could not be removed; they expire.
        """


@runtime_checkable
class SupportsLeaseMonitoring(Protocol):
    """A source that can find expired leases. Optional."""

    async def scan(self, terms: LeaseTimeouts) -> list[Finding]:
        """Return the findings to publish now, or none while another process monitors the leases.

        After an interruption, ``scan`` returns no findings for the duration of a lease, so that
        live workers can renew theirs first.

        Raises:
            TransportUnavailable: the store cannot be read.
        """

    async def acknowledge(self, findings: Sequence[Finding], terms: LeaseTimeouts) -> None:
        """Mark findings as published.

        Raises:
            TransportUnavailable: the store cannot be written; ``scan`` returns the findings again.
        """

    async def publish(self, batch: Sequence[Outgoing]) -> list[Outgoing]:
        """Publish events from the server side.

        Returns:
            The events that were stored. The others require another state of their job.

        Raises:
            PublishFailed: the events could not be stored.
        """


class InMemoryLeases:
    """Leases in memory, with the rules of ``leases.lua``."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._running: dict[Lease, float] = {}  # when each lease expires
        self._stalled: dict[Lease, float] = {}  # when each stalled run is lost
        self._scanned_at = float("-inf")
        self._since = 0.0

    def renew(self, leases: Iterable[Lease], seconds: float) -> None:
        until = self._clock() + seconds
        with self._lock:
            for lease in leases:
                self._running[lease] = until

    def release(self, leases: Iterable[Lease]) -> None:
        with self._lock:
            for lease in leases:
                self._running.pop(lease, None)
                self._stalled.pop(lease, None)

    def is_uninterrupted(self, lease: float) -> bool:
        """Return whether the time of a lease has passed since the last interruption."""
        return self._clock() - self._since >= lease and self._scanned_at > float("-inf")

    def interrupt(self) -> None:
        """Find nothing until a lease has passed after the next scan: renewals could not arrive."""
        self._scanned_at = float("-inf")

    def scan(self, terms: LeaseTimeouts) -> list[Finding]:
        now = self._clock()
        if now - self._scanned_at > terms.lease / 2:
            self._since = now
        self._scanned_at = now
        if not self.is_uninterrupted(terms.lease):
            return []
        with self._lock:
            running, stalled = dict(self._running), dict(self._stalled)
        found = [Finding("stalled", lease) for lease, until in running.items() if until <= now]
        found += [Finding("revived", lease) for lease in stalled if running.get(lease, 0.0) > now]
        found += [
            Finding("lost", lease)
            for lease, until in stalled.items()
            if until <= now and lease not in running
        ]
        return found[:SCAN_LIMIT]

    def acknowledge(self, findings: Iterable[Finding], terms: LeaseTimeouts) -> None:
        now = self._clock()
        with self._lock:
            for finding in findings:
                lease = finding.lease
                if finding.kind == "stalled":
                    self._stalled[lease] = now + terms.lost_after
                    if self._running.get(lease, now) <= now:
                        self._running.pop(lease, None)
                else:
                    self._stalled.pop(lease, None)
