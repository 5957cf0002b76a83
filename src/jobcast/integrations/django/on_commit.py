"""Send a task at the end of a transaction, and show its job from the beginning."""

from __future__ import annotations

import weakref
from typing import Any

from django.db import transaction

from jobcast.celery.enqueue import reserve
from jobcast.celery.failures import RolledBack
from jobcast.celery.reservation import Reservation
from jobcast.celery.signatures import headers_of_options
from jobcast.publishing.identity import job_id_of


class _Send:
    """A callback that sends a task.

    Django has no hook for a rollback, but it discards the callback then. Nothing else may refer to
    the callback.
    """

    def __init__(self, task: Any, args: Any, kwargs: Any, options: dict[str, Any]) -> None:
        self._task = task
        self._call = args, kwargs
        self._options = options
        self._reservation: Reservation | None = None

    def reserve(self) -> None:
        """Publish the job as queued, and withdraw it when this callback is discarded."""
        task, options = self._task, self._options
        job_id, headers = job_id_of(options["task_id"]), headers_of_options(options)
        args, kwargs = self._call
        reservation = reserve(task.app, task.name, job_id, headers, args or (), kwargs)
        self._reservation = reservation
        if reservation is not None:
            discarded = weakref.finalize(self, reservation.withdraw, RolledBack())
            # A process that exits is like one that dies: the lease expires.
            discarded.atexit = False
            self._discarded = discarded

    def __call__(self) -> None:
        if self._reservation is None:
            self._send()
            return
        self._discarded.detach()
        with self._reservation.sending():
            self._send()

    def _send(self) -> None:
        args, kwargs = self._call
        self._task.apply_async(args, kwargs, **self._options)


def send_on_commit(
    task: Any, using: str | None, args: Any, kwargs: Any, options: dict[str, Any]
) -> None:
    """Send a task when the current transaction commits, or now if there is none.

    Args:
        task: the task.
        using: the alias of the database.
        args: the positional arguments of the task.
        kwargs: the keyword arguments of the task.
        options: the options of ``apply_async``, with a ``task_id``.

    Raises:
        TransactionManagementError: the database connection commits neither automatically nor at
            the end of an ``atomic`` block.
    """
    send = _Send(task, args, kwargs, options)
    if transaction.get_connection(using).in_atomic_block:
        send.reserve()
    transaction.on_commit(send, using=using)
