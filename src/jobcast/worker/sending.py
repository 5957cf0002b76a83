"""The moment a task is sent: whose job it is, and that it is queued."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from celery import Celery, current_app, signals

from jobcast.transports.runs import draw
from jobcast.worker.job import Job, current_job
from jobcast.worker.message import (
    AFTER_HEADER,
    DELIVERY_HEADER,
    SENDING_HEADER,
    due,
    origin_of,
)
from jobcast.worker.message import OWNER_HEADER as OWNER_HEADER
from jobcast.worker.process import new_job


def announce(sender: str, headers: dict[str, Any], **_: object) -> None:
    """Publish ``queued``, so that a job can be followed by its owner before a worker has it.

    What a job sends belongs to the job's owner, unless the message says otherwise. A retry is
    announced here too: once it is sent, another worker may begin it before this one has gone on.
    """
    parent = current_job()
    inside = parent if isinstance(parent, Job) else None
    headers.pop(DELIVERY_HEADER, None)
    if headers.get("retries"):
        if inside is not None and inside.job_id == headers.get("id"):
            inside.retrying(eta=due(headers.get("eta")))
            headers[AFTER_HEADER] = inside.last_word
        return
    if not is_job(current_app, sender, headers):
        return
    if inside is not None and inside.owner is not None:
        headers.setdefault(OWNER_HEADER, inside.owner)
    headers[SENDING_HEADER] = draw()
    if inside is not None and inside.replaced and inside.job_id == headers["id"]:
        headers[AFTER_HEADER] = inside.last_word
        return
    job = new_job(headers["id"], origin=origin_of(headers), celery_conf=current_app.conf)
    if isinstance(job, Job):
        job.queued(task=sender)
        job.flush()


def is_job(app: Celery, name: str, headers: Mapping[str, Any]) -> bool:
    """Whether a task that is sent can be followed."""
    # One that only the worker knows is a job if it has an owner.
    return OWNER_HEADER in headers or is_followed(app.tasks.get(name))


def is_followed(task: Any) -> bool:
    """Whether a task's runs are jobs. Those of Celery's own tasks (``celery.chord_unlock``, ...)
    are nobody's, also where every task has the class."""
    return getattr(task, "is_followed", False) and not task.name.startswith("celery.")


signals.before_task_publish.connect(announce, weak=False)
