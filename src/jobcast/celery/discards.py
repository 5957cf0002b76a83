"""End the messages of cancelled jobs that the pool has not taken.

A worker may hold thousands of them, such as tasks with a countdown, and the end of each needs
several round trips to the result backend. The loop of the main process also serves the pool, the
heartbeats and the timers, so it ends the messages in short slices.
"""

from __future__ import annotations

import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

from celery.worker import state

from jobcast.celery.cancelled import cause_of
from jobcast.celery.request import JobRequest
from jobcast.celery.timed_calls import TimedCalls
from jobcast.transports.cancellation import Cancellation

SLICE: Final = 0.05  # seconds that the loop spends with messages at once
PAUSE: Final = 0.01  # seconds between two slices
MAX_ENDED: Final = 10_000  # ended messages to remember, which may be delivered again

FAILED: Final = (
    "job %s: could not store or acknowledge its end in Celery; a run of its message ends at its"
    " start"
)
UNFINISHED: Final = (
    "job %s: discarded its message, but could not call its errbacks or fail the later steps of its"
    " chain"
)

logger = logging.getLogger(__name__)


class Discards:
    """The messages of a consumer to end.

    Args:
        consumer: Celery's consumer.
        timed_calls: calls of its loop.
        fall_back: a function for messages that could not be ended, whose tasks may run then.
    """

    def __init__(
        self,
        consumer: Any,
        timed_calls: TimedCalls,
        fall_back: Callable[[JobRequest, Cancellation], None],
    ) -> None:
        self._consumer = consumer
        self._timed_calls = timed_calls
        self._fall_back = fall_back
        self._waiting: OrderedDict[Any, tuple[JobRequest, Cancellation]] = OrderedDict()
        self._ended: OrderedDict[Any, Cancellation] = OrderedDict()
        self._is_scheduled = False

    def add(self, request: JobRequest, cancellation: Cancellation) -> None:
        """End a message soon. Its task does not run meanwhile.

        It takes the place of a former delivery of the same message, whose connection may be lost.
        """
        logger.info(
            "job %s: discarding its message, because %s", request.id, cause_of(cancellation.error)
        )
        request.withhold(cancellation)
        self._waiting[request.message_key] = request, cancellation
        if self._consumer.hub is None:
            # Calls of a consumer without an event loop may wait for seconds. Its pool, of threads
            # or greenlets, continues meanwhile.
            self._discard_until(math.inf)
        elif not self._is_scheduled:
            self._schedule(0)

    def ending_of(self, request: JobRequest) -> Cancellation | None:
        """Return the request to cancel the job with which a former delivery has ended it."""
        return self._ended.get(request.message_key)

    def _schedule(self, seconds: float) -> None:
        self._is_scheduled = True
        request, _ = next(iter(self._waiting.values()))
        self._timed_calls.call_after(seconds, request.id, self._discard_some)

    def _discard_some(self) -> None:
        try:
            self._discard_until(time.monotonic() + SLICE)
        finally:
            self._is_scheduled = False
            if self._waiting:
                self._schedule(PAUSE)

    def _discard_until(self, deadline: float) -> None:
        while self._waiting:
            message_key, (request, cancellation) = self._waiting.popitem(last=False)
            began = time.monotonic()
            try:
                request.discard()
            except Exception:
                # A backend or a broker may raise any exception.
                logger.exception(UNFINISHED if request.acknowledged else FAILED, request.id)
                self._release(request, cancellation)
                if time.monotonic() - began > SLICE:
                    self._release_all()  # the backend would let each message wait
            if request.is_over:
                self._ended[message_key] = cancellation
                while len(self._ended) > MAX_ENDED:
                    self._ended.popitem(last=False)
            if time.monotonic() > deadline:
                break

    def _release_all(self) -> None:
        if self._waiting:
            logger.warning(
                "%d more messages of cancelled jobs are not discarded, because the result backend"
                " does not answer; runs of them end at their start", len(self._waiting),
            )  # fmt: skip
        while self._waiting:
            self._release(*self._waiting.popitem()[1])

    def _release(self, request: JobRequest, cancellation: Cancellation) -> None:
        if request.release():
            self._fall_back(request, cancellation)
            if request.was_refused:
                # As Celery's consumer does with a task whose time has come.
                state.task_reserved(request)
                self._consumer.on_task_request(request)
