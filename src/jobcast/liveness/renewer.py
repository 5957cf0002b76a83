"""The leases of the runs that a process knows of: renewed for as long as the process lives."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence, Set
from typing import Final, Protocol

from jobcast.transports import Outgoing, TransportPublisher
from jobcast.transports.leases import Lease, SupportsLeaseRenewal

RENEWALS: Final = 3  # a lease, so that one that fails does no harm
MAX_ENDED: Final = 10_000  # leases that are to be released when the transport is back
RETRY_DELAY: Final = 1.0  # seconds after a renewal that failed

logger = logging.getLogger(__name__)


class Sidecar(Protocol):
    def update(self, leases: Set[Lease]) -> None: ...
    def renewed(self, at: float) -> None: ...
    def leave(self) -> None: ...
    def close(self) -> None: ...


class LeaseRenewer:
    """Tended by the publisher's thread; any thread may add one.

    Args:
        transport: where they are kept, if it can.
        seconds: how long one lasts without being renewed.
        sidecar: renews them too, while this process cannot.
    """

    def __init__(
        self, transport: TransportPublisher, seconds: float, sidecar: Sidecar | None = None
    ) -> None:
        self._sidecar = sidecar
        self._holder = transport if isinstance(transport, SupportsLeaseRenewal) else None
        self._seconds = seconds
        self._running: set[Lease] = set()
        self._new: deque[Lease] = deque()
        self._foreign: deque[Lease] = deque()  # new, and of runs elsewhere
        self._held: set[Lease] = set()  # of runs elsewhere
        self._ended: list[Lease] = []
        self._renew_at = time.monotonic()
        self._has_run = False
        self._failing_since: float | None = None
        self._has_warned = False
        #: Runs that other processes of this worker speak of, and that are alive now.
        self.elsewhere: Callable[[], Iterable[Lease]] | None = None

    @property
    def due_in(self) -> float | None:
        """Seconds until there is something to do; None if there is nothing."""
        if self._holder is None or not (
            self._running or self._new or self._foreign or self.elsewhere
        ):
            return None
        return max(0.0, self._renew_at - time.monotonic())

    def hold(self, lease: Lease) -> None:
        """Renew a lease of a run that another process of this worker speaks of."""
        self._foreign.append(lease)

    def begin(self, events: Sequence[Outgoing]) -> None:
        """Take into account, before it is said, that runs have started.

        Those of which the end is said in the same breath need no lease.
        """
        if self._holder is None:
            return
        ended = {_lease_of(outgoing) for outgoing in events if _ends(outgoing)}
        for outgoing in events:
            if outgoing.state == "started" and outgoing.run.delivery:
                lease = _lease_of(outgoing)
                if lease not in ended:
                    self._running.add(lease)
                    self._new.append(lease)

    def end(self, events: Sequence[Outgoing]) -> None:
        """Take into account, once it is stored, that runs have ended."""
        for outgoing in events if self._holder is not None else ():
            if _ends(outgoing):
                lease = _lease_of(outgoing)
                self._running.discard(lease)
                self._ended.append(lease)

    def tend(self) -> None:
        """Renew and release what is due."""
        if self._holder is None:
            return
        now = time.monotonic()
        due = now >= self._renew_at
        leases = {self._new.popleft() for _ in range(len(self._new))}
        foreign = {self._foreign.popleft() for _ in range(len(self._foreign))}
        self._held |= foreign
        leases |= foreign
        if due:
            leases |= self._running | self._look_elsewhere()
        ended, self._ended = self._ended, []
        leases.difference_update(ended)
        self._held.difference_update(ended)
        if self._sidecar is not None and self._runs_tasks_itself:
            self._sidecar.update(self._running | self._held)
        try:
            if ended:
                self._holder.release(ended)
            if leases:
                self._holder.renew(sorted(leases, key=str), self._seconds)
        except Exception as exc:
            # Whatever is wrong with a transport, the publisher's thread goes on. All that still
            # run by then are renewed when it is back.
            self._warn_when_overdue(now, exc)
            self._ended = [*ended, *self._ended][-MAX_ENDED:]
            self._renew_at = now + RETRY_DELAY
        else:
            self._failing_since, self._has_warned = None, False
            if due:
                self._renew_at = now + self._seconds / RENEWALS
                if self._sidecar is not None:
                    self._sidecar.renewed(now)

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

    def leave(self) -> None:
        """Leave them to the parent, in a process that was forked."""
        if self._sidecar is not None:
            self._sidecar.leave()

    def close(self) -> None:
        if self._sidecar is not None:
            self._sidecar.close()

    @property
    def _runs_tasks_itself(self) -> bool:
        """Whether this is the main process of a worker whose tasks are not in other processes."""
        if self.elsewhere is not None and self._running:
            self._has_run = True
        return self._has_run

    def _look_elsewhere(self) -> set[Lease]:
        """What the other processes are doing now. What they do no more is released."""
        here = set(self.elsewhere()) if self.elsewhere else set()
        self._ended += self._held - here - self._running
        self._held = here
        return here


def _lease_of(outgoing: Outgoing) -> Lease:
    return Lease(outgoing.job_id, outgoing.run)


def _ends(outgoing: Outgoing) -> bool:
    return outgoing.state not in (None, "started") and bool(outgoing.run.delivery)
