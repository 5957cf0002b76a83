"""Act on requests to cancel jobs, in the main process of a worker.

A message that no child of the pool has taken yet is discarded at once. A run that is still active
after its grace is terminated.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from functools import partial
from typing import Any, Final
from weakref import WeakSet

from celery import signals
from msgspec import structs

from jobcast.celery.background import background
from jobcast.celery.cancelled import cause_of
from jobcast.celery.discards import Discards
from jobcast.celery.pools import can_terminate, runs_in_children
from jobcast.celery.request import JobRequest
from jobcast.celery.request_registry import (
    active_requests,
    is_active,
    latest_request,
    requests_of,
    waiting_deliveries,
)
from jobcast.celery.revoked_marks import revoked_marks
from jobcast.celery.timed_calls import TimedCalls, call_guarded
from jobcast.publishing.cancellation import observe_requests, stop_observing
from jobcast.publishing.identity import job_id_of
from jobcast.publishing.notice_board import create_board
from jobcast.publishing.runtime import get_runtime
from jobcast.transports.cancellation import Cancellation

KILL_DELAY: Final = 5.0  # seconds from SIGTERM to SIGKILL
MAX_UNRECEIVED: Final = 10_000  # cancelled jobs to remember whose message this worker may get

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
        self._stopping: WeakSet[JobRequest] = WeakSet()  # asked to stop
        self.timed_calls = TimedCalls(consumer)
        self._discards = Discards(consumer, self.timed_calls, self._fall_back)

    def learn(self, cancellation: Cancellation) -> None:
        """Pass a request on to the pool, and handle it in the consumer's loop."""
        if cancellation.outcome == "already_ended":
            return
        if cancellation.is_for_later_messages:
            handle = self._handle_kept if cancellation.outcome == "kept" else self._forget
            self.consumer.call_soon(call_guarded, cancellation.job_id, handle, cancellation)
            return
        # The loop may be busy for long, such as with an outage of the broker.
        is_posted = _may_run(cancellation)
        if is_posted:
            create_board().post(cancellation)
        job_id = cancellation.job_id
        self.consumer.call_soon(call_guarded, job_id, self._handle, cancellation, is_posted)
        if self.consumer.pool.is_green:
            # The loop waits while its pool of greenlets is full; the timer does not.
            self.timed_calls.call_after(0, job_id, self._schedule_grace_of_runs, cancellation)

    def discard_if_cancelled(self, request: JobRequest) -> None:
        """Discard a message that this worker receives after the request to cancel its job."""
        run = self._stopping_run_of(request)
        if run is not None and run.cancellation is not None:
            if request.is_covered_by(run.cancellation):
                self._skip(request, run.cancellation)
            return
        ending = self._discards.ending_of(request)
        if ending is not None:
            self._skip(request, ending)
            request.acknowledge()
            return
        cancellation = self._unreceived.get(job_id_of(request.id))
        if cancellation is not None and request.is_covered_by(cancellation):
            self._discard(request, cancellation)

    def _handle(self, cancellation: Cancellation, is_posted: bool) -> None:
        if not is_posted and is_active(cancellation.job_id):
            create_board().post(cancellation)  # the run has begun meanwhile
        runs = self._schedule_grace_of_runs(cancellation)
        waiting = [
            request
            for request in waiting_deliveries(cancellation.job_id)
            if request.is_covered_by(cancellation) and not request.is_skipped
        ]
        latest = latest_request(cancellation.job_id)
        if latest is None or latest.is_over:
            self._remember(cancellation)  # its message may come, such as a redelivery
            if cancellation.outcome == "cancelled" and not (runs or waiting):
                revoked_marks.add(self.consumer.app, cancellation)
        elif not latest.is_covered_by(cancellation):
            self._remember(cancellation)  # the job was sent again
        self._end_waiting(waiting, runs, cancellation)

    def _end_waiting(
        self, waiting: list[JobRequest], runs: list[JobRequest], cancellation: Cancellation
    ) -> None:
        """End a job with one of its deliveries, and do not run the others.

        Args:
            waiting: the deliveries that have not begun.
            runs: the active runs of the job, which have their grace.
            cancellation: the request, which covers all of them.
        """
        ending = [*runs]
        # A delivery that the pool has cannot be discarded. It cannot be skipped either in a child,
        # which does not know of it.
        for request in sorted(waiting, key=lambda request: not request.has_begun):
            if any(map(request.repeats, ending)) and not (
                request.has_begun and runs_in_children(self.consumer.pool)
            ):
                self._skip(request, cancellation)
                continue
            ending.append(request)
            if not request.has_begun:
                self._discard(request, cancellation)
            elif request.cancellation is None:
                # First, because the result backend may fail.
                self._schedule_grace(request, cancellation)
                if cancellation.outcome == "cancelled" and not runs:
                    # The message waits for a free process or thread, which then does not run it.
                    revoked_marks.add(self.consumer.app, cancellation)

    def _schedule_grace_of_runs(self, cancellation: Cancellation) -> list[JobRequest]:
        """Start the grace of all runs that a request covers, and return them."""
        runs = [
            request
            for request in active_requests()
            if isinstance(request, JobRequest)
            and job_id_of(request.id) == cancellation.job_id
            and request.is_covered_by(cancellation)
        ]
        for request in runs:
            if request.cancellation is None:
                self._schedule_grace(request, cancellation)
        return runs

    def _stopping_run_of(self, request: JobRequest) -> JobRequest | None:
        """Return the run of an earlier delivery of a message if the run was asked to stop."""
        for run in requests_of(request.id):
            if run in self._stopping and run.is_running and request.repeats(run):
                return run
        return None

    def _skip(self, request: JobRequest, cancellation: Cancellation) -> None:
        """Let another delivery end the job, whose outcome this one could change."""
        if not request.is_skipped:
            logger.info(
                "job %s: not running its message again, because %s; another delivery ends the job",
                request.id, cause_of(cancellation.error),
            )  # fmt: skip
            request.skip(cancellation)

    def _schedule_grace(self, request: JobRequest, cancellation: Cancellation) -> None:
        """Start the grace of a run when it has begun."""
        if request.time_start and not request.task.cancellable:
            return  # the body is not interrupted
        request.cancellation = cancellation
        self._stopping.add(request)
        request.call_when_accepted(partial(self._accepted, request, cancellation))

    def _remember(self, cancellation: Cancellation) -> None:
        """Remember a request for a message that may come, such as a redelivery."""
        self._unreceived[cancellation.job_id] = cancellation
        self._unreceived.move_to_end(cancellation.job_id)
        while len(self._unreceived) > MAX_UNRECEIVED:
            self._unreceived.popitem(last=False)

    def _handle_kept(self, kept: Cancellation) -> None:
        """Discard a message that the pool has not taken, now or when it comes."""
        waiting = [
            request
            for request in waiting_deliveries(kept.job_id)
            if request.is_covered_by(kept) and not (request.has_begun or request.is_skipped)
        ]
        if waiting and not is_active(kept.job_id):
            self._end_waiting(waiting, [], kept)
            return
        known = self._unreceived.get(kept.job_id)
        if known is None or known.outcome == "kept" or known.sending != kept.sending:
            self._remember(kept)

    def _forget(self, withdrawn: Cancellation) -> None:
        """Forget a kept request that had no effect."""
        kept = self._unreceived.get(withdrawn.job_id)
        if kept is not None and kept == structs.replace(withdrawn, outcome="kept"):
            del self._unreceived[withdrawn.job_id]

    def _discard(self, request: JobRequest, cancellation: Cancellation) -> None:
        """End a request that the pool has not taken, as Celery's ``revoke`` does."""
        if cancellation.outcome == "kept":
            cancellation = structs.replace(cancellation, outcome=None)  # it applies to this message
        self._discards.add(request, cancellation)

    def _fall_back(self, request: JobRequest, cancellation: Cancellation) -> None:
        """Let the run of a message that could not be discarded end at its start."""
        self._remember(cancellation)  # the message may be delivered again
        self._schedule_grace(request, cancellation)
        if cancellation.outcome == "cancelled":
            revoked_marks.add(self.consumer.app, cancellation)

    def _accepted(self, request: JobRequest, cancellation: Cancellation, was_waiting: bool) -> None:
        """Begin the grace of a cancelled run. A thread of the pool may call this."""
        if was_waiting:
            # The run ends at its start, unless the store cannot be reached.
            create_board().post(cancellation)
        if self.consumer.pool.is_green:
            self.timed_calls.call_after(0, cancellation.job_id, self._start_grace, request)
        else:
            job_id = cancellation.job_id
            self.consumer.call_soon(call_guarded, job_id, self._start_grace, request)

    def _start_grace(self, request: JobRequest) -> None:
        """Terminate a run if it is still active after its grace."""
        if request.is_over or not request.task.cancellable:
            return
        grace = request.task.cancel_grace
        logger.info(
            "job %s: asking its run to stop, because %s",
            request.id, cause_of(request.cancelled_error),
        )  # fmt: skip
        if grace is not None:
            self.timed_calls.call_after(grace, request.id, self._terminate, request)

    def _terminate(self, request: JobRequest, is_late: bool = False) -> None:
        """Terminate a run that goes on, after one more delay if it only has to publish."""
        if request.is_over:
            return
        job_id, grace, pool = request.id, request.task.cancel_grace, self.consumer.pool
        if not can_terminate(pool):
            logger.warning(
                "job %s: its run is still active, %g s after it was asked to stop; the pool of this"
                " worker cannot terminate it (prefork, gevent and eventlet can)", job_id, grace,
            )  # fmt: skip
            return
        if request.is_forgotten:
            logger.warning(
                "job %s: not terminating its run, because the worker has lost its broker meanwhile;"
                " Celery 5.7 terminates it", job_id,
            )  # fmt: skip
            return
        if not is_late and request.stored_outcome() is not None:
            logger.info(
                "job %s: its run has stored its outcome; terminating it in %g s if it goes on",
                job_id, KILL_DELAY,
            )  # fmt: skip
            self.timed_calls.call_after(KILL_DELAY, job_id, self._terminate, request, True)
            return
        logger.warning(
            "job %s: terminating its run, which is still active %g s after it was asked to stop;"
            " cancel_grace of task %s sets the time", job_id, grace, request.task.name,
        )  # fmt: skip
        # First, because the pool may wait for the end of a greenlet.
        self.timed_calls.call_after(KILL_DELAY, job_id, self._kill, request)
        request.send_sigterm(pool)

    def _kill(self, request: JobRequest, is_late: bool = False) -> None:
        """Kill a terminated run that goes on, after one more delay if it only has to publish."""
        if not request.is_unfinished:
            return
        if is_late or request.stored_outcome() is None:
            request.kill()
        else:
            self.timed_calls.call_after(KILL_DELAY, request.id, self._kill, request, True)


