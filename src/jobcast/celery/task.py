"""The base class of a task whose progress, logs and end can be followed."""

from __future__ import annotations

import logging
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from functools import wraps
from importlib import import_module
from typing import Any, Final, TypeVar, cast
from uuid import UUID

from billiard.process import current_process
from celery import Task, signals, states
from celery.canvas import Signature
from celery.exceptions import Retry
from kombu.utils.compat import detect_environment

from jobcast.celery.canvas import never_run, standing_in
from jobcast.celery.enqueue import is_followed, sending
from jobcast.celery.failures import really_raised, told
from jobcast.celery.headers import (
    STANDS_IN_HEADER,
    due,
    headers_of,
    job_id_of,
)
from jobcast.celery.logs import package_of
from jobcast.celery.result_backend import mirror
from jobcast.celery.signatures import JobSignature, with_headers
from jobcast.errors import SettingsError
from jobcast.events import now
from jobcast.publishing.job import Job, _current, current_job
from jobcast.publishing.runtime import job_of_run, process
from jobcast.settings import Settings

T = TypeVar("T")

MAX_UNFINISHED: Final = 1000  # runs that were left without a word, and may yet get one
#: Celery's hooks, and jobcast's part of each.
REPORTS: Final = {
    "on_success": "_report_success",
    "on_failure": "_report_failure",
    "on_retry": "_report_retry",
}

# Runs that were left by something worse than an exception; Celery may call a hook of theirs later.
_unfinished: OrderedDict[str, Job] = OrderedDict()

logger = logging.getLogger(__name__)


