"""Tracks whether Socket.IO processes receive the messages published to a RabbitMQ exchange."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from kombu.exceptions import KombuError

from jobcast.transports import canary

RETURN_TIMEOUT: Final = 30.0  # seconds that events wait for known listeners to return
UNKNOWN_TIMEOUT: Final = 8.0  # seconds that they wait if it is unknown whether there were any
# Seconds after a routed message in which no canary is sent first. A server process that has lost
# its binding notices that after half of canary.INTERVAL without a message, so it does not bind its
# queue in the middle of such a batch.
ROUTED_INTERVAL: Final = canary.INTERVAL / 4

logger = logging.getLogger(__name__)


class ListenersMissing(KombuError):
    """Processes that should receive the published events may not receive them now."""


class Audience:
    """The processes that listen to an exchange, as one publisher knows them.

    A listening process has a durable queue. If no queue is bound, either there is no such process,
    or someone has deleted an exchange. In the latter case the processes bind their queues again,
    and then open the :class:`~jobcast.transports.amqp.gate.Gate` for all of them.

    Args:
        exchange: the exchange's name.
        clock: returns seconds.
    """

    def __init__(self, exchange: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._exchange = exchange
        self._clock = clock
        self._had_listeners = False
        self._wait_timed_out = False  # the wait for listeners has timed out
        self._missing_since: float | None = None
        self._reached_at: float | None = None

    @property
    def needs_canary(self) -> bool:
        """Return whether to send a canary first, to find out whether a queue is bound.

        A queue that is bound while a batch is published gets only the end of it. These events then
        wait in the receiver until the whole batch is published again.
        """
        if self._wait_timed_out:
            return False
        is_recent = (
            self._reached_at is not None and self._clock() - self._reached_at < ROUTED_INTERVAL
        )
        return self._missing_since is not None or not is_recent

    def exchange_lost(self) -> None:
        """Record that the exchange is gone, and all bindings with it."""
        if self._missing_since is None:
            self._missing_since = self._clock()

    def check(self, *, reached: bool, may_repeat: bool) -> None:
        """Raise ListenersMissing while events have to wait for listeners that may come back.

        A new publisher does not know whether there were listeners. It waits for as long as
        listeners would need to bind their queues again.

        Args:
            reached: whether every message reached a queue.
            may_repeat: whether the receivers recognise events that are published again.

        Raises:
            ListenersMissing: publish the events later, or again.
        """
        if reached:
            self._had_listeners, self._wait_timed_out = True, False
            self._missing_since, self._reached_at = None, self._clock()
        else:
            self._wait(may_repeat=may_repeat)

    def _wait(self, *, may_repeat: bool) -> None:
        self.exchange_lost()
        if self._wait_timed_out or self._missing_since is None:
            return
        if not self._had_listeners and not may_repeat:
            return
        timeout = RETURN_TIMEOUT if self._had_listeners else UNKNOWN_TIMEOUT
        if self._clock() - self._missing_since < timeout:
            raise ListenersMissing(f"no Socket.IO process listens to the exchange {self._exchange}")
        self._had_listeners, self._wait_timed_out = False, True
        logger.warning(
            "no Socket.IO process has listened to the exchange %s for %d s: published events are"
            " dropped until one does", self._exchange, timeout,
        )  # fmt: skip