def _may_run(cancellation: Cancellation) -> bool:
    """Return whether a process of the pool may run the job, from any thread.

    Other requests are not posted, so that those of many waiting jobs do not push the requests of
    running jobs off the board.
    """
    request = latest_request(cancellation.job_id)
    # The pool may have begun the run without this process having noticed it.
    has_begun = cancellation.outcome == "requested" and request is not None and request.has_begun
    return has_begun or is_active(cancellation.job_id)


_current: list[CancelRequests] = []  # of the worker of this process; at most one


def begin(consumer: Any) -> None:
    """Learn of the requests to cancel jobs that the consumer of this process receives."""
    if not _current or _current[0].consumer is not consumer:
        end()
        requests = CancelRequests(consumer)
        _current.append(requests)
        # A fork discards its observers, so the worker registers here.
        observe_requests(requests.learn)
        background.call(_listen, consumer.app.conf)
    _current[0].timed_calls.restore()


def end(**_: object) -> None:
    """Stop learning of requests, at the end of the worker."""
    while _current:
        stop_observing(_current.pop().learn)
    revoked_marks.close()


def _listen(conf: Any) -> None:
    runtime = get_runtime(conf)
    if runtime is not None:
        runtime.listen()


def _received(request: Any, **_: object) -> None:
    if isinstance(request, JobRequest) and request.is_job:
        request.is_received = True
        for requests in _current:
            requests.discard_if_cancelled(request)
        if request.eta is not None and not (request.is_over or request.is_skipped):
            request.report_scheduled()


signals.task_received.connect(_received, weak=False)
signals.worker_shutdown.connect(end, weak=False)
