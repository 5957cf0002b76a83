"""Jobs whose events are held until another publisher's earlier events are stored."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final

from msgspec import Struct, structs

from jobcast.transports import Outgoing

HELD_TIMEOUT: Final = 10.0  # seconds that a job waits for events of another publisher

logger = logging.getLogger(__name__)


class Held(Struct):
    """The held events of one job, in order."""

    events: deque[Outgoing]
    since: float | None  # when the wait began, or began again after an outage


class HeldJobs:
    """Held events by job. Later events of a held job are behind them, or in the buffer."""

    def __init__(self) -> None:
        self._jobs: dict[str, Held] = {}

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[str]:
        return iter([*self._jobs])

    def __contains__(self, job_id: object) -> bool:
        return job_id in self._jobs

    @property
    def events(self) -> list[Outgoing]:
        """All held events."""
        return [outgoing for held in self._jobs.values() for outgoing in held.events]

    @property
    def first_events(self) -> list[Outgoing]:
        """The next event of each job."""
        return [held.events[0] for held in self._jobs.values()]

    def hold(self, events: Iterable[Outgoing]) -> None:
        """Hold events, each behind those of its job."""
        now = time.monotonic()
        for outgoing in events:
            self._jobs.setdefault(outgoing.job_id, Held(deque(), now)).events.append(outgoing)

    def hold_if_waiting(self, outgoing: Outgoing) -> bool:
        """Hold an event if its job is held. Return whether it is."""
        held = self._jobs.get(outgoing.job_id)
        if held is not None:
            held.events.append(outgoing)
        return held is not None

    def release(self, job_id: str) -> deque[Outgoing]:
        """Stop holding a job, and return its events."""
        return self._jobs.pop(job_id).events

    def has_timed_out(self, job_id: str) -> bool:
        """Return whether a job has been held for over ``HELD_TIMEOUT``, not counting outages."""
        held, now = self._jobs[job_id], time.monotonic()
        if held.since is None:
            held.since = now
        return now - held.since > HELD_TIMEOUT

    def give_up(self, job_id: str) -> None:
        """Remove the requirement that the first event of a job follows another event."""
        logger.warning(
            "job %s: gave up waiting %.0f s for earlier events from another worker;"
            " publishing newer events", job_id, HELD_TIMEOUT,
        )  # fmt: skip
        events = self._jobs[job_id].events
        events[0] = structs.replace(events[0], after="")

    def pause(self) -> None:
        """Restart the timeouts after an outage, during which no publisher can store events."""
        for held in self._jobs.values():
            held.since = None
