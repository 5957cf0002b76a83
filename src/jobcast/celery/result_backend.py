"""Progress in Celery's own result backend, for who asks there: ``AsyncResult``, Flower, a page.

Off by default (``JOBCAST_STORE_PROGRESS``). The state is ``PROGRESS``, and the progress its meta.
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
INTERVAL: Final = 1.0  # seconds between two looks at what is new

logger = logging.getLogger(__name__)


class Storing(Struct, eq=False):
    """What is being stored right now."""

    job_id: str
    done: threading.Event


class Mirror:
    """Stores the latest progress of each running task, by a thread of its own.

    No lock is held meanwhile: a backend that does not answer delays its own task's end only.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew, in a process that was forked: the thread stayed behind in the parent."""
        # By the job's id: the task's own id, the task that runs, and its request.
        self._tasks: dict[str, tuple[object, Any, Any]] = {}
        self._failing = False
        self._latest: dict[str, JobProgress] = {}
        self._work = Bell()
        self._storing: Storing | None = None
        self._thread: threading.Thread | None = None

    def enter(self, task_id: object, task: Any, request: Any) -> None:
        """A task runs whose progress is wanted."""
        self._tasks[str(task_id)] = task_id, task, request
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="jobcast-mirror", daemon=True)
            self._thread = thread
            thread.start()

    def leave(self, task_id: object) -> None:
        """Nothing is stored of it from here on: Celery stores how it ended."""
        job_id = str(task_id)
        if self._tasks.pop(job_id, None) is None:
            return
        self._latest.pop(job_id, None)
        storing = self._storing
        if storing is not None and storing.job_id == job_id:
            storing.done.wait()

    def see(self, progress: JobProgress) -> None:
        if progress.job_id in self._tasks:
            self._latest[progress.job_id] = progress
            self._work.set()

    def _run(self) -> None:
        pause = threading.Event()
        while True:
            self._work.wait()
            for job_id in list(self._latest):
                storing = Storing(job_id, threading.Event())
                # A task that ends removes its progress first, and then looks at this.
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
            # Whatever is wrong with a backend, the task goes on; Celery says so at its end.
            level = logging.DEBUG if self._failing else logging.WARNING
            self._failing = True
            what = "the progress of %s could not be stored"
            logger.log(level, what, progress.job_id, exc_info=True)


mirror = Mirror()

os.register_at_fork(after_in_child=mirror.forget)
