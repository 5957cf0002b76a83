"""Progress outside of jobcast: in Celery's result backend, and in its task events.

Both are off by default (``JOBCAST_STORE_PROGRESS``, ``JOBCAST_TASK_EVENTS``).
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import Any, Final

from msgspec import Struct

from jobcast.bell import Bell
from jobcast.celery.result_backend import store_progress
from jobcast.celery.task_events import send_progress_event
from jobcast.events import JobProgress
from jobcast.settings import Settings

INTERVAL: Final = 1.0  # seconds between two writes of new progress
EVENT_TIMEOUT: Final = 2.0  # seconds that the end of a task waits for a task event

#: Writes the progress of a running task: its id, the task, its request, and the progress.
Write = Callable[[object, Any, Any, JobProgress], None]

logger = logging.getLogger(__name__)


class Writing(Struct, eq=False):
    """A write that is running."""

    job_id: str
    done: threading.Event


class Mirror:
    """A thread that writes the latest progress of each running task.

    It holds no lock while it writes. There is one thread for all tasks, because the end of a task
    waits for the one write that is in progress. A destination that does not answer delays only the
    end of the task whose progress is being written.

    Args:
        write: writes a progress. It may raise any exception.
        failure: for the log, what failed, and the setting that turns it off.
        end_timeout: the maximum number of seconds that the end of a task waits for a write; None
            for no limit.
    """

    def __init__(self, write: Write, failure: str, end_timeout: float | None = None) -> None:
        self._write = write
        self._failure = failure
        self._end_timeout = end_timeout
        self.reset_after_fork()

    def reset_after_fork(self) -> None:
        """Reset the state in a forked process, in which the thread does not exist."""
        # By job id: the id of the task with its original type, the task, and its request.
        self._tasks: dict[str, tuple[object, Any, Any]] = {}
        self._failing = False
        self._latest: dict[str, JobProgress] = {}
        self._work = Bell()
        self._writing: Writing | None = None
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def enter(self, task_id: object, task: Any, request: Any) -> None:
        """Begin to write the progress of a task."""
        self._tasks[str(task_id)] = task_id, task, request
        self._start()

    def leave(self, task_id: object) -> None:
        """Stop writing the progress of a task, before Celery stores its final state.

        Waits for a write in progress.
        """
        job_id = str(task_id)
        if self._tasks.pop(job_id, None) is None:
            return
        self._latest.pop(job_id, None)
        writing = self._writing
        if writing is not None and writing.job_id == job_id:
            writing.done.wait(self._end_timeout)

    def update(self, progress: JobProgress) -> None:
        """Note the latest progress of a job."""
        if progress.job_id in self._tasks:
            self._latest[progress.job_id] = progress
            self._work.set()

    def _start(self) -> None:
        """Start the thread. Tasks that begin at the same time share it: see :meth:`leave`."""
        with self._starting:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="jobcast-mirror", daemon=True)
                self._thread = thread
                thread.start()

    def _run(self) -> None:
        pause = threading.Event()
        while True:
            self._work.wait()
            for job_id in list(self._latest):
                writing = Writing(job_id, threading.Event())
                # leave() removes the progress first and checks this attribute afterwards.
                self._writing = writing
                try:
                    self._write_latest(job_id)
                finally:
                    self._writing = None
                    writing.done.set()
            pause.wait(INTERVAL)

    def _write_latest(self, job_id: str) -> None:
        progress = self._latest.pop(job_id, None)
        running = self._tasks.get(job_id)
        if progress is not None and running is not None:
            self._try_to_write(*running, progress)

    def _try_to_write(
        self, task_id: object, task: Any, request: Any, progress: JobProgress
    ) -> None:
        try:
            self._write(task_id, task, request, progress)
            self._failing = False
        except Exception:
            # A backend may raise any exception. Celery reports it when it stores the final state.
            level = logging.DEBUG if self._failing else logging.WARNING
            self._failing = True
            logger.log(level, self._failure, progress.job_id, exc_info=True)


_stored = Mirror(
    store_progress,
    "job %s: could not store its progress in the result backend; retrying with its next progress."
    " JOBCAST_STORE_PROGRESS=false turns this off",
)
_sent = Mirror(
    send_progress_event,
    "job %s: could not send a task-progress event to the broker; retrying with its next progress."
    " JOBCAST_TASK_EVENTS=false turns this off",
    EVENT_TIMEOUT,
)
_MIRRORS: Final = (_stored, _sent)


def mirror_progress(
    settings: Settings, task_id: object, task: Any, request: Any
) -> Callable[[JobProgress], None] | None:
    """Begin to mirror the progress of a run as the settings say, until :func:`stop_mirroring`.

    Returns:
        A function that takes each progress; None if nothing is mirrored.
    """
    if request.is_eager:
        return None
    ignored = task.ignore_result or request.ignore_result
    wanted = settings.store_progress and not ignored, settings.task_events
    mirrors = [mirror for mirror, is_on in zip(_MIRRORS, wanted, strict=True) if is_on]
    for mirror in mirrors:
        mirror.enter(task_id, task, request)

    def update(progress: JobProgress) -> None:
        for mirror in mirrors:
            mirror.update(progress)

    return update if mirrors else None


def stop_mirroring(task_id: object) -> None:
    """Stop to mirror the progress of a run, before Celery stores its final state."""
    for mirror in _MIRRORS:
        mirror.leave(task_id)


def _reset_after_fork() -> None:
    for mirror in _MIRRORS:
        mirror.reset_after_fork()


os.register_at_fork(after_in_child=_reset_after_fork)
