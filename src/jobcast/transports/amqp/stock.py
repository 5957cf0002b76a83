"""Copies of events for a stock python-socketio server (``?channel=NAME``)."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

from jobcast.transports.amqp.names import stock_exchange
from jobcast.transports.base import Outgoing

MAX_SENT: Final = 10_000  # copies of held events to remember
PAUSE: Final = 1.0  # seconds without copies after the broker has refused one

logger = logging.getLogger(__name__)


class StockChannel:
    """The exchange of a stock server, to which a publisher sends each event once.

    The events exchange is not bound to it: a stock server's queue would hide that no server process
    of jobcast receives an event. An event that waits for these processes is published again, and
    its copy is not. Copies that the broker refuses are dropped, and the events are published.

    Args:
        name: the name of the channel.
        clock: returns seconds.
    """

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.exchange = stock_exchange(name)
        self.is_declared = False  # on the publisher's connection
        self._clock = clock
        self._refused_at: float | None = None
        self._sent: OrderedDict[int, None] = OrderedDict()  # numbers of held events

    @property
    def is_paused(self) -> bool:
        """Whether the broker has just refused a copy."""
        return self._refused_at is not None and self._clock() - self._refused_at < PAUSE

    def refuse(self, exc: Exception) -> None:
        """Record that the broker refuses copies."""
        logger.log(
            logging.WARNING if self._refused_at is None else logging.DEBUG,
            "could not copy events to the exchange %s (%s): its stock servers miss them; trying"
            " again with later events", self.exchange.name, exc,
        )  # fmt: skip
        self._refused_at = self._clock()

    def unsent(self, batch: Sequence[Outgoing]) -> list[Outgoing]:
        """Return the events without a copy."""
        return [outgoing for outgoing in batch if outgoing.number not in self._sent]

    def add(self, batch: Sequence[Outgoing]) -> None:
        """Record that the stock server has copies of these events."""
        self._refused_at = None
        self._sent.update((outgoing.number, None) for outgoing in batch)
        while len(self._sent) > MAX_SENT:
            self._sent.popitem(last=False)

    def discard(self, batch: Sequence[Outgoing]) -> None:
        """Forget events that are not published again."""
        for outgoing in batch:
            self._sent.pop(outgoing.number, None)
