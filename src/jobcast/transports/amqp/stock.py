"""Copies of events for a stock python-socketio server (``?channel=NAME``)."""

from __future__ import annotations

import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

from jobcast.transports.amqp.names import stock_exchange
from jobcast.transports.base import Outgoing

MAX_SENT: Final = 10_000  # copies of held events to remember
PAUSE: Final = 10.0  # seconds without copies after a refusal, which costs a connection
WARNING_INTERVAL: Final = 300.0  # seconds between two warnings

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
        self._paused_until = self._warned_until = -math.inf
        self._sent: OrderedDict[int, None] = OrderedDict()  # numbers of held events

    @property
    def is_paused(self) -> bool:
        """Whether the broker has just refused a copy."""
        return self._clock() < self._paused_until

    def refuse(self, exc: Exception) -> None:
        """Record that the broker refuses copies."""
        at = self._clock()
        is_new = at >= self._warned_until
        logger.log(
            logging.WARNING if is_new else logging.DEBUG,
            "could not copy events to the exchange %s (%s): its stock servers miss events for %g s",
            self.exchange.name, exc, PAUSE,
        )  # fmt: skip
        self._paused_until = at + PAUSE
        if is_new:
            self._warned_until = at + WARNING_INTERVAL

    def unsent(self, batch: Sequence[Outgoing]) -> list[Outgoing]:
        """Return the events without a copy."""
        return [outgoing for outgoing in batch if outgoing.number not in self._sent]

    def add(self, batch: Sequence[Outgoing]) -> None:
        """Record that the stock server has copies of these events."""
        self._sent.update((outgoing.number, None) for outgoing in batch)
        while len(self._sent) > MAX_SENT:
            self._sent.popitem(last=False)

    def discard(self, batch: Sequence[Outgoing]) -> None:
        """Forget events that are not published again."""
        for outgoing in batch:
            self._sent.pop(outgoing.number, None)
