"""Store progress in Celery's result backend, for readers such as ``AsyncResult`` and Flower.

Off by default (``JOBCAST_STORE_PROGRESS``). The state is ``PROGRESS``, its meta the progress.
"""

from __future__ import annotations

import logging
import os
import threading
from typing import Any, Final

from msgspec import Struct

from jobcast.events import JobProgress, payload_of
from jobcast.publishing.bell import Bell

STATE: Final = "PROGRESS"
INTERVAL: Final = 1.0  # seconds between two writes of new progress

logger = logging.getLogger(__name__)


class Storing(Struct, eq=False):
    """A write in progress."""

    job_id: str
    done: threading.Event


class Mirror:
    """A thread that stores the latest progress of each running task.

    It holds no lock while it writes. A backend that does not answer delays only the end of the
    task whose progress is being written.
    """

    def __init__(self) -> None:
        self.reset_after_fork()

    def reset_after_fork(self) -> None:
        """Reset the state in a forked process, in which the thread does not exist."""
        # By job id: the id of the task with its original type, the task, and its request.
        self._tasks: dict[str, tuple[object, Any, Any]] = {}
        self._failing = False
        self._latest: dict[str, JobProgress] = {}
        self._work = Bell()
        self._storing: Storing | None = None
        self._thread: threading.Thread | None = None

    def enter(self, task_id: object, task: Any, request: Any) -> None:
        """Begin to store the progress of a task."""
        self._tasks[str(task_id)] = task_id, task, request
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="jobcast-mirror", daemon=True)
            self._thread = thread
            thread.start()

    def leave(self, task_id: object) -> None:
        """Stop storing the progress of a task, before Celery stores its final state.

        Waits for a write in progress.
        """
        job_id = str(task_id)
        if self._tasks.pop(job_id, None) is None:
            return
        self._latest.pop(job_id, None)
        storing = self._storing
        if storing is not None and storing.job_id == job_id:
            storing.done.wait()

    def update(self, progress: JobProgress) -> None:
        """Note the latest progress of a job."""
        if progress.job_id in self._tasks:
            self._latest[progress.job_id] = progress
            self._work.set()

    def _run(self) -> None:
        pause = threading.Event()
        while True:
            self._work.wait()
            for job_id in list(self._latest):
                storing = Storing(job_id, threading.Event())
                # leave() removes the progress first and checks this attribute afterwards.
                self._storing = storing
                try:
                    self._store_latest(job_id)
                finally:
                    self._storing = None
                    storing.done.set()
            pause.wait(INTERVAL)

    def _store_latest(self, job_id: str) -> None:
        progress = self._latest.pop(job_id, None)
        running = self._tasks.get(job_id)
        if progress is not None and running is not None:
            self._store(*running, progress)

    def _store(self, task_id: object, task: Any, request: Any, progress: JobProgress) -> None:
        meta = payload_of(progress)
        for name in ("job_id", "seq"):
            meta.pop(name, None)
        try:
            task.backend.store_result(task_id, meta, STATE, request=request)
            self._failing = False
        except Exception:
            # A backend may raise any exception. Celery reports it when it stores the final state.
            level = logging.DEBUG if self._failing else logging.WARNING
            self._failing = True
            logger.log(
                level,
                "job %s: could not store its progress in the result backend; retrying with its next"
                " progress. JOBCAST_STORE_PROGRESS=false turns this off",
                progress.job_id, exc_info=True,
            )  # fmt: skip


mirror = Mirror()

os.register_at_fork(after_in_child=mirror.reset_after_fork)
