"""What a process has for each configuration: its settings and its publisher."""

from __future__ import annotations

import atexit
import inspect
import logging
import os
import sys
from collections.abc import Callable, Mapping
from multiprocessing import util as multiprocessing_util
from types import FrameType
from typing import Any, Final, Protocol
from uuid import UUID

from jobcast.errors import InvalidJobId, SettingsError
from jobcast.liveness.sidecar import LeaseSidecar
from jobcast.publishing.host import find_host
from jobcast.publishing.identity import job_id_of, owner_of
from jobcast.publishing.job import NO_JOB, Job, NoJob, current_job
from jobcast.publishing.log_capture import Capture
from jobcast.publishing.publisher import Publisher
from jobcast.settings import Settings
from jobcast.transports import Origin, open_publisher

logger = logging.getLogger(__name__)


class Runtime:
    """The settings of a configuration, and the publisher of its jobs' events.

    A job outlives a fork: in a child, such as one of ``multiprocessing``, it publishes through the
    child's own publisher.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.capture = Capture(settings)
        # A dictionary, because setdefault() decides at once which of two threads was first.
        self._publishers: dict[str, Publisher] = {}
        self._closed = False
        # Not to be collected: that would close connections which are the parent's.
        self._left: list[Publisher] = []

    @property
    def publisher(self) -> Publisher:
        """Started when it is first asked for."""
        return self._publishers.get(PUBLISHER) or self._start()

    def job(self, job_id: object, *, origin: Origin, waits: bool = True) -> Job:
        """A handle on a job.

        Raises:
            InvalidJobId: the id may not become a room.
        """
        job = Job(self, job_id, origin=origin, result_limit=self.settings.result_limit, waits=waits)
        job.capture = self.capture
        return job

    def forget(self) -> None:
        """Begin anew, in a process that was forked: the thread stayed behind in the parent, and
        what it had to send is the parent's to send."""
        self._closed = False
        publisher = self._publishers.pop(PUBLISHER, None)
        if publisher is not None:
            publisher.leave()
            self._left.append(publisher)

    def close(self) -> None:
        closed, self._closed = self._closed, True
        publisher = self._publishers.get(PUBLISHER)
        if publisher is not None and not closed:
            publisher.close()

    def _start(self) -> Publisher:
        # No lock is held: loading a transport runs foreign code.
        opened = _open(self.settings)
        publisher = self._publishers.setdefault(PUBLISHER, opened)
        if publisher is not opened:
            opened.close()
        elif self._left:
            # A child of either runs no exit handlers, and these. One of billiard's has it imported.
            for util in (multiprocessing_util, sys.modules.get("billiard.util")):
                if util is not None:
                    util.Finalize(None, self.close, exitpriority=0)
        return publisher


PUBLISHER: Final = "publisher"

# Configurations that were asked for, by their identity, which is kept from being used again. An
# error is logged once, and is for good.
_known: dict[int, tuple[Mapping[str, Any] | None, Runtime | Exception]] = {}
_runtimes: dict[Settings, Runtime] = {}


def get_runtime(celery_conf: Mapping[str, Any] | None = None) -> Runtime | None:
    """The publisher that this process has for a configuration, started at the first call.

    Args:
        celery_conf: of a Celery application; None for the environment alone. Those whose settings
            are the same share a publisher.

    Returns:
        None if a setting is wrong, which is logged once: no task fails of it.
    """
    _, known = _known.get(id(celery_conf), (None, None))
    if known is None:
        known = _find(celery_conf)
        _known[id(celery_conf)] = celery_conf, known
    return known if isinstance(known, Runtime) else None


def _find(celery_conf: Mapping[str, Any] | None) -> Runtime | Exception:
    try:
        settings = Settings.load(celery_conf=celery_conf)
        here = _runtimes.setdefault(settings, Runtime(settings))
        _ = here.publisher
    except SettingsError as exc:
        logger.error("jobcast is disabled in this process: %s", exc)
        return exc
    except ImportError as exc:
        logger.exception("jobcast is disabled in this process: the transport cannot be loaded")
        return exc
    return here


