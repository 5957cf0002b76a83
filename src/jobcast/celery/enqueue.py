"""Publish ``queued`` when a task is sent, and add the headers that identify its job."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from uuid import UUID

from celery import Celery, current_app, signals
from msgspec import Struct, structs

from jobcast.celery.apps import active_apps, defines_task
from jobcast.celery.description import queue_of_message, with_defaults
from jobcast.celery.failures import NotSent
from jobcast.celery.headers import (
    AFTER_HEADER,
    DELIVERY_HEADER,
    SENDING_HEADER,
    due,
    headers_of_info,
    info_of,
    is_continuing,
    origin_of,
)
from jobcast.celery.headers import OWNER_HEADER as OWNER_HEADER
from jobcast.celery.reservation import Reservation, current_reservation
from jobcast.celery.signatures import OPTIONS
from jobcast.celery.signatures import as_job as as_job
from jobcast.celery.signatures import job_headers as job_headers
from jobcast.celery.signatures import owned_by as owned_by
from jobcast.events import JobInfo
from jobcast.publishing.identity import job_id_of, owner_of
from jobcast.publishing.job import Job, current_job
from jobcast.publishing.runtime import get_runtime, new_job
from jobcast.publishing.texts import safe_text
from jobcast.transports import Origin, Run
from jobcast.transports.runs import draw


def owner_headers(owner: str | int | UUID) -> dict[str, str]:
    """Return the headers that name the owner of a job whose task is sent by its name.

    The sender need not define the task. For a task that it defines, use ``owned_by``.

    >>> app.send_task("reports.build", [100], headers=owner_headers("alice"))

    Raises:
        TypeError: ``owner`` is neither a text nor a number nor a UUID.
        ValueError: the owner is empty or contains lone surrogates.
    """
    return job_headers(owner=owner_of(owner))


class Sending(Struct):
    """A message that a followed task's ``apply_async`` is sending."""

    app: Celery
    job: Job | None = None  # published as queued; None after its message is sent


_sending: ContextVar[Sending | None] = ContextVar("jobcast_sending", default=None)


@contextmanager
def sending(app: Celery) -> Iterator[None]:
    """Fail the job that was published as queued if sending its message fails.

    Args:
        app: the Celery application that sends the message.
    """
    message = Sending(app)
    token = _sending.set(message)
    try:
        yield
    except Exception:
        if message.job is not None:
            message.job.fail(NotSent())
        raise
    finally:
        _sending.reset(token)


def announce(
    sender: str,
    headers: dict[str, Any],
    properties: dict[str, Any] | None = None,
    body: object = None,
    routing_key: object = None,
    declare: object = None,
    **_: object,
) -> None:
    """Publish ``queued``, so that the owner can follow a job before a worker receives it.

    A task that a job sends belongs to the job's owner, unless its message names another owner. A
    retry is published here, too, because another worker may begin it as soon as it is sent.
    """
    current = _current()
    headers.pop(DELIVERY_HEADER, None)
    for name in OPTIONS:
        # A task that is sent by name bypasses ProgressTask.apply_async().
        if properties and name in properties:
            headers.setdefault(name, properties.pop(name))
    message = fields_of(headers, body)
    job_id = job_id_of(message["id"])
    if message.get("retries"):
        if current is not None and current.job_id == job_id:
            current.retrying(retry_at=due(message.get("eta")))
            current.check_cancelled()  # a cancelled job ends instead of being retried
            # Celery copies request.headers only, which may be a tracer's nested headers.
            for name, value in current.kept_headers.items():
                headers.setdefault(name, value)
            # The run may have set another title, and added tags.
            headers.update(headers_of_info(current.info))
            headers[AFTER_HEADER] = current.last_event_ref
        return
    app = _sending_app(sender)
    if not is_job(app, sender, headers):
        return
    if current is not None and current.owner is not None:
        headers.setdefault(OWNER_HEADER, current.owner)
    reserved = current_reservation(job_id)
    if reserved is not None:
        headers[SENDING_HEADER] = reserved.job.origin.run.sending
        headers.update(headers_of_info(reserved.job.info))
        _set_sending_job(reserved.job)
        return
    if not is_continuing(headers.get(SENDING_HEADER)):
        headers[SENDING_HEADER] = draw()
    if current is not None and current.replaced and current.job_id == job_id:
        headers[AFTER_HEADER] = current.last_event_ref
        for name, value in headers_of_info(current.info).items():
            headers.setdefault(name, value)
        return
    job = new_job(job_id, origin=origin_of(headers), celery_conf=app.conf)
    if isinstance(job, Job):
        info = structs.replace(info_of(headers), queue=queue_of_message(routing_key, declare))
        job.info = _described(info, app, sender, *_arguments_of(message, body))
        _publish_queued(job, app)
        headers.update(headers_of_info(job.info))
        _set_sending_job(job)


