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
from dataclasses import dataclass
from typing import Any, Final

from celery.worker import state

from jobcast.celery.cancellable_request import MessageKey
from jobcast.celery.cancelled import cause_of
from jobcast.celery.request import JobRequest
from jobcast.celery.request_registry import requests_of
from jobcast.celery.timed_calls import TimedCalls
from jobcast.transports.cancellation import Cancellation

SLICE: Final = 0.05  # seconds that the loop spends with messages at once
PAUSE: Final = 0.01  # seconds between two slices
AWAY: Final = 5.0  # seconds for which no message waits for a backend that has not answered
MAX_ENDED: Final = 10_000  # ended messages to remember, which may be delivered again

NOT_STORED: Final = (
    "job %s: could not store or acknowledge its end in Celery; the run of its message ends at its"
    " start"
)
NOT_PASSED_ON: Final = (
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
        self._waiting: OrderedDict[MessageKey, Discard] = OrderedDict()
        self._ended: OrderedDict[MessageKey, Cancellation] = OrderedDict()
        self._is_scheduled = False
        self._resumes_at = -math.inf  # of the monotonic clock, after an outage of the backend

    def add(self, request: JobRequest, cancellation: Cancellation) -> None:
        """End a message soon. Its task does not run meanwhile."""
        logger.info(
            "job %s: discarding its message, because %s", request.id, cause_of(cancellation.error)
        )
        request.withhold(cancellation)
        former = self._waiting.pop(request.message_key, None)
        deliveries = [] if former is None else former.deliveries
        self._waiting[request.message_key] = Discard([*deliveries, request], cancellation)
        if self._consumer.hub is None:
            # The calls of a consumer without an event loop may wait for seconds.
            self._discard_until(math.inf)
        elif not self._is_scheduled:
            self._schedule(0, request.id)

    def ending_of(self, request: JobRequest) -> Cancellation | None:
        """Return the request to cancel the job with which a former delivery has ended it."""
        return self._ended.get(request.message_key)

    def _schedule(self, seconds: float, job_id: str) -> None:
        self._is_scheduled = True
        self._timed_calls.call_after(seconds, job_id, self._discard_some, job_id)

    def _discard_some(self, job_id: str) -> None:
        self._is_scheduled = False
        had_messages = bool(self._waiting)
        try:
            self._discard_until(time.monotonic() + SLICE)
        finally:
            if had_messages and not self._is_scheduled:
                # Even if none is left: the loop acknowledges the messages in its next iteration,
                # before which it may wait for its next timer.
                self._schedule(PAUSE, job_id)

    def _discard_until(self, deadline: float) -> None:
        while self._waiting:
            _, discard = self._waiting.popitem(last=False)
            if time.monotonic() < self._resumes_at:
                self._release(discard)
            else:
                self._end(discard)
            if time.monotonic() > deadline:
                break

    def _end(self, discard: Discard) -> None:
        request, began = discard.request, time.monotonic()
        try:
            request.discard()
        except Exception:
            # A backend or a broker may raise any exception.
            logger.exception(NOT_PASSED_ON if request.acknowledged else NOT_STORED, request.id)
        if not request.acknowledged:
            if time.monotonic() - began > SLICE:
                self._pause()
            self._release(discard)
            return
        self._ended[request.message_key] = discard.cancellation
        while len(self._ended) > MAX_ENDED:
            self._ended.popitem(last=False)
        discard.skip_others()

    def _pause(self) -> None:
        self._resumes_at = time.monotonic() + AWAY
        logger.warning(
            "the result backend does not answer; for %g s, no message of a cancelled job is"
            " discarded, and the runs of these messages end at their start", AWAY,
        )  # fmt: skip

    def _release(self, discard: Discard) -> None:
        request = discard.release()
        self._fall_back(request, discard.cancellation)
        if request.was_refused:
            # As Celery's consumer does with a task whose time has come.
            state.task_reserved(request)
            self._consumer.on_task_request(request)


@dataclass
class Discard:
    """A message to end, with all its deliveries so far. The connection of the former may be lost.

    The last delivery stands for the message.
    """

    deliveries: list[JobRequest]
    cancellation: Cancellation

    @property
    def request(self) -> JobRequest:
        return self.deliveries[-1]

    def skip_others(self) -> None:
        """Acknowledge the other deliveries after the last one has ended the job.

        One of them may be a delivery that could not be ended before, and waits for its time.
        """
        known = (other for other in requests_of(self.request.id) if other.repeats(self.request))
        for other in {*self.deliveries[:-1], *known}:
            if not other.has_begun:
                other.skip(self.cancellation)
                other.acknowledge()

    def release(self) -> JobRequest:
        """Let the last delivery run, and none of the others."""
        *former, request = self.deliveries
        for other in former:
            other.release()
            other.skip(self.cancellation)
            if other.was_refused:
                other.acknowledge()
        request.release()
        return request
