"""What a process has one of: its settings and its publisher."""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections.abc import Mapping
from multiprocessing import util as multiprocessing_util
from typing import Any
from uuid import UUID

from billiard import util as billiard_util
from celery import signals

from jobcast.errors import InvalidJobId, SettingsError
from jobcast.events import JobEvent
from jobcast.settings import Settings
from jobcast.transports import Origin, Retention, open_publisher
from jobcast.worker.aside import aside
from jobcast.worker.job import NO_JOB, Job, NoJob
from jobcast.worker.keeper import Keeper
from jobcast.worker.message import (
    KEPT_BY_RETRIES,
    headers_of,
    job_id_of,
    origin_of_run,
    owner_of,
)
from jobcast.worker.publisher import Publisher, Said

logger = logging.getLogger(__name__)


class Process:
    """Settings, and the publisher that jobs speak through.

    A job outlives a fork: in a child, that of ``multiprocessing`` for one, it speaks through a
    publisher of the child's own.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._lock = threading.Lock()
        self._publisher: Publisher | None = None
        self._closed = False
        # Not to be collected: that would close connections which are the parent's.
        self._left: list[Publisher] = []

    @property
    def publisher(self) -> Publisher:
        """Started when it is first asked for."""
        return self._publisher or self._start()

    def mark(self, job: Job) -> None:
        self.publisher.mark(job)

    def add(self, job: Job, event: JobEvent) -> Said:
        return self.publisher.add(job, event)

    def flush(self) -> bool:
        return self.publisher.flush()

    def forget(self) -> None:
        """Begin anew, in a process that was forked: the thread stayed behind in the parent, and
        what it had to send is the parent's to send."""
        self._lock = threading.Lock()
        self._closed = False
        if self._publisher is not None:
            self._publisher.leave()
            self._left.append(self._publisher)
            self._publisher = None

    def close(self) -> None:
        with self._lock:
            closed, self._closed = self._closed, True
        if self._publisher is not None and not closed:
            self._publisher.close()

    def _start(self) -> Publisher:
        with self._lock:
            if self._publisher is None:
                self._publisher = _open(self.settings)
                if self._left:
                    # A child of either runs no exit handlers, and these.
                    for util in (multiprocessing_util, billiard_util):
                        util.Finalize(None, self.close, exitpriority=0)
            return self._publisher


_lock = threading.Lock()
_process: Process | Exception | None = None  # an error is said once, and is for good


def process(celery_conf: Mapping[str, Any] | None = None) -> Process | None:
    """This process's publisher, started at the first call.

    Returns:
        None if a setting is wrong, which is logged once: no task fails of it.
    """
    global _process
    with _lock:
        if _process is None:
            try:
                here = Process(Settings.load(celery_conf=celery_conf))
                _ = here.publisher
                _process = here
            except SettingsError as exc:
                logger.error("nothing is published: %s", exc)
                _process = exc
            except ImportError as exc:
                logger.exception("nothing is published: the transport cannot be loaded")
                _process = exc
        return _process if isinstance(_process, Process) else None


def new_job(
    job_id: str,
    *,
    origin: Origin,
    celery_conf: Mapping[str, Any] | None = None,
    waits: bool = True,
) -> Job | NoJob:
    """A handle on a job; one that does nothing if it cannot be published."""
    here = process(celery_conf)
    if here is None:
        return NO_JOB
    limit = here.settings.result_limit
    try:
        return Job(here, job_id, origin=origin, result_limit=limit, waits=waits)
    except InvalidJobId as exc:
        logger.warning("job %.200r is not published: %s", job_id, exc)
        return NO_JOB


def job_of_run(request: Any, app: Any, *, waits: bool = True) -> Job | None:
    """The job of a run, which may be another process's; None if it cannot be published.

    Args:
        request: the ``celery.app.task.Context`` of the run.
        app: the Celery application of its task.
        waits: whether the end of the job is flushed.
    """
    headers = headers_of(request)
    job = new_job(
        job_id_of(request.id), origin=origin_of_run(request), celery_conf=app.conf, waits=waits
    )
    if not isinstance(job, Job):
        return None
    job.kept_headers = {name: headers[name] for name in KEPT_BY_RETRIES if name in headers}
    return job


def open_job(job_id: str | int | UUID, *, owner: str | int | UUID | None = None) -> Job | NoJob:
    """Follow work that is no Celery task: a management command, a thread, a cron job.

    Args:
        job_id: what followers join; 1 to 128 characters. A number stands for its digits, a UUID
            for its text.
        owner: the subject whose token may follow it, in the same way. Nobody's if it is left out.

    Raises:
        InvalidJobId: the id may not become a room.
        TypeError: the owner is neither a text nor a number nor a UUID.
        ValueError: the owner is empty, or is no Unicode.

    >>> with open_job("reindex-2026-11-23", owner="alice") as job:
    ...     job.progress(50, "half-way")
    """
    origin = Origin(None if owner is None else owner_of(owner))
    here = process()
    if here is None:
        return NO_JOB
    if isinstance(job_id, UUID | int) and not isinstance(job_id, bool):
        job_id = job_id_of(job_id)
    return Job(here, job_id, origin=origin, result_limit=here.settings.result_limit)


def close() -> None:
    """Send what is left and stop. The next use begins anew."""
    global _process
    aside.close()
    with _lock:
        ended, _process = _process, None
    if isinstance(ended, Process):
        ended.close()


def _open(settings: Settings) -> Publisher:
    transport = open_publisher(
        settings.url, Retention(ttl=settings.history_ttl, size=settings.history_size)
    )
    # In memory it would be another process's, which nobody asks.
    keeper = None if settings.url.startswith("memory:") else Keeper(settings.url, settings.lease)
    return Publisher(transport, shown_url=settings.masked_url, lease=settings.lease, keeper=keeper)


def _forget() -> None:
    global _lock
    _lock = threading.Lock()
    if isinstance(_process, Process):
        _process.forget()


def _close_on(signal: Any) -> None:
    def receive(**_: object) -> None:
        close()

    signal.connect(receive, weak=False)


os.register_at_fork(after_in_child=_forget)
atexit.register(close)
# A pool's child runs no exit handlers; these are told of recycling and of a warm shutdown.
_close_on(signals.worker_process_shutdown)
_close_on(signals.worker_shutdown)
