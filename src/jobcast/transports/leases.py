"""Leases: who runs a job says so again and again, and when it does not, somebody notices.

A worker's process renews the lease of each run that it knows of. The realtime side looks for those
that ran out: their jobs are ``stalled``, which a renewal or another run revives, and which ends
after a while without one. All times are the store's, so that no two clocks have to agree.
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
LOOKED_AT_ONCE: Final = 500  # leases

Kind = Literal["stalled", "revived", "lost"]


class Lease(Struct, frozen=True):
    """That a run of a job is alive."""

    job_id: str
    run: Run

    def __str__(self) -> str:
        return f"{self.job_id} {self.run}"

    @classmethod
    def parse(cls, text: str) -> Lease:
        """The lease that a text stands for.

        Raises:
            ValueError: it stands for none.
        """
        job_id, _, run = text.partition(" ")
        return cls(job_id, Run.parse(run))


class Finding(Struct, frozen=True):
    """What has become of a run, and is to be said of it."""

    kind: Kind
    lease: Lease


class LeaseTimeouts(Struct, frozen=True, kw_only=True):
    """How long things may take, in seconds."""

    lease: float = DEFAULT_LEASE
    lost_after: float = DEFAULT_LOST_AFTER


@runtime_checkable
class SupportsLeaseRenewal(Protocol):
    """What a transport's publisher may be able to do, beside publishing."""

    def renew(self, leases: Sequence[Lease], seconds: float) -> None:
        """Let the leases run for so long from now on.

        Raises:
            PublishFailed: they could not be renewed now.
        """

    def release(self, leases: Sequence[Lease]) -> None:
        """Forget the leases of runs that have ended.

        Raises:
            PublishFailed: it could not be done; they run out.
        """


@runtime_checkable
class SupportsLeaseMonitoring(Protocol):
    """What a transport's source may be able to do, beside subscribing."""

    async def scan(self, terms: LeaseTimeouts) -> list[Finding]:
        """What is to be said of runs now; nothing if another process looks after them.

        After an interruption nothing is found for as long as a lease: whoever lives renews it.

        Raises:
            TransportUnavailable: the store cannot be asked.
        """

    async def acknowledge(self, findings: Sequence[Finding], terms: LeaseTimeouts) -> None:
        """Say that it has been said.

        Raises:
            TransportUnavailable: the store cannot be told; it is found again.
        """

    async def publish(self, batch: Sequence[Outgoing]) -> None:
        """Publish events of this side.

        Raises:
            PublishFailed: they could not be stored now.
        """


class InMemoryLeases:
    """Leases in memory, by the rules of ``leases.lua``."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._running: dict[Lease, float] = {}  # until when
        self._stalled: dict[Lease, float] = {}  # until when it may be
        self._looked_at = float("-inf")
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

    def judges(self, lease: float) -> bool:
        """Return whether a lease has passed since the last interruption."""
        return self._clock() - self._since >= lease and self._looked_at > float("-inf")

    def interrupt(self) -> None:
        """Find nothing until a lease has passed after the next look: no renewal could arrive."""
        self._looked_at = float("-inf")

    def scan(self, terms: LeaseTimeouts) -> list[Finding]:
        now = self._clock()
        if now - self._looked_at > terms.lease / 2:
            self._since = now
        self._looked_at = now
        if not self.judges(terms.lease):
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
        return found[:LOOKED_AT_ONCE]

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