def reserve(
    app: Celery,
    name: str,
    job_id: str,
    headers: Mapping[str, Any],
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
) -> Reservation | None:
    """Publish ``queued`` for a task that this process sends later, such as at a commit.

    Args:
        app: the Celery application that will send the task.
        name: the name of the task.
        job_id: the id that the task will have.
        headers: the headers that its message will have.
        args: the positional arguments of the task.
        kwargs: the keyword arguments of the task.

    Returns:
        The reservation; None if the job cannot be published, or if the transport has no leases:
        without a lease, the job would stay queued if this process dies.
    """
    current = _current()
    owner = origin_of(headers).owner or (None if current is None else current.owner)
    run = Run(sending=draw(), delivery=draw())
    runtime = get_runtime(app.conf)
    if runtime is None or not runtime.publisher.has_leases:
        return None
    job = new_job(job_id, origin=Origin(owner, run=run), celery_conf=app.conf)
    if not isinstance(job, Job):
        return None
    job.info = _described(info_of(headers), app, name, args, kwargs or {})
    _publish_queued(job, app)
    return Reservation(job, runtime)


def _described(
    info: JobInfo, app: Celery, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> JobInfo:
    """Return the description of a job that this process sends."""
    current = _current()
    parent_id = info.parent if current is None else current.job_id
    info = structs.replace(info, task=safe_text(name), parent=parent_id)
    task = app.tasks.get(name)
    return info if task is None else with_defaults(info, task, args, kwargs)


def _arguments_of(
    message: Mapping[str, Any], body: object
) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """Return the arguments in a task's message, of either version of Celery's protocol."""
    if isinstance(body, tuple | list) and len(body) == 3:
        args, kwargs, _ = body
        return args or (), kwargs or {}
    return message.get("args") or (), message.get("kwargs") or {}


def _publish_queued(job: Job, app: Celery) -> None:
    runtime = get_runtime(app.conf)
    if _current() is None and runtime is not None:
        # Outside of a job, the sender is probably a web request, which must not wait long.
        job.flush_timeout = runtime.settings.enqueue_timeout
    job.queued()
    job.settle()


def _current() -> Job | None:
    """Return the job whose run sends a task; None outside of a job."""
    job = current_job()
    return job if isinstance(job, Job) else None


def fields_of(headers: Mapping[str, Any], body: object) -> Mapping[str, Any]:
    """Return the fields of a task's message.

    They are in the headers, or in the body with version 1 of Celery's message protocol. jobcast's
    own fields are in the headers with both versions.
    """
    return body if "id" not in headers and isinstance(body, Mapping) else headers


def _sent(headers: Mapping[str, Any], body: object = None, **_: object) -> None:
    """Note that the message is sent, so that a later error does not fail the job."""
    _set_sending_job(None)
    reserved = current_reservation(job_id_of(fields_of(headers, body).get("id")))
    if reserved is not None:
        reserved.is_sent = True


def _set_sending_job(job: Job | None) -> None:
    sending = _sending.get()
    if sending is not None:
        sending.job = job


def _sending_app(name: str) -> Celery:
    """Return the application that sends a task, which need not be the current one.

    The signal does not name the application.
    """
    sending = _sending.get()
    if sending is not None:
        return sending.app
    if name not in current_app.tasks:
        for app in active_apps():
            if defines_task(app, name):
                return app
    return current_app


def is_job(app: Celery, name: str, headers: Mapping[str, Any]) -> bool:
    """Return whether a task's message creates a job, which clients can follow."""
    if is_internal(name):
        return False
    # A task that only the worker defines is a job if its message has an owner.
    return OWNER_HEADER in headers or is_followed(app.tasks.get(name))


def is_followed(task: Any) -> bool:
    """Return whether a task's runs are jobs."""
    return getattr(task, "is_followed", False) and not is_internal(task.name)


def is_internal(name: str) -> bool:
    """Return whether a task is one of Celery's own, such as ``celery.chord_unlock``.

    These are never jobs, even if ``ProgressTask`` is the base of every task or their message has
    an owner.
    """
    return name.startswith("celery.")


signals.before_task_publish.connect(announce, weak=False)
signals.after_task_publish.connect(_sent, weak=False)
