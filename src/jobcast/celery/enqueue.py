"""The moment a task is sent: whose job it is, and that it is queued."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from celery import Celery, current_app, signals
from msgspec import Struct

from jobcast.celery.apps import active_apps, defines_task
from jobcast.celery.failures import NotSent
from jobcast.celery.headers import (
    AFTER_HEADER,
    DELIVERY_HEADER,
    SENDING_HEADER,
    due,
    origin_of,
)
from jobcast.celery.headers import OWNER_HEADER as OWNER_HEADER
from jobcast.celery.signatures import OPTIONS
from jobcast.publishing.identity import job_id_of
from jobcast.publishing.job import Job, current_job
from jobcast.publishing.runtime import get_runtime, new_job
from jobcast.transports.runs import draw


class Sending(Struct):
    """What is being sent by a followed task's ``apply_async``."""

    app: Celery
    job: Job | None = None  # that is said to be queued, while it is not sent


_sending: ContextVar[Sending | None] = ContextVar("jobcast_sending", default=None)


@contextmanager
def sending(app: Celery) -> Iterator[None]:
    """Send a job's message; if that fails, say so to whoever was told that it is queued."""
    sending = Sending(app)
    token = _sending.set(sending)
    try:
        yield
    except Exception:
        if sending.job is not None:
            sending.job.fail(NotSent())
        raise
    finally:
        _sending.reset(token)


def announce(
    sender: str,
    headers: dict[str, Any],
    properties: dict[str, Any] | None = None,
    body: object = None,
    **_: object,
) -> None:
    """Publish ``queued``, so that a job can be followed by its owner before a worker has it.

    What a job sends belongs to the job's owner, unless the message says otherwise. A retry is
    announced here too: once it is sent, another worker may begin it before this one has gone on.
    """
    parent = current_job()
    inside = parent if isinstance(parent, Job) else None
    headers.pop(DELIVERY_HEADER, None)
    for name in OPTIONS:
        # What the task's own apply_async() has not seen, for one of a task that is sent by name.
        if properties and name in properties:
            headers.setdefault(name, properties.pop(name))
    message = fields_of(headers, body)
    job_id = job_id_of(message["id"])
    if message.get("retries"):
        if inside is not None and inside.job_id == job_id:
            inside.retrying(eta=due(message.get("eta")))
            # Celery copies request.headers only, which may be those of a tracer.
            for name, value in inside.kept_headers.items():
                headers.setdefault(name, value)
            headers[AFTER_HEADER] = inside.last_event_ref
        return
    app = _app_that_sends(sender)
    if not is_job(app, sender, headers):
        return
    if inside is not None and inside.owner is not None:
        headers.setdefault(OWNER_HEADER, inside.owner)
    headers[SENDING_HEADER] = draw()
    if inside is not None and inside.replaced and inside.job_id == job_id:
        headers[AFTER_HEADER] = inside.last_event_ref
        return
    job = new_job(job_id, origin=origin_of(headers), celery_conf=app.conf)
    if isinstance(job, Job):
        runtime = get_runtime(app.conf)
        if inside is None and runtime is not None:
            # It is a request of the web that waits here, and no task.
            job.patience = runtime.settings.enqueue_timeout
        job.queued(task=sender)
        job.settle()
        _note(job)


def fields_of(headers: Mapping[str, Any], body: object) -> Mapping[str, Any]:
    """What a task's message says of the task: by the first version of Celery's protocol in its
    body, of which jobcast's own headers are no part."""
    return body if "id" not in headers and isinstance(body, Mapping) else headers


def _sent(**_: object) -> None:
    """What goes wrong from here on changes nothing in that."""
    _note(None)


def _note(job: Job | None) -> None:
    sending = _sending.get()
    if sending is not None:
        sending.job = job


def _app_that_sends(name: str) -> Celery:
    """The signal does not say which it is, and it need not be the current one."""
    sending = _sending.get()
    if sending is not None:
        return sending.app
    if name not in current_app.tasks:
        for app in active_apps():
            if defines_task(app, name):
                return app
    return current_app


def is_job(app: Celery, name: str, headers: Mapping[str, Any]) -> bool:
    """Whether a task that is sent can be followed."""
    if is_celerys(name):
        return False
    # One that only the worker knows is a job if it has an owner.
    return OWNER_HEADER in headers or is_followed(app.tasks.get(name))


def is_followed(task: Any) -> bool:
    """Whether a task's runs are jobs."""
    return getattr(task, "is_followed", False) and not is_celerys(task.name)


def is_celerys(name: str) -> bool:
    """Whether a task is one of Celery's own (``celery.chord_unlock``, ...): those are no jobs, also
    where every task has the class, or what they stand for has an owner."""
    return name.startswith("celery.")


signals.before_task_publish.connect(announce, weak=False)
signals.after_task_publish.connect(_sent, weak=False)
