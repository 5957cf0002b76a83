"""The base class of tasks that Django's views send, also at the end of a transaction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from celery.contrib.django.task import DjangoTask
from celery.result import AsyncResult
from celery.utils import uuid

from jobcast.celery.signatures import JobSignature, job_headers
from jobcast.celery.task import ProgressTask as CeleryProgressTask
from jobcast.integrations.django.on_commit import send_on_commit
from jobcast.publishing.identity import owner_of


class OnCommitSignature(JobSignature):
    """A signature of a job, which can be sent at the end of a transaction."""

    def delay_on_commit(self, *args: Any, **kwargs: Any) -> AsyncResult:
        """Send the task when the transaction commits: see :meth:`ProgressTask.delay_on_commit`."""
        return self.apply_async_on_commit(args, kwargs)

    def apply_async_on_commit(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> AsyncResult:
        """Send the task with options: see :meth:`ProgressTask.apply_async_on_commit`."""
        using = options.pop("using", None)
        merged = self.clone(args, kwargs, **options)
        return self.type.apply_async_on_commit(
            merged.args, merged.kwargs, using=using, **merged.options
        )


class ProgressTask(CeleryProgressTask, DjangoTask):
    """A :class:`jobcast.ProgressTask` with the methods that Celery adds for Django.

    >>> @shared_task(base=ProgressTask, bind=True)
    ... def build(self, pages): ...
    >>> with transaction.atomic():
    ...     report = Report.objects.create(owner=request.user)
    ...     job = build.owned_by(request.user.pk).delay_on_commit(report.pk)
    >>> job.id  # can be followed before the transaction commits
    """

    abstract = True

    def as_job(
        self,
        *,
        owner: str | int | UUID | None = None,
        title: object = None,
        tags: Iterable[str] = (),
    ) -> OnCommitSignature:
        """Return a signature of this task, with an owner, a title and tags of its job.

        >>> build.as_job(owner=request.user.pk, title=report.name).delay_on_commit(report.pk)
        """
        return OnCommitSignature.of(self, job_headers(owner=owner, title=title, tags=tags))

    def owned_by(self, owner: str | int | UUID) -> OnCommitSignature:
        """Return a signature of this task whose job the subject ``owner`` may follow.

        >>> build.owned_by(request.user.pk).delay_on_commit(report.pk)
        """
        return self.as_job(owner=owner_of(owner))

    def delay_on_commit(self, *args: Any, **kwargs: Any) -> AsyncResult:
        """Send the task when the current transaction commits.

        The job is ``queued`` at once, so that a page can follow it. If the transaction is rolled
        back, or if this process dies before the commit, the job ends with an error.

        Returns:
            The result, whose ``id`` is the id of the job. Celery's own method returns None.
        """
        return self.apply_async_on_commit(args, kwargs)

    def apply_async_on_commit(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        *,
        using: str | None = None,
        **options: Any,
    ) -> AsyncResult:
        """Send the task with Celery's options when the current transaction commits.

        Args:
            args: the positional arguments of the task.
            kwargs: the keyword arguments of the task.
            using: the alias of the database with the transaction; the default one by default.
            options: the options of ``apply_async``.
        """
        options.setdefault("task_id", uuid())
        send_on_commit(self, using, args, kwargs, options)
        return self.AsyncResult(options["task_id"])
