"""A recorder of what tasks report, for the tests of a project."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Final
from unittest.mock import patch

import msgspec

from jobcast.events import TERMINAL, JobEvent, parse_event
from jobcast.publishing.identity import job_id_of
from jobcast.publishing.job import NO_JOB, Job, NoJob
from jobcast.publishing.runtime import new_job, publishing_with
from jobcast.settings import Settings
from jobcast.testing.recording import Recording
from jobcast.testing.recording_publisher import RecordingPublisher
from jobcast.testing.stored_jobs import cancel_stored_job, read_ended_job
from jobcast.transports import NO_ORIGIN, is_in_memory
from jobcast.transports.cancellation import Cancellation

TIMEOUT: Final = 30.0  # seconds that wait() waits by default
DIRECT: Final = "direct"  # the job id of what functions report that are called without a job


class JobRecorder(Recording):
    """What all tasks report while a test runs. Get one from the fixture ``job_recorder``.

    It records each call of ``progress()``, including those that a newer one replaces before a
    follower sees them:

    - of tasks that run eagerly, with ``apply()`` or ``task_always_eager``;
    - of a worker in a thread of this process, as ``celery.contrib.testing`` starts it: call
      :meth:`wait`;
    - of functions that are called without a job, as in ``convert.run(3)``. Their caller gets the
      result or the exception itself: ``ending`` is None.

    Of a worker in another process, :meth:`wait` reads the job's history, which has the latest
    progress, title and tags only. Override the fixture ``jobcast_url`` for it.
    """

    def __init__(self, url: str) -> None:
        super().__init__(())
        self._url = url
        self._direct: Job | NoJob = NO_JOB
        self._news = threading.Condition()

    def of(self, job_id: object) -> Recording:
        """Return the events of one job, whose id is that of its task.

        >>> job_recorder.of(convert.delay(3).id).result
        """
        known = job_id_of(job_id)
        return Recording(event for event in self.events if event.job_id == known)

    def wait(self, job_id: object, timeout: float = TIMEOUT) -> Recording:
        """Wait until a job that a worker runs has ended, and return its events.

        Raises:
            AssertionError: the job has not ended in time.
        """
        if is_in_memory(self._url):
            with self._news:
                self._news.wait_for(lambda: self.of(job_id).ending is not None, timeout)
        elif self.of(job_id).ending is None:
            known = job_id_of(job_id)
            self._replace(known, read_ended_job(Settings.load(), known, timeout))
        recorded = self.of(job_id)
        if recorded.ending is None:
            summary = recorded.summary
            raise AssertionError(f"job {job_id} has not ended after {timeout:g} s; {summary}")
        return recorded

    def cancel(
        self,
        job_id: object,
        message: str = "",
        *,
        by: str | None = None,
        timeout: float = TIMEOUT,
    ) -> str:
        """Cancel a job as a client of the server does, and return the outcome.

        Args:
            job_id: the id of the job.
            message: the reason, for people.
            by: the subject who cancels the job.
            timeout: seconds to wait until the job is stored.

        Returns:
            ``cancelled``, ``requested``, ``already_ended``, ``not_cancellable``, or
            ``job_not_found`` if the job was not stored in time.

        >>> job_recorder.cancel(result.id, "wrong file", by="alice")
        'requested'
        """
        known, settings = job_id_of(job_id), Settings.load()
        cancellation = Cancellation(job_id=known, by=by, message=message)
        outcome = cancel_stored_job(settings, cancellation, timeout)
        if outcome == "cancelled":
            # The store has ended the job, and no publisher.
            stored = read_ended_job(settings, known, timeout)
            self.record(next(event for event in reversed(stored) if event.kind == TERMINAL))
        return outcome

    def clear(self) -> None:
        """Forget the events recorded so far. A function called without a job begins a new one."""
        with self._news:
            self._events.clear()
        self._direct = new_job(DIRECT, origin=NO_ORIGIN)

    def report_directly(self, method: str) -> Callable[..., Any]:
        """Return a function that calls a method of the job of functions without one."""
        return lambda *args, **kwargs: getattr(self._direct, method)(*args, **kwargs)

    def record(self, event: JobEvent) -> None:
        """Add an event, as followers receive it."""
        received = parse_event(event.name, msgspec.json.decode(msgspec.json.encode(event)))
        with self._news:
            self._events.append(received)
            if event.kind == TERMINAL:
                self._news.notify_all()

    def _replace(self, job_id: str, events: Sequence[JobEvent]) -> None:
        """Replace the events of a job by those that its worker has stored."""
        with self._news:
            others = [event for event in self._events if event.job_id != job_id]
            self._events = [*others, *events]


@contextmanager
def recording(url: str) -> Iterator[JobRecorder]:
    """Record the jobs of this process within the context.

    Args:
        url: the transport of the process, its ``JOBCAST_URL``.
    """
    recorder = JobRecorder(url)
    with publishing_with(partial(RecordingPublisher, recorder.record)), _direct_calls(recorder):
        recorder.clear()
        yield recorder


@contextmanager
def _direct_calls(recorder: JobRecorder) -> Iterator[None]:
    """Give functions that are called without a job one to report to.

    The replaced methods are those of the object that every context has as its default job. A
    context variable would not reach the contexts of asynchronous tests and threads.
    """
    with ExitStack() as replaced:
        for name in ("progress", "log", "track", "stage", "set_title", "add_tags"):
            replaced.enter_context(patch.object(NO_JOB, name, recorder.report_directly(name)))
        yield
