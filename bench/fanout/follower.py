"""What the clients of both interfaces check of their events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


class Follower:
    """The number of the next event of a client, and the latencies of its events.

    Args:
        count_event: called for each event.
        latencies: the list for the latencies in nanoseconds; None to measure none.
    """

    def __init__(self, count_event: Callable[[], None], latencies: list[int] | None) -> None:
        self.next = 0
        self.disorder = 0
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._count_event = count_event
        self._latencies = latencies

    def handle_event(self, number: int, sent: int) -> None:
        """Check the number of an event, and note its latency."""
        if number != self.next:
            self.disorder += 1
        self.next = number + 1
        if self._latencies is not None:
            self._latencies.append(time.monotonic_ns() - sent)
        self._count_event()

    def set_ready(self) -> None:
        if not self.ready.done():
            self.ready.set_result(None)

    def set_failed(self, error: Exception) -> None:
        if not self.ready.done():
            self.ready.set_exception(error)
