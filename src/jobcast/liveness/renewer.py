"""Renew the leases of a process's runs for as long as the process lives."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence, Set
from typing import Final, Protocol

from jobcast.transports import Outgoing, TransportPublisher
from jobcast.transports.leases import Lease, SupportsLeaseRenewal, is_reservation

RENEWALS: Final = 3  # renewals per lease duration, so that a failed one does no harm
MAX_ENDED: Final = 10_000  # leases to remember for release after an outage
MAX_RELEASED: Final = 10_000  # leases to remember that were released before their events were sent
RETRY_DELAY: Final = 1.0  # seconds after a failed renewal

logger = logging.getLogger(__name__)


class Sidecar(Protocol):
    def update(self, leases: Set[Lease]) -> None: ...
    def renewed(self, at: float) -> None: ...
    def detach(self) -> None: ...
    def close(self) -> None: ...


class LeaseRenewer:
    """The leases of the runs that this process publishes, or observes in other processes.

    The publisher's thread calls :meth:`renew_and_release`. Any thread may call :meth:`hold` and
    :meth:`release`.

    Args:
        transport: the store of the leases, if it supports them.
        seconds: the duration of a lease.
        sidecar: a process that renews the leases while this process cannot.
    """

    def __init__(
        self, transport: TransportPublisher, seconds: float, sidecar: Sidecar | None = None
    ) -> None:
        self._sidecar = sidecar
        self._holder = transport if isinstance(transport, SupportsLeaseRenewal) else None
        self._seconds = seconds
        self._running: set[Lease] = set()
        self._new: set[Lease] = set()  # leases of runs that begin, until they are stored
        self._foreign: deque[Lease] = deque()  # new leases of runs in other processes
        self._held: set[Lease] = set()  # leases of runs in other processes
        self._released: deque[Lease] = deque(maxlen=MAX_RELEASED)
        self._ended: list[Lease] = []
        self._renew_at = time.monotonic()
        self._has_run = False
        self._failing_since: float | None = None
        self._has_warned = False
        #: Returns the leases of the runs that are now active in other processes of this worker.
        self.elsewhere: Callable[[], Iterable[Lease]] | None = None

    @property
    def is_supported(self) -> bool:
        """Whether the transport has leases."""
        return self._holder is not None

    @property
    def due_in(self) -> float | None:
        """Seconds until the next renewal; None if there is no lease to renew."""
        if self._holder is None or not (
            self._running or self._new or self._foreign or self.elsewhere
        ):
            return None
        return max(0.0, self._renew_at - time.monotonic())

    def hold(self, lease: Lease) -> None:
        """Renew the lease of a run whose events another process of this worker publishes."""
        self._foreign.append(lease)

    def release(self, lease: Lease) -> None:
        """Release the lease of a reservation, whose event may not be sent yet."""
        self._released.append(lease)

    def renew_soon(self) -> None:
        """Renew all leases with the next call of :meth:`renew_and_release`."""
        self._renew_at = time.monotonic()

    def begin(self, events: Sequence[Outgoing]) -> None:
        """Add the leases of runs and reservations that begin, before their events are published.

        A run that ends in the same batch has a lease, too: a transport may store a part of a batch.
        """
        for outgoing in events if self._holder is not None else ():
            if _begins(outgoing):
                lease = _lease_of(outgoing)
                self._running.add(lease)
                self._new.add(lease)

    def end(self, events: Sequence[Outgoing]) -> None:
        """Release the leases of runs that have ended, after their events are stored."""
        for outgoing in events if self._holder is not None else ():
            if _ends(outgoing):
                lease = _lease_of(outgoing)
                self._running.discard(lease)
                self._ended.append(lease)

    def abandon(self, leases: Iterable[Lease]) -> None:
        """Let the leases of runs expire whose ending this process has lost."""
        self._running.difference_update(leases)

    def renew_and_release(self) -> None:
        """Renew and release the leases that are due. Those of runs that begin are always due."""
        if self._holder is None:
            return
        now = time.monotonic()
        due = now >= self._renew_at
        self._end_released()
        foreign = {self._foreign.popleft() for _ in range(len(self._foreign))}
        self._held |= foreign
        ended, self._ended = self._ended, []
        self._new.difference_update(ended)
        self._held.difference_update(ended)
        leases = self._new | foreign
        if due:
            leases |= self._running | self._find_elsewhere()
        leases.difference_update(ended)
        if self._sidecar is not None and self._runs_tasks_itself:
            self._sidecar.update(self._running | self._held)
        try:
            if ended:
                self._holder.release(ended)
                ended = []  # only once: a transport keeps some of them, which have to expire
            if leases:
                self._holder.renew(sorted(leases, key=str), self._seconds)
        except Exception as exc:
            # A transport may raise any exception; it must not end the publisher's thread. The next
            # call stores the leases of runs that begin; after the outage, all are renewed.
            self._warn_when_overdue(now, exc)
            self._ended = [*ended, *self._ended][-MAX_ENDED:]
            self._renew_at = now + RETRY_DELAY
        else:
            self._new.clear()
            # A release that succeeds says nothing: some transports only queue it.
            if leases or not (self._running or self._held):
                self._failing_since, self._has_warned = None, False
            if due:
                self._renew_at = now + self._seconds / RENEWALS
                if self._sidecar is not None:
                    self._sidecar.renewed(now)

    def _end_released(self) -> None:
        """End the released leases whose events have been sent, and keep the others."""
        for _ in range(len(self._released)):
            lease = self._released.popleft()
            if lease in self._running:
                self._running.discard(lease)
                self._ended.append(lease)
            else:
                self._released.append(lease)

    def _warn_when_overdue(self, now: float, exc: Exception) -> None:
        """Warn once for each outage, as soon as followers may see its effect."""
        if self._failing_since is None:
            self._failing_since = now
        if now - self._failing_since >= self._seconds and not self._has_warned:
            self._has_warned = True
            logger.warning(
                "could not renew the leases of %d running jobs for %.0f s (%s): they may be shown"
                " as stalled until it succeeds; JOBCAST_LOST_AFTER sets when they end as lost",
                len(self._running | self._held), now - self._failing_since, exc,
            )  # fmt: skip

    def detach(self) -> None:
        """Detach from the sidecar in a forked process; it belongs to the parent."""
        if self._sidecar is not None:
            self._sidecar.detach()

    def close(self) -> None:
        if self._sidecar is not None:
            self._sidecar.close()

    @property
    def _runs_tasks_itself(self) -> bool:
        """Whether this is the main process of a worker that runs tasks in its own process."""
        if self.elsewhere is not None and self._running:
            self._has_run = True
        return self._has_run

    def _find_elsewhere(self) -> set[Lease]:
        """Return the leases of active runs in other processes.

        Leases of ended runs are no longer renewed. The process that publishes an ending releases
        the lease when the ending is stored. If that process dies before, the lease expires.
        """
        self._held = set(self.elsewhere()) if self.elsewhere else set()
        return self._held


def _lease_of(outgoing: Outgoing) -> Lease:
    return Lease(outgoing.job_id, outgoing.run)


def _begins(outgoing: Outgoing) -> bool:
    reserves = outgoing.state == "queued" and is_reservation(outgoing.run)
    return reserves or (outgoing.state == "started" and bool(outgoing.run.delivery))


def _ends(outgoing: Outgoing) -> bool:
    if outgoing.requires:
        return False  # an event of a message that waits, which may be late
    goes_on = outgoing.state in (None, "started") or _begins(outgoing)
    return bool(outgoing.run.delivery) and not goes_on
