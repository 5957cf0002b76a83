"""Whether the Socket.IO processes receive what a publisher sends to an exchange of RabbitMQ."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from kombu.exceptions import KombuError

UNHEARD: Final = 30.0  # seconds that events wait for a process that listens, if there was one
UNKNOWN: Final = 8.0  # seconds that they wait for one if it is unknown whether there was one
SETTLE: Final = 3.0  # seconds that processes may need to bind their queues after the first one
CERTAIN: Final = 1.0  # seconds after a message that a queue got: the next ones go without a note

logger = logging.getLogger(__name__)


class Unheard(KombuError):
    """Processes that should receive what is published may not receive it now."""


class Audience:
    """The processes that listen to an exchange, as one publisher knows them.

    A process that listens has a durable queue. Without one there is no such process, or somebody
    has deleted the exchange, and the processes are about to bind their queues again, one of them
    before the others.

    Args:
        exchange: its name.
        clock: seconds.
    """

    def __init__(self, exchange: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._exchange = exchange
        self._clock = clock
        self._was_there = False
        self._was_missed = False  # nobody waits any more
        self._missing_since: float | None = None
        self._back_since: float | None = None
        self._reached_at: float | None = None

    @property
    def is_doubtful(self) -> bool:
        """Whether a note should go first, to find out whether a queue is bound.

        If a queue is bound while events are published, it gets only the last of them, which then
        wait in the receiver until all are published again.
        """
        if self._was_missed:
            return False
        is_recent = self._reached_at is not None and self._clock() - self._reached_at < CERTAIN
        return self._missing_since is not None or not is_recent

    def lose(self) -> None:
        """Note that the exchange is gone, and with it all bindings."""
        if self._missing_since is None:
            self._missing_since = self._clock()
        self._back_since = None

    def check(self, *, reached: bool, may_repeat: bool) -> None:
        """Let events wait for those that listened a moment ago.

        A new publisher cannot know of any: it waits until they would have bound their queues again.

        Args:
            reached: whether a queue got everything.
            may_repeat: whether the receivers recognise what is published again.

        Raises:
            Unheard: the events have to be published later, or again.
        """
        if reached:
            self._wait_for_the_rest(may_repeat=may_repeat)
        else:
            self._wait_for_the_first(may_repeat=may_repeat)

    def _wait_for_the_first(self, *, may_repeat: bool) -> None:
        self.lose()
        if self._was_missed or self._missing_since is None:
            return
        if not self._was_there and not may_repeat:
            return
        patience = UNHEARD if self._was_there else UNKNOWN
        if self._clock() - self._missing_since < patience:
            raise Unheard(f"no Socket.IO process listens to the exchange {self._exchange}")
        self._was_there, self._was_missed = False, True
        logger.warning(
            "no Socket.IO process has listened to the exchange %s for %d s: what jobs publish"
            " is dropped until one does", self._exchange, patience,
        )  # fmt: skip

    def _wait_for_the_rest(self, *, may_repeat: bool) -> None:
        if self._missing_since is not None and not self._was_missed:
            now = self._clock()
            if self._back_since is None:
                self._back_since = now
            if may_repeat and now - self._back_since < SETTLE:
                raise Unheard(
                    f"Socket.IO processes bind their queues to the exchange {self._exchange} again"
                )
        self._was_there, self._was_missed, self._reached_at = True, False, self._clock()
        self._missing_since = self._back_since = None