def new_job(
    job_id: str,
    *,
    origin: Origin,
    celery_conf: Mapping[str, Any] | None = None,
    waits: bool = True,
) -> Job | NoJob:
    """A handle on a job; one that does nothing if it cannot be published."""
    here = get_runtime(celery_conf)
    if here is None:
        return NO_JOB
    try:
        return here.job(job_id, origin=origin, waits=waits)
    except InvalidJobId as exc:
        logger.warning("job %.200r is not published: %s", job_id, exc)
        return NO_JOB


class HasConfiguration(Protocol):
    """A Celery application, as far as :func:`open_job` needs one."""

    @property
    def conf(self) -> Any: ...


def open_job(
    job_id: str | int | UUID,
    *,
    owner: str | int | UUID | None = None,
    app: HasConfiguration | None = None,
) -> Job | NoJob:
    """Follow work that is no Celery task: a management command, a thread, a cron job.

    Args:
        job_id: what followers join; 1 to 128 characters. A number stands for its digits, a UUID
            for its text.
        owner: the subject whose token may follow it, in the same forms. Without one the job has no
            owner.
        app: the Celery application whose settings apply. By default those of the job that is
            running here, else of the application that has ``jobcast_*`` settings, else those of
            the environment.

    Raises:
        InvalidJobId: the id may not become a room.
        TypeError: the owner is neither a text nor a number nor a UUID.
        ValueError: the owner is empty, or is no Unicode.
        SettingsError: two Celery applications have different settings, and ``app`` is left out.

    >>> with open_job("reindex-2026-11-23", owner="alice") as job:
    ...     job.progress(50, "half-way")
    """
    origin = Origin(None if owner is None else owner_of(owner))
    if isinstance(job_id, UUID | int) and not isinstance(job_id, bool):
        job_id = job_id_of(job_id)
    here = _default_runtime() if app is None else get_runtime(app.conf)
    if here is None:
        return NO_JOB
    job = here.job(job_id, origin=origin)
    job.package = _package_of_caller(inspect.currentframe())
    return job


def _package_of_caller(frame: FrameType | None) -> str:
    """Return the top-level package that called the function of a frame; empty if it is unknown."""
    caller = None if frame is None else frame.f_back
    return "" if caller is None else caller.f_globals.get("__name__", "").partition(".")[0]


def _default_runtime() -> Runtime | None:
    """The publisher for work that does not say which configuration it means."""
    outer = current_job()
    if isinstance(outer, Job) and isinstance(outer.source, Runtime):
        return outer.source
    confs = find_host().configurations()
    if len({Settings.load(celery_conf=conf) for conf in confs}) > 1:
        raise SettingsError(
            "JOBCAST_URL",
            "and the other jobcast settings differ between the Celery applications of this"
            " process: say which one is meant, as in open_job(job_id, app=celery_app)",
        )
    return get_runtime(confs[0] if confs else None)


_before_close: list[Callable[[], object]] = []


def before_close(prepare: Callable[[], object]) -> None:
    """Call ``prepare`` whenever this process is about to close its publishers."""
    _before_close.append(prepare)


def close() -> None:
    """Publish what is left and stop. The next use begins anew."""
    for prepare in _before_close:
        prepare()
    _known.clear()
    while _runtimes:
        _, ended = _runtimes.popitem()
        ended.close()


def _open(settings: Settings) -> Publisher:
    transport = open_publisher(settings.url, settings.retention, prefix=settings.prefix)
    sidecar = None
    # In memory, leases of another process would reach nobody.
    if settings.lease_sidecar and not settings.url.startswith("memory:"):
        sidecar = LeaseSidecar(settings.url, settings.lease, settings.prefix)
    return Publisher(
        transport, shown_url=settings.masked_url, lease=settings.lease, sidecar=sidecar
    )


def _forget() -> None:
    for here in _runtimes.values():
        here.forget()


os.register_at_fork(after_in_child=_forget)
atexit.register(close)
