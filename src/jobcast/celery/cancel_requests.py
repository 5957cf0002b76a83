"""Act on requests to cancel jobs, in the main process of a worker.

A message that no child of the pool has taken yet is discarded at once. A run is terminated if it
goes on for too long after the request.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

from celery import signals, states
from celery.backends.base import DisabledBackend

from jobcast.celery.background import background
from jobcast.celery.cancelled import cause_of
from jobcast.celery.pools import can_terminate
from jobcast.celery.request import JobRequest, latest_request
from jobcast.publishing.cancellation import observe_requests
from jobcast.publishing.identity import job_id_of
from jobcast.publishing.notice_board import create_board
from jobcast.publishing.runtime import get_runtime
from jobcast.transports.cancellation import Cancellation

KILL_DELAY: Final = 5.0  # seconds from SIGTERM to SIGKILL
MAX_UNRECEIVED: Final = 10_000  # cancelled jobs to remember whose message this worker may get
#: States of a task that no worker runs.
NOT_RUNNING: Final = frozenset(
    {states.PENDING, states.RECEIVED, states.RETRY, states.REJECTED}
)  # as in Celery's ``revoke``

logger = logging.getLogger(__name__)


class CancelRequests:
    """The requests that a worker has learned of.

    Any thread may call :meth:`learn`. The rest runs in the loop of the consumer, because Celery's
    requests and result backends are not thread-safe.

    Args:
        consumer: Celery's consumer.
    """

    def __init__(self, consumer: Any) -> None:
        self.consumer = consumer
        self._unreceived: OrderedDict[str, Cancellation] = OrderedDict()

    def learn(self, cancellation: Cancellation) -> None:
        """Pass a request on to the pool, and handle it in the consumer's loop."""
        if cancellation.outcome == "already_ended":
            return
        create_board().post(cancellation)
        self.consumer.call_soon(self._guarded, self._handle, cancellation)
        if self.consumer.pool.is_green:
            # The consumer's loop waits while its pool of greenlets is full; the timer does not.
            self._call_after(0, self._limit_run, cancellation)

    def discard_if_cancelled(self, request: JobRequest) -> None:
        """Discard a message that this worker receives after the request to cancel its job."""
        cancellation = self._unreceived.get(job_id_of(request.id))
        if cancellation is not None and request.is_covered_by(cancellation):
            self._discard(request, cancellation)

    def _handle(self, cancellation: Cancellation) -> None:
        request = latest_request(cancellation.job_id)
        if request is None or not request.is_covered_by(cancellation) or request.is_over:
            if cancellation.outcome == "cancelled":
                self._remember(cancellation)
                mark_unreceived(self.consumer.app, cancellation)
        elif not request.has_begun:
            self._discard(request, cancellation)
        elif cancellation.outcome == "cancelled" and not request.time_start:
            # The message waits for a free thread, which then does not run it.
            mark_unreceived(self.consumer.app, cancellation)
        else:
            self._limit(request, cancellation)

    def _limit_run(self, cancellation: Cancellation) -> None:
        request = latest_request(cancellation.job_id)
        if request is not None and request.is_running and request.is_covered_by(cancellation):
            self._limit(request, cancellation)

    def _remember(self, cancellation: Cancellation) -> None:
        self._unreceived[cancellation.job_id] = cancellation
        while len(self._unreceived) > MAX_UNRECEIVED:
            self._unreceived.popitem(last=False)

    def _discard(self, request: JobRequest, cancellation: Cancellation) -> None:
        """End a request that the pool has not taken, as Celery's ``revoke`` does."""
        request.cancellation = cancellation
        logger.info(
            "job %s: discarding its message, because %s",
            cancellation.job_id, cause_of(request.cancelled_error),
        )  # fmt: skip
        request.discard()

    def _limit(self, request: JobRequest, cancellation: Cancellation) -> None:
        """Terminate a run if it goes on after its grace."""
        if request.cancellation is not None:
            return
        request.cancellation = cancellation
        grace = request.task.cancel_grace
        logger.info(
            "job %s: asking its run to stop, because %s",
            cancellation.job_id, cause_of(request.cancelled_error),
        )  # fmt: skip
        if grace is not None:
            self._call_after(grace, self._stop, request)

    def _stop(self, request: JobRequest) -> None:
        if request.is_over:
            return
        job_id, grace, pool = request.id, request.task.cancel_grace, self.consumer.pool
        if not can_terminate(pool):
            logger.warning(
                "job %s: its run goes on, %g s after it was asked to stop; this worker's pool"
                " cannot terminate it (prefork and gevent can)", job_id, grace,
            )  # fmt: skip
            return
        logger.warning(
            "job %s: terminating its run, which went on for %g s after it was asked to stop;"
            " cancel_grace of task %s sets the time", job_id, grace, request.task.name,
        )  # fmt: skip
        # Celery may fail to store the outcome after it has sent the signal.
        self._call_after(KILL_DELAY, request.kill, pool, request.worker_pid)
        request.terminate(pool, signal="TERM")

    def _call_after(self, seconds: float, function: Callable[..., None], *args: Any) -> None:
        self.consumer.timer.call_after(seconds, self._guarded, (function, *args))

    def _guarded(self, function: Callable[..., None], *args: Any) -> None:
        try:
            function(*args)
        except Exception:
            # A backend or a broker may raise any exception; it must not end the consumer's loop.
            logger.exception(
                "could not act on a request to cancel a job; its run ends at its next cancellation"
                " point, or its message is discarded when its turn comes"
            )


def mark_unreceived(app: Any, cancellation: Cancellation) -> None:
    """Store in the result backend that a job is revoked whose message no worker runs.

    Its chord and its errbacks follow when a worker receives the message.
    """
    backend = app.backend
    if app.conf.task_ignore_result or isinstance(backend, DisabledBackend):
        return
    if backend.as_uri() == "rpc://":  # a result can be stored with the message only
        return
    if backend.get_state(cancellation.job_id) in NOT_RUNNING:
        backend.mark_as_revoked(cancellation.job_id, cancellation.message or "cancelled")


_current: list[CancelRequests] = []  # of the worker of this process; at most one


def begin(consumer: Any) -> None:
    """Learn of the requests to cancel jobs that the consumer of this process receives."""
    if not _current or _current[0].consumer is not consumer:
        _current[:] = [CancelRequests(consumer)]
        background.call(_listen, consumer.app.conf)


def _listen(conf: Any) -> None:
    runtime = get_runtime(conf)
    if runtime is not None:
        runtime.listen()


def _learn(cancellation: Cancellation) -> None:
    for requests in _current:
        requests.learn(cancellation)


def _received(request: Any, **_: object) -> None:
    if isinstance(request, JobRequest) and request.is_job:
        request.is_received = True
        for requests in _current:
            requests.discard_if_cancelled(request)
        if request.eta is not None and not request.is_over:
            request.report_scheduled()


def _end(**_: object) -> None:
    _current.clear()


observe_requests(_learn)
signals.task_received.connect(_received, weak=False)
signals.worker_shutdown.connect(_end, weak=False)
