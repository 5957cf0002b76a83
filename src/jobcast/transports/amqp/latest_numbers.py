"""Tracks the number of the latest event that a publisher has published of each job."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from msgspec import structs

from jobcast.events import TERMINAL_STATES
from jobcast.transports.base import Outgoing

MAX_JOBS: Final = 10_000  # jobs to track; the one that published least recently is dropped


class LatestNumbers:
    """Chains the events of a job, so that a receiver notices a missing event.

    A queue that is bound while a batch is published gets only the end of the batch. The publisher
    publishes the whole batch again, and the receiver has to wait for it.
    """

    def __init__(self) -> None:
        self._latest: OrderedDict[str, int] = OrderedDict()

    def chain(self, batch: Sequence[Outgoing]) -> list[Outgoing]:
        """Return the events, each with the number of its job's previous event."""
        within: dict[str, int] = {}
        chained: list[Outgoing] = []
        for outgoing in batch:
            previous = within.get(outgoing.job_id) or self._latest.get(outgoing.job_id, 0)
            chained.append(structs.replace(outgoing, previous=previous))
            within[outgoing.job_id] = outgoing.number
        return chained

    def add(self, batch: Sequence[Outgoing]) -> None:
        """Record that the events were published."""
        for outgoing in batch:
            self._latest.pop(outgoing.job_id, None)
            if outgoing.state not in TERMINAL_STATES:
                self._latest[outgoing.job_id] = outgoing.number
        while len(self._latest) > MAX_JOBS:
            self._latest.popitem(last=False)
