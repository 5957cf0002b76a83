"""Calls in the main process of a worker after some time."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class TimedCall:
    """A call that handles the cancellation of a job."""

    due: float  # of the monotonic clock
    job_id: str
    function: Callable[..., object]
    args: tuple[Any, ...]
    entry: Any = None  # of the timer


class TimedCalls:
    """Calls by the timer of a consumer.

    Celery before 5.7 clears the timer when the connection to the broker is lost. :meth:`restore`
    schedules the calls again.

    Args:
        consumer: Celery's consumer.
    """

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer
        self._connection = consumer.connection
        self._pending: set[TimedCall] = set()

    def call_after(
        self, seconds: float, job_id: str, function: Callable[..., object], *args: Any
    ) -> None:
        call = TimedCall(time.monotonic() + seconds, job_id, function, args)
        self._pending.add(call)
        self._schedule(call)

    def restore(self) -> None:
        """Schedule the calls again if the consumer has a new connection."""
        if self._consumer.connection is not self._connection:
            self._connection = self._consumer.connection
            for call in tuple(self._pending):
                self._schedule(call)

    def _schedule(self, call: TimedCall) -> None:
        timer, seconds = self._consumer.timer, max(call.due - time.monotonic(), 0)
        if call.entry is not None:
            timer.cancel(call.entry)
        call.entry = timer.call_after(seconds, self._run, (call,))

    def _run(self, call: TimedCall) -> None:
        if call in self._pending:  # it may be scheduled twice, in a thread
            self._pending.discard(call)
            call_guarded(call.job_id, call.function, *call.args)


def call_guarded(job_id: str, function: Callable[..., object], *args: Any) -> None:
    """Call a function that handles the cancellation of a job, and log its errors.

    A backend or a broker may raise any exception; it must not end the consumer's loop.
    """
    try:
        function(*args)
    except Exception:
        logger.exception(
            "job %s: could not handle its cancellation; a run ends at its next cancellation"
            " point, or at its start", job_id,
        )  # fmt: skip
