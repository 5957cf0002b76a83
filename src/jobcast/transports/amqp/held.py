"""Events that wait for earlier ones: RabbitMQ keeps only the order of each publisher."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from jobcast.transports.base import Outgoing, Predecessor
from jobcast.transports.record import Records

HELD_TIMEOUT: Final = 10.0  # seconds that an event waits for an earlier event

logger = logging.getLogger(__name__)


class HeldEvents:
    """Passes events on in order: an event waits, for a bounded time, for the one it follows.

    Args:
        records: the history with the events that were passed on.
        store: receives each event in order, with the id of its publisher, and adds it to the
            history.
    """

    def __init__(self, records: Records, store: Callable[[Outgoing, str], object]) -> None:
        self._records = records
        self._store = store
        self._held: dict[str, dict[str, deque[Outgoing]]] = {}  # by job and publisher
        self._listening_since = time.time()

    def __len__(self) -> int:
        """Return the number of jobs with waiting events."""
        return len(self._held)

    def receive(self, outgoing: Outgoing, publisher: str) -> None:
        """Store an event, or hold it until earlier ones arrive."""
        held = self._held.get(outgoing.job_id, {}).get(publisher)
        if held and outgoing.number >= held[0].number:
            _insert(outgoing, held)
        elif self._records.has_to_wait(outgoing, publisher) and self._remaining_wait(outgoing) > 0:
            self._hold(deque([outgoing, *(held or ())]), publisher)
        else:
            self._store(outgoing, publisher)
            self._release(outgoing.job_id)

    def _remaining_wait(self, outgoing: Outgoing) -> float:
        """Return for how many seconds the event may wait for an earlier one.

        An event from before this process listened arrives only if it was delayed.
        """
        published_at = Predecessor.parse(outgoing.after).published_at
        if self._records.get(outgoing.job_id) or published_at >= self._listening_since:
            return HELD_TIMEOUT
        return HELD_TIMEOUT - (time.time() - self._listening_since)

    def _hold(self, events: deque[Outgoing], publisher: str) -> None:
        """Hold events of a job until earlier ones arrive, for a bounded time."""
        first = events[0]
        self._held.setdefault(first.job_id, {})[publisher] = events
        asyncio.get_running_loop().call_later(
            self._remaining_wait(first), self._give_up, first, publisher
        )

    def _give_up(self, first: Outgoing, publisher: str) -> None:
        events = self._held.get(first.job_id, {}).get(publisher)
        if events and events[0] is first:
            logger.info(
                "job %s: gave up waiting %.0f s for earlier events; delivering newer events",
                first.job_id, HELD_TIMEOUT,
            )  # fmt: skip
            self._store(events.popleft(), publisher)
            self._resume(first.job_id, publisher)
            self._release(first.job_id)

    def _release(self, job_id: str) -> None:
        """Store events that no longer wait; each of them may release others."""
        while (publisher := self._next_released(job_id)) is not None:
            self._resume(job_id, publisher)

    def _next_released(self, job_id: str) -> str | None:
        held = self._held.get(job_id, {}).items()
        free = (name for name, events in held if not self._records.has_to_wait(events[0], name))
        return next(free, None)

    def _resume(self, job_id: str, publisher: str) -> None:
        """Store a publisher's held events, up to the next one that has to wait."""
        events = self._held[job_id].pop(publisher)
        if not self._held[job_id]:
            del self._held[job_id]
        while events and not self._records.has_to_wait(events[0], publisher):
            self._store(events.popleft(), publisher)
        if events:
            self._hold(events, publisher)


def _insert(outgoing: Outgoing, events: deque[Outgoing]) -> None:
    """Insert an event in its place among a publisher's held events, unless it is there already."""
    index = len(events)
    while events[index - 1].number > outgoing.number:
        index -= 1
    if events[index - 1].number < outgoing.number:
        events.insert(index, outgoing)
