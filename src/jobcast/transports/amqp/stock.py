"""Copies of events for a stock python-socketio server (``?channel=NAME``)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from jobcast.transports.amqp.names import stock_exchange
from jobcast.transports.base import Outgoing

MAX_SENT: Final = 10_000  # copies of held events to remember


class StockChannel:
    """The exchange of a stock server, to which a publisher sends each event once.

    The events exchange is not bound to it: a stock server's queue would hide that no server process
    of jobcast receives an event. An event that waits for these processes is published again, and
    its copy is not.

    Args:
        name: the name of the channel.
    """

    def __init__(self, name: str) -> None:
        self.exchange = stock_exchange(name)
        self._sent: OrderedDict[int, None] = OrderedDict()  # numbers of held events

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
