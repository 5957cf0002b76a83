"""The settings and the publisher that a process has for each configuration."""

from __future__ import annotations

import atexit
import inspect
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import util as multiprocessing_util
from types import FrameType
from typing import Any, Final, Protocol
from uuid import UUID

from msgspec import structs

from jobcast.errors import InvalidJobId, SettingsError
from jobcast.events import JobInfo, check_job_id
from jobcast.liveness.sidecar import LeaseSidecar
from jobcast.publishing.cancellation import learn
from jobcast.publishing.host import default_configuration
from jobcast.publishing.identity import job_id_of, owner_of
from jobcast.publishing.job import NO_JOB, Job, NoJob, current_job
from jobcast.publishing.labels import tags_of, title_of
from jobcast.publishing.log_capture import Capture
from jobcast.publishing.notice_board import inherited_reader
from jobcast.publishing.publisher import Publisher
from jobcast.publishing.texts import safe_text
from jobcast.settings import Settings
from jobcast.transports import Origin, open_publisher
from jobcast.transports.cancellation import (
    CancellationListener,
    SupportsCancellationNotices,
)

logger = logging.getLogger(__name__)


class Runtime:
    """The settings of a configuration, and the publisher of its jobs' events.

    Jobs survive a fork. In a child process, such as one of ``multiprocessing``, they use the
    child's own publisher.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.capture = Capture(settings)
        # A dictionary, because setdefault() is atomic when two threads start a publisher.
        self._publishers: dict[str, Publisher] = {}
        self._closed = False
        self._listeners: dict[str, CancellationListener | None] = {}  # at most one
        # Keeps the parent's publishers alive: collecting them would close its connections.
        self._inherited: list[Publisher] = []

    @property
    def publisher(self) -> Publisher:
        """The publisher, created on first use."""
        return self._publishers.get(PUBLISHER) or self._start()

    def job(self, job_id: object, *, origin: Origin, waits: bool = True) -> Job:
        """Return a handle for a job.

        Raises:
            InvalidJobId: the id cannot be the name of a room.
        """
        job = Job(self, job_id, origin=origin, result_limit=self.settings.result_limit, waits=waits)
        job.capture = self.capture
        return job

    def listen(self) -> None:
        """Learn of cancelled jobs through the control channel, too. Repeated calls do nothing.

        The child of a pool learns of them through its main process.
        """
        if not self._listeners and inherited_reader() is None:
            self._listeners[LISTENER] = None
            self._listeners[LISTENER] = self.publisher.listen(learn)

    def reset_after_fork(self) -> None:
        """Reset the state in a forked process.

        The publisher's thread exists in the parent only, which sends its unsent events.
        """
        self._closed = False
        self._listeners.clear()
        publisher = self._publishers.pop(PUBLISHER, None)
        if publisher is not None:
            publisher.detach()
            self._inherited.append(publisher)

    def close(self) -> None:
        closed, self._closed = self._closed, True
        listener = self._listeners.pop(LISTENER, None)
        if listener is not None:
            listener.close()
        publisher = self._publishers.get(PUBLISHER)
        if publisher is not None and not closed:
            publisher.close()

    def _start(self) -> Publisher:
        # No lock is held here, because loading a transport runs foreign code.
        opened = _open(self.settings)
        opened.poll = inherited_reader()
        publisher = self._publishers.setdefault(PUBLISHER, opened)
        if publisher is not opened:
            opened.close()
        elif self._inherited:
            # Children of multiprocessing and billiard run finalizers, but no exit handlers. A
            # child of billiard has imported billiard.util.
            for util in (multiprocessing_util, sys.modules.get("billiard.util")):
                if util is not None:
                    util.Finalize(None, self.close, exitpriority=0)
        return publisher


PUBLISHER: Final = "publisher"
LISTENER: Final = "listener"

# Results by the id() of the configuration. The configuration is kept alive, so that its id() is
# not reused. An error is permanent, and is logged once.
_known: dict[int, tuple[Mapping[str, Any] | None, Runtime | Exception]] = {}
_runtimes: dict[Settings, Runtime] = {}


def get_runtime(celery_conf: Mapping[str, Any] | None = None) -> Runtime | None:
    """Return the runtime of this process for a configuration; start its publisher on first use.

    Args:
        celery_conf: the configuration of a Celery application; None for the environment alone.
            Configurations with the same settings share a runtime.

    Returns:
        None if a setting is invalid. The error is logged once and fails no task.
    """
    _, known = _known.get(id(celery_conf), (None, None))
    if known is None:
        known = _find(celery_conf)
        _known[id(celery_conf)] = celery_conf, known
    return known if isinstance(known, Runtime) else None


def _find(celery_conf: Mapping[str, Any] | None) -> Runtime | Exception:
    try:
        settings = Settings.load(celery_conf=celery_conf)
        runtime = _runtimes.setdefault(settings, Runtime(settings))
        _ = runtime.publisher
    except SettingsError as exc:
        logger.error("jobcast is disabled in this process: %s", exc)
        return exc
    except ImportError as exc:
        logger.exception("jobcast is disabled in this process: the transport cannot be loaded")
        return exc
    return runtime


def new_job(
    job_id: str,
    *,
    origin: Origin,
    celery_conf: Mapping[str, Any] | None = None,
    waits: bool = True,
) -> Job | NoJob:
    """Return a handle for a job, or ``NO_JOB`` if the job cannot be published."""
    runtime = get_runtime(celery_conf)
    if runtime is None:
        return NO_JOB
    try:
        return runtime.job(job_id, origin=origin, waits=waits)
    except InvalidJobId as exc:
        logger.warning("job %.200r is not published: %s", job_id, exc)
        return NO_JOB


class HasConfiguration(Protocol):
    """The part of a Celery application that :func:`open_job` uses."""

    @property
    def conf(self) -> Any: ...


def open_job(
    job_id: str | int | UUID,
    *,
    owner: str | int | UUID | None = None,
    title: object = None,
    tags: Iterable[str] = (),
    parent: str | int | UUID | None = None,
    task: str | None = None,
    app: HasConfiguration | None = None,
) -> Job | NoJob:
    """Publish the progress of work outside of Celery, such as a command, a thread or a cron job.

    Args:
        job_id: the id that followers join, of 1 to 128 characters. A number is converted to its
            digits, a UUID to its text.
        owner: the subject whose token may follow the job, as a text, a number or a UUID. None for
            a job without an owner.
        title: the title of the job, for people.
        tags: up to 10 labels by which the job can be found.
        parent: the id of the job that this one belongs to. By default this is the current job.
        task: a name for the kind of work, as a Celery task has one.
        app: the Celery application whose settings apply. By default these are the settings of
            the current job, else of the application that has ``jobcast_*`` settings, else of the
            environment.

    Raises:
        InvalidJobId: the id, or that of the parent, cannot be the name of a room.
        TypeError: the owner is neither a text nor a number nor a UUID, or a tag is no text.
        ValueError: the owner is empty or contains lone surrogates, or the tags are invalid.
        SettingsError: two Celery applications have different settings, and ``app`` is omitted.

    >>> with open_job("reindex-2026-11-23", owner="alice") as job:
    ...     job.progress(50, "half-way")
    """
    origin = Origin(None if owner is None else owner_of(owner))
    info = JobInfo(
        title=title_of(title),
        tags=tags_of(tags),
        parent=current_job().job_id if parent is None else check_job_id(_known_id(parent)),
        task=safe_text(task) if task else None,
    )
    runtime = _default_runtime() if app is None else get_runtime(app.conf)
    if runtime is None:
        return NO_JOB
    job = runtime.job(_known_id(job_id), origin=origin)
    job.info = info if info.parent != job.job_id else structs.replace(info, parent=None)
    job.package = _package_of_caller(inspect.currentframe())
    runtime.listen()
    return job


def _known_id(job_id: object) -> object:
    """Return the text of a UUID or a number, and any other value unchanged."""
    is_convertible = isinstance(job_id, UUID | int) and not isinstance(job_id, bool)
    return job_id_of(job_id) if is_convertible else job_id


def _package_of_caller(frame: FrameType | None) -> str:
    """Return the top-level package that called the function of a frame; empty if unknown."""
    caller = None if frame is None else frame.f_back
    return "" if caller is None else caller.f_globals.get("__name__", "").partition(".")[0]


def _default_runtime() -> Runtime | None:
    """Return the runtime for work that is not given a configuration."""
    outer = current_job()
    if isinstance(outer, Job) and isinstance(outer.source, Runtime):
        return outer.source
    return get_runtime(default_configuration("pass one, as in open_job(job_id, app=celery_app)"))


_before_close: list[Callable[[], object]] = []


def before_close(prepare: Callable[[], object]) -> None:
    """Call ``prepare`` each time before this process closes its publishers."""
    _before_close.append(prepare)


def close() -> None:
    """Publish the remaining events and stop. The next use starts new publishers."""
    for prepare in _before_close:
        prepare()
    _known.clear()
    while _runtimes:
        _, ended = _runtimes.popitem()
        ended.close()


_new_publisher: Callable[..., Publisher] = Publisher


@contextmanager
def publishing_with(new_publisher: Callable[..., Publisher]) -> Iterator[None]:
    """Create the publishers of this process with another function within the context.

    Publishers that exist are closed, before and after.
    """
    global _new_publisher
    close()
    former, _new_publisher = _new_publisher, new_publisher
    try:
        yield
    finally:
        close()
        _new_publisher = former


def _open(settings: Settings) -> Publisher:
    transport = open_publisher(settings.url, settings.retention, prefix=settings.prefix)
    if isinstance(transport, SupportsCancellationNotices):
        transport.on_cancelled = learn
    sidecar = None
    # The memory transport is not shared with the sidecar's process.
    if settings.lease_sidecar and not settings.url.startswith("memory:"):
        sidecar = LeaseSidecar(settings.url, settings.lease, settings.prefix)
    return _new_publisher(
        transport, shown_url=settings.masked_url, lease=settings.lease, sidecar=sidecar
    )


def _reset_after_fork() -> None:
    for runtime in _runtimes.values():
        runtime.reset_after_fork()


os.register_at_fork(after_in_child=_reset_after_fork)
atexit.register(close)
