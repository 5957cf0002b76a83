"""The base class of tasks whose progress, logs and outcome can be followed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from importlib import import_module
from typing import Any, TypeVar
from uuid import UUID

from celery import Task
from celery.canvas import Signature

from jobcast.celery import lifecycle as lifecycle  # connects Celery's signals
from jobcast.celery.apps import enter_call, is_inside_call
from jobcast.celery.cancel_attributes import check_attributes
from jobcast.celery.cancelled import cancellable, is_skipped, revoked_if_cancelled
from jobcast.celery.canvas import find_last_step, mark_last_step
from jobcast.celery.description import info_of_run
from jobcast.celery.enqueue import is_followed, sending
from jobcast.celery.failures import failure_message, original_exception
from jobcast.celery.headers import due, headers_of
from jobcast.celery.hooks import package_of, request_class_of, wrap_hooks
from jobcast.celery.jobs import fail_run, job_of_run, raised_in, take_aborted
from jobcast.celery.progress_mirror import mirror_progress, stop_mirroring
from jobcast.celery.signatures import JobSignature, job_headers, with_headers
from jobcast.publishing.identity import job_id_of, owner_of
from jobcast.publishing.job import Job, _current, current_job
from jobcast.publishing.runtime import get_runtime

T = TypeVar("T")

logger = logging.getLogger(__name__)


class ProgressTask(Task):
    """A task that can be followed while it runs.

    The task publishes its start, retries, success and failure without any code of its own:

    >>> @app.task(base=ProgressTask, bind=True)
    ... def convert(self, pages):
    ...     for page in self.track(pages, message="converting"):
    ...         ...

    ``Celery(task_cls="jobcast:ProgressTask")`` makes it the base of every task. A subclass may
    define hooks (``on_success`` and so on), and need not call ``super()``. It may have further
    base classes, before or after this one, with their own hooks, ``__call__`` and ``Request``.

    Attributes:
        job_title: the title of each job that its sender gives none: a format of the task's
            arguments, such as ``"Report for {customer}"`` or ``"Report for {0}"``, or a method that
            takes them.
        job_tags: the tags of each job, in addition to those of its sender: a sequence, or a method
            that takes the task's arguments.
        cancellable: whether the jobs can be cancelled.
        cancel_grace: seconds after which the worker terminates a cancelled run that does not end
            by itself, if its pool can do so; None for never. Celery terminates the child process of
            a prefork pool (with SIGTERM, then SIGKILL) or the greenlet.
    """

    abstract = True
    is_followed = True

    job_title: str | Callable[..., object] | None = None
    job_tags: Sequence[str] | Callable[..., Iterable[str]] = ()
    cancellable = True
    cancel_grace: float | None = 30.0

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        check_attributes(cls)
        wrap_hooks(cls, ProgressTask)

    def progress(
        self,
        percentage: float | None = None,
        message: str | None = None,
        *,
        current: float | None = None,
        total: float | None = None,
    ) -> None:
        """Report the progress of the job, or of its current stage: see :meth:`Job.progress`."""
        if current is None:
            _current.get().progress(percentage, message)
        else:
            _current.get().progress(percentage, message, current=current, total=total)

    def log(self, message: object, level: str | int | None = "info") -> None:
        """Publish a log line: see :meth:`Job.log`."""
        _current.get().log(message, level)

    def track(
        self, iterable: Iterable[T], total: float | None = None, message: str | None = None
    ) -> Iterator[T]:
        """Iterate, and report progress, rate and remaining time: see :meth:`Job.track`."""
        return _current.get().track(iterable, total, message)

    def stage(
        self, name: str, weight: float = 1, of: float | None = None
    ) -> AbstractContextManager[None]:
        """Run a stage of the job, with its own range of percentages: see :meth:`Job.stage`."""
        return _current.get().stage(name, weight, of)

    @property
    def cancelled(self) -> bool:
        """Whether the job is to be cancelled: see :class:`Job`."""
        return _current.get().cancelled

    def check_cancelled(self) -> None:
        """Raise ``JobCancelled`` if the job is to be cancelled: see :meth:`Job.check_cancelled`."""
        _current.get().check_cancelled()

    def shielded(self) -> AbstractContextManager[None]:
        """Hold a cancellation back in a block: see :meth:`Job.shielded`."""
        return _current.get().shielded()

    def on_cancel(self, callback: Callable[[], object]) -> None:
        """Call a function when the job is cancelled: see :meth:`Job.on_cancel`."""
        _current.get().on_cancel(callback)

    def run_async(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine that is cancelled with the job: see :meth:`Job.run_async`."""
        return _current.get().run_async(coroutine)

    def set_title(self, title: object) -> None:
        """Give the job another title: see :meth:`Job.set_title`."""
        _current.get().set_title(title)

    def add_tags(self, *tags: str) -> None:
        """Add tags to the job: see :meth:`Job.add_tags`."""
        _current.get().add_tags(*tags)

    def as_job(
        self,
        *,
        owner: str | int | UUID | None = None,
        title: object = None,
        tags: Iterable[str] = (),
    ) -> JobSignature:
        """Return a signature of this task, with an owner, a title and tags of its job.

        They stay, whatever headers are set later. For existing signatures, chains, groups and
        chords, see :func:`jobcast.as_job`.

        Args:
            owner: the subject that may follow the job. A number, such as a user's id, is converted
                to its digits, and a UUID to its text.
            title: the title of the job, for people: one line of at most 256 characters. By default
                it is made from ``job_title``.
            tags: up to 10 labels by which the job can be found, each with 1 to 128 characters and
                none of them a control character. Those of ``job_tags`` are added.

        >>> report.as_job(owner="alice", title="March report", tags=["project:7"]).delay(7)
        >>> report.as_job(tags=["nightly"]).s(7) | upload.s()

        Raises:
            TypeError: ``owner`` or a tag has another type.
            ValueError: the owner is empty or contains lone surrogates, or the tags are invalid.
        """
        return JobSignature.of(self, job_headers(owner=owner, title=title, tags=tags))

    def owned_by(self, owner: str | int | UUID) -> JobSignature:
        """Return a signature of this task whose job the subject ``owner`` may follow.

        This is short for ``as_job(owner=owner)``. For existing signatures, chains, groups and
        chords, see :func:`jobcast.owned_by`.

        >>> convert.owned_by("alice").delay(pages)
        >>> convert.owned_by("alice").s(pages) | upload.s()

        Raises:
            TypeError: ``owner`` has another type.
            ValueError: the owner is empty or contains lone surrogates.
        """
        return self.as_job(owner=owner_of(owner))

    def public_result(self, result: Any) -> Any:
        """Return the result to show to followers. Override it to show less, or something else.

        >>> def public_result(self, result):
        ...     return {"pages": len(result)}
        """
        return result

    def public_error(self, exc: BaseException) -> str:
        """Return the message to show when the job fails. Override it to show less, or other text.

        By default, it is the exception's own text, with secrets in URLs masked. Celery's own
        exceptions, such as a lost worker or a time limit, have messages in plain words. A blank
        text is replaced by a default message.

        >>> def public_error(self, exc):
        ...     return "The archive is damaged" if isinstance(exc, BadZipFile) else ""
        """
        return failure_message(exc)

    def start_strategy(self, app: Any, consumer: Any, **kwargs: Any) -> Any:
        # Celery creates its requests from this class. jobcast's base class of it sees the outcomes
        # that a pool's child process cannot report.
        self.Request = request_class_of(self)
        import_module("jobcast.celery.cancel_requests").begin(consumer)
        return super().start_strategy(app, consumer, **kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        request = self.request_stack.top
        following = super().__call__
        if request is None or request.called_directly or is_inside_call(request):
            return following(*args, **kwargs)
        try:
            with cancellable(self):
                if following.__func__ is not Task.__call__:
                    return following(*args, **kwargs)
                # Celery's workers call a task without its own __call__ in the same way.
                enter_call(request)
                return self.run(*args, **kwargs)
        finally:
            # Stop before Celery stores the final state.
            stop_mirroring(request.id)

    def apply_async(self, *args: Any, **kwargs: Any) -> Any:
        with sending(self.app):
            return super().apply_async(*args, **with_headers(kwargs))

    def apply(self, *args: Any, **kwargs: Any) -> Any:
        return revoked_if_cancelled(super().apply(*args, **with_headers(kwargs)))

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
        # After the run has ended, its request no longer exists.
        job = take_aborted(job_id_of(task_id)) or self._job(task_id, self)
        if job is not None and not job.ended:
            cause = original_exception(exc)
            fail_run(job, self, cause, self.message_of(cause))

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
            cause = None if exc is None else original_exception(exc, job.retry_cause[0])
            self._keep_cause(job, cause)
            job.retrying(retry_at=due(getattr(einfo.exception, "when", None)))

    def retry(
        self, args: Any = None, kwargs: Any = None, exc: BaseException | None = None,
        *rest: Any, **options: Any,
    ) -> Any:  # fmt: skip
        job = current_job()
        if isinstance(job, Job):
            job.confirm_start()
            job.check_cancelled()
            # The retry is published when its message is sent, which is before on_retry is called.
            self._keep_cause(job, exc or raised_in(job))
        return super().retry(args, kwargs, exc, *rest, **options)

    def replace(self, sig: Signature) -> Any:
        job, sending = current_job(), ""
        sig, last = find_last_step(self.app, sig)
        if isinstance(job, Job):
            job.end_if_cancelled()
            # jobcast cannot stop a task of another class.
            is_cancellable = is_followed(self.app.tasks.get(last.task))
            # Publish before the replacement is sent, because another worker may finish it at once.
            job.last_status = job.queued(cancellable=is_cancellable)
            job.flush()
            # The store ends a cancelled job as soon as it does not run.
            job.end_if_cancelled()
            job.replaced = True
            sending = job.origin.run.sending
        mark_last_step(self.app, last, self.name, sending)
        return super().replace(sig)

    def shown_result(self, result: Any) -> Any:
        """Return the result to show to followers, or a description if ``public_result`` raises."""
        hidden = {"omitted": "unserializable", "type": type(result).__name__}
        return self._shown(self.public_result, result, hidden)

    def message_of(self, exc: BaseException) -> Any:
        """Return the message to show for an exception, or its type if ``public_error`` raises."""
        message = self._shown(self.public_error, exc, type(exc).__name__)
        # A hook that returns None hides the exception's own text.
        return "" if message is None else message

    def _keep_cause(self, job: Job, exc: BaseException | None) -> None:
        job.retry_cause = exc, "" if exc is None else self.message_of(exc)

    def begin_run(self, task: Any) -> None:
        """Publish that a run of this task, or of its replacement, begins."""
        task_id = task.request.id
        job = None if is_skipped(task.request) else self._job(task_id, task, waits=True)
        if job is None or job is current_job():
            return
        job.package = package_of(task)
        # Before the job is the current one: methods of the task's class may log.
        job.info = info_of_run(task, self, headers_of(task.request))
        job.become_current()
        runtime = get_runtime(self.app.conf)
        if runtime is not None:
            job.on_progress = mirror_progress(runtime.settings, task_id, task, task.request)
        take_aborted(job.job_id)
        job.started()
        if runtime is not None and runtime.publisher.learns_of_cancellations:
            # The answer says whether the job was cancelled before this run.
            job.is_start_confirmed = job.settle()
        else:
            job.is_start_confirmed = True

    def _job(self, task_id: str, task: Any, *, waits: bool = False) -> Job | None:
        """Return the job of a run. In a pool's child process it is the current job.

        Return None for hooks that Celery calls in a worker's main process without the run's
        request. There :class:`~jobcast.celery.request.JobRequest` reports the outcome.
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
            # The hook may exist to hide values, so a failed hook shows none.
            logger.exception(
                "%s of task %s failed; only the type is published", hook.__name__, self.name
            )
            return otherwise