class ProgressTask(Task):
    """A task that can be followed while it runs.

    That it started, is retried, succeeded or failed is published without a line in the task:

    >>> @app.task(base=ProgressTask, bind=True)
    ... def convert(self, pages):
    ...     for page in self.track(pages, message="converting"):
    ...         ...

    ``Celery(task_cls="jobcast:ProgressTask")`` makes every task one. A subclass may have hooks of
    its own (``on_success`` and so on), with or without a call of ``super()``. It may have further
    bases, before or after this one, with hooks, a ``__call__`` and a ``Request`` of their own.
    """

    abstract = True
    is_followed = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in REPORTS:
            own = _own(cls, name)
            if own is not None:
                setattr(cls, name, _with_report(name, own))
        call = _own(cls, "__call__")
        if call is not None:
            cls.__call__ = _with_leaving(call)  # type: ignore[method-assign]

    def progress(
        self,
        percentage: float | None = None,
        message: str | None = None,
        *,
        current: float | None = None,
        total: float | None = None,
    ) -> None:
        """Say how far the job, or its present stage, has come: see :meth:`Job.progress`."""
        if current is None:
            _current.get().progress(percentage, message)
        else:
            _current.get().progress(percentage, message, current=current, total=total)

    def log(self, message: object, level: str | int | None = "info") -> None:
        """Send a line of log: see :meth:`Job.log`."""
        _current.get().log(message, level)

    def track(
        self, iterable: Iterable[T], total: float | None = None, message: str | None = None
    ) -> Iterator[T]:
        """Iterate, and report progress, rate and time left: see :meth:`Job.track`."""
        return _current.get().track(iterable, total, message)

    def stage(
        self, name: str, weight: float = 1, of: float | None = None
    ) -> AbstractContextManager[None]:
        """Do a part of the job, in which 0 to 100 means that part: see :meth:`Job.stage`."""
        return _current.get().stage(name, weight, of)

    def owned_by(self, owner: str | int | UUID) -> JobSignature:
        """This task as a signature whose job the subject ``owner`` may follow.

        A number, as users' ids are in many applications, stands for its digits, and a UUID for its
        text. The owner stays whatever headers are given later. For a signature that is there
        already, and for chains, groups and chords, see :func:`jobcast.owned_by`.

        >>> convert.owned_by("alice").delay(pages)
        >>> convert.owned_by("alice").s(pages) | upload.s()

        Raises:
            TypeError: the owner is none of these.
            ValueError: the owner is empty, or is no Unicode.
        """
        return JobSignature.of(self, owner)

    def public_result(self, result: Any) -> Any:
        """What followers see of the result. Override it to show less, or something else."""
        return result

    def public_error(self, exc: BaseException) -> str:
        """What followers read when the job fails. Override it to show less, or something else.

        By default it is the exception's own text, with secrets in URLs masked; what Celery has
        to say of a run (that a worker was lost, a time limit reached) is put into plain words.
        Where there is no text, also of your own, followers read that the job did not say why.
        """
        return told(exc)

    def start_strategy(self, app: Any, consumer: Any, **kwargs: Any) -> Any:
        # Celery makes the requests of this class. jobcast's part of them sees the endings that a
        # pool's child cannot report.
        self.Request = _request_class(self)
        return super().start_strategy(app, consumer, **kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        request = self.request_stack.top
        following = super().__call__
        if request is None or request.called_directly or request._protected:
            return following(*args, **kwargs)
        try:
            if following.__func__ is not Task.__call__:
                return following(*args, **kwargs)
            # As Celery's workers call a task that has no __call__ of its own.
            request._protected = 1
            return self.run(*args, **kwargs)
        finally:
            # Before Celery stores how it ended.
            mirror.leave(request.id)

    def apply_async(self, *args: Any, **kwargs: Any) -> Any:
        with sending(self.app):
            return super().apply_async(*args, **with_headers(kwargs))

    def apply(self, *args: Any, **kwargs: Any) -> Any:
        return super().apply(*args, **with_headers(kwargs))

    def on_success(self, *args: Any, **kwargs: Any) -> None:
        try:
            super().on_success(*args, **kwargs)
        finally:
            self._report_success(*args, **kwargs)

    def on_failure(self, *args: Any, **kwargs: Any) -> None:
        try:
            super().on_failure(*args, **kwargs)
        finally:
            self._report_failure(*args, **kwargs)

    def on_retry(self, *args: Any, **kwargs: Any) -> None:
        try:
            super().on_retry(*args, **kwargs)
        finally:
            self._report_retry(*args, **kwargs)

    def _report_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:  # noqa: ARG002
        job = self._job(task_id, self)
        if job is not None and not job.ended:
            job.complete(self.shown_result(retval))

    def _report_failure(
        self,
        exc: BaseException,
        task_id: str,
        args: Any,  # noqa: ARG002
        kwargs: Any,  # noqa: ARG002
        einfo: Any,  # noqa: ARG002
    ) -> None:
        # Where the run has been left already, its request is not there any more.
        job = _unfinished.pop(job_id_of(task_id), None) or self._job(task_id, self)
        if job is not None and not job.ended:
            _fail(job, self, self, really_raised(exc))

    def _report_retry(
        self,
        exc: BaseException | None,
        task_id: str,
        args: Any,  # noqa: ARG002
        kwargs: Any,  # noqa: ARG002
        einfo: Any,
    ) -> None:
        job = self._job(task_id, self)
        if job is not None:
            cause = None if exc is None else really_raised(exc, job.retry_cause[0])
            self._keep_cause(job, cause)
            job.retrying(eta=due(getattr(einfo.exception, "when", None)))

    def retry(
        self, args: Any = None, kwargs: Any = None, exc: BaseException | None = None,
        *rest: Any, **options: Any,
    ) -> Any:  # fmt: skip
        job = current_job()
        if isinstance(job, Job):
            # Followers are told when the message is sent, which is before on_retry is called.
            self._keep_cause(job, exc or _raised_in(job))
        return super().retry(args, kwargs, exc, *rest, **options)

    def replace(self, sig: Signature) -> Any:
        job = current_job()
        if isinstance(job, Job):
            # Said before anything is sent, which another worker may have done by the time it is.
            job.replaced = True
            job.last_status = job.queued()
            job.flush()
        return super().replace(standing_in(self.app, sig, self.name))

    def shown_result(self, result: Any) -> Any:
        """What followers see of a result, also where :meth:`public_result` fails."""
        hidden = {"omitted": "unserializable", "type": type(result).__name__}
        return self._shown(self.public_result, result, hidden)

    def message_of(self, exc: BaseException) -> Any:
        """What followers read of an exception, also where :meth:`public_error` fails."""
        message = self._shown(self.public_error, exc, type(exc).__name__)
        # A hook that returns nothing wants nothing shown, and not the exception's own text.
        return "" if message is None else message

    def _keep_cause(self, job: Job, exc: BaseException | None) -> None:
        job.retry_cause = exc, "" if exc is None else self.message_of(exc)

    def _begin(self, task: Any) -> None:
        """Say that a run begins, of this task or of one that stands in for it."""
        task_id = task.request.id
        job = self._job(task_id, task, waits=True)
        if job is None or job is current_job():
            return
        job.package = package_of(task)
        job.become_current()
        here = process(self.app.conf)
        if here is not None:
            ignored = task.ignore_result or task.request.ignore_result
            if here.settings.store_progress and not (ignored or task.request.is_eager):
                mirror.enter(task_id, task, task.request_stack.top)
        _unfinished.pop(job.job_id, None)
        job.started(task=task.name)

    def _job(self, task_id: str, task: Any, *, waits: bool = False) -> Job | None:
        """The job of the run that is being spoken of, which is the current one in a pool's child.

        None if there is none: in a worker's main process Celery calls hooks of runs that it does
        not say, and there :class:`~jobcast.celery.request.JobRequest` knows better.
        """
        job, request = current_job(), task.request
        job_id = job_id_of(task_id)
        if isinstance(job, Job) and (job.job_id, job.attempt) == (job_id, request.retries + 1):
            return job
        if request.id != task_id or not is_followed(self):
            return None
        return job_of_run(request, self.app, waits=waits)

    def _shown(self, hook: Callable[[Any], Any], value: Any, otherwise: Any) -> Any:
        try:
            return hook(value)
        except Exception:
            # A hook decides what may be seen; when it cannot, nothing may.
            logger.exception("%s of %s failed", hook.__name__, self.name)
            return otherwise


def _own(cls: type, name: str) -> Any:
    """What a class or its bases have in the place of a method of :class:`ProgressTask`.

    None if that is what it has, or if jobcast's part is around it already.
    """
    for base in cls.__mro__:
        if name in vars(base):
            inherited = issubclass(base, ProgressTask) and base is not cls
            return None if base is ProgressTask or inherited else vars(base)[name]
    return None


def _request_class(task: Any) -> type:
    """The class of a task's requests: jobcast's, with what the project has.

    Raises:
        TypeError: the two do not go together.
    """
    found: type = import_module("jobcast.celery.request").request_class(task.Request)
    return found


def _with_report(name: str, own: Any) -> Callable[..., Any]:
    """A hook of a subclass, with jobcast's part after it whether or not it calls ``super()``."""
    report = getattr(ProgressTask, REPORTS[name])

    @wraps(own if callable(own) else own.__func__)
    def hook(self: ProgressTask, *args: Any, **kwargs: Any) -> Any:
        try:
            return own.__get__(self, type(self))(*args, **kwargs)
        finally:
            report(self, *args, **kwargs)

    return hook


def _with_leaving(own: Any) -> Callable[..., Any]:
    """A ``__call__`` of a subclass, after which Celery stores how the task ended."""

    @wraps(own)
    def call(self: ProgressTask, *args: Any, **kwargs: Any) -> Any:
        request = self.request_stack.top
        try:
            return own.__get__(self, type(self))(*args, **kwargs)
        finally:
            if request is not None and not request.called_directly:
                mirror.leave(request.id)

    return call


def _speaker(task: Any) -> ProgressTask | None:
    """The followed task whose job a run is of, although another one may stand in for it."""
    if is_followed(task):
        return cast("ProgressTask", task)
    replaced = headers_of(task.request).get(STANDS_IN_HEADER)
    found = task.app.tasks.get(replaced) if isinstance(replaced, str) else None
    return found if isinstance(found, ProgressTask) else None


def _enter(task: Any, **_: object) -> None:
    """Before any run, whatever hooks the task has."""
    speaker = _speaker(task)
    if speaker is not None:
        speaker._begin(task)


def _leave(
    task_id: str, task: Any = None, state: str | None = None, retval: Any = None, **_: object
) -> None:
    """After any end of a run, also those that call no hook, it is nobody's current job."""
    job = current_job()
    mirror.leave(task_id)
    if isinstance(job, Job) and job.job_id == job_id_of(task_id):
        job.resign()
        if not job.ended:
            _finish(job, task, state, retval)
        job.flush()


def _finish(job: Job, task: Any, state: str | None, retval: Any) -> None:
    """Say how a run ended that no hook has spoken of, where that is known here."""
    speaker = _speaker(task)
    # Without a state it is an exception that ends the run, maybe one that was known before.
    gone = sys.exc_info()[1] if state is None else _raised_in(job)
    if speaker is None or (state == states.IGNORED and job.replaced):
        return
    if state == states.REJECTED and retval.requeue and _is_acknowledged_late(task):
        job.retry_cause = retval, speaker.message_of(retval)
        job.retrying(attempt=job.attempt, eta=now())
    elif state in (states.IGNORED, states.REJECTED):
        _fail(job, speaker, task, retval)
    elif gone is not None:
        if task.request.is_eager or not _ends_elsewhere(task, gone):
            # The caller gets it, also where it asks for a retry: nobody will do that.
            asked = gone.exc if isinstance(gone, Retry) else None
            _fail(job, speaker, task, really_raised(asked or gone, job.retry_cause[0]))
        else:
            _keep_unfinished(job)
    elif state == states.SUCCESS:
        job.complete(speaker.shown_result(retval))
    elif state == states.FAILURE and isinstance(retval, BaseException):
        _fail(job, speaker, task, retval)
    elif state is None:
        _keep_unfinished(job)


def _raised_in(job: Job) -> BaseException | None:
    """What is being handled in a run: not what whoever runs it, in eager mode, was handling."""
    handled = sys.exc_info()[1]
    return None if handled is job.handled_around else handled


def _fail(job: Job, speaker: ProgressTask, task: Any, cause: BaseException) -> None:
    job.fail(cause, speaker.message_of(cause))
    never_run(task.app, task.request)


def _keep_unfinished(job: Job) -> None:
    _unfinished[job.job_id] = job
    while len(_unfinished) > MAX_UNFINISHED:
        _unfinished.popitem(last=False)


def _is_acknowledged_late(task: Any) -> bool:
    """Whether the broker still has the message of a task that has run."""
    return bool(task.acks_late) and not task.request.is_eager


def _in_pool_child() -> bool:
    """Whether a main process is there, which is told how this one ends."""
    return "PoolWorker" in current_process().name


def _ends_elsewhere(task: Any, gone: BaseException) -> bool:
    """Whether Celery reports an exception that ends a run to somebody else than the task.

    It reports those of a pool's child to the main process. In a pool of greenlets it takes any
    ``Timeout`` of a task with a time limit for that limit, and kills what is revoked. In threads
    and greenlets it reports no other ``BaseException``.
    """
    if _in_pool_child():
        return True
    pool = sys.modules.get(detect_environment())  # gevent or eventlet
    if pool is None:
        return False
    if isinstance(gone, sys.modules["greenlet"].GreenletExit):
        stopped: bool = import_module("jobcast.celery.request").is_stopped(task.request.id)
        return stopped
    limits = (task.request.timelimit or [None])[0], task.time_limit, task.app.conf.task_time_limit
    return isinstance(gone, pool.Timeout) and any(limits)


def _check_settings(sender: Any, **_: object) -> None:
    """A worker with a wrong setting does not start."""
    app = getattr(sender, "app", None)
    try:
        Settings.load(celery_conf=None if app is None else app.conf)
    except SettingsError as exc:
        raise SystemExit(f"jobcast: {exc}") from None


def _watch_main_process(sender: Any, **_: object) -> None:
    """Also where no followed task is known: what a worker does not know may have been one."""
    import_module("jobcast.celery.request")
    import_module("jobcast.celery.startup_check")
    app = getattr(sender, "app", None)
    for task in [] if app is None else app.tasks.values():
        try:
            if is_followed(task):
                _request_class(task)
        except TypeError as exc:
            raise SystemExit(f"jobcast: task {task.name}: {exc}") from None


signals.task_prerun.connect(_enter, weak=False)
signals.task_postrun.connect(_leave, weak=False)
signals.worker_init.connect(_watch_main_process, weak=False)
signals.worker_init.connect(_check_settings, weak=False)
