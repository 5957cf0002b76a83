"""The moment a task is sent: whose job it is, and that it is queued."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from celery import current_app, signals

from jobcast.events import now
from jobcast.transports import Origin
from jobcast.worker.job import Job, current_job
from jobcast.worker.process import new_job

OWNER_HEADER: Final = "jobcast_owner"
SENDING_HEADER: Final = "jobcast_sending"
AFTER_HEADER: Final = "jobcast_after"
_NAMES_AN_EVENT: Final = re.compile(r"\w+ \d{1,15}", re.ASCII)


def origin_of(headers: Mapping[str, Any] | None) -> Origin:
    """What a task's message says of where it comes from."""
    headers = headers or {}
    owner, sending = headers.get(OWNER_HEADER), headers.get(SENDING_HEADER)
    after = headers.get(AFTER_HEADER)
    return Origin(
        owner=owner if isinstance(owner, str) and owner else None,
        sending=sending if isinstance(sending, str) and sending.isalnum() else "",
        after=after if isinstance(after, str) and _NAMES_AN_EVENT.fullmatch(after) else "",
    )


def announce(sender: str, headers: dict[str, Any], **_: object) -> None:
    """Publish ``queued``, so that a job can be followed by its owner before a worker has it.

    What a job sends belongs to the job's owner, unless the message says otherwise. A retry is
    announced here too: once it is sent, another worker may begin it before this one has gone on.
    """
    parent = current_job()
    if isinstance(parent, Job) and parent.job_id == headers.get("id"):
        if headers.get("retries"):
            parent.retrying(eta=due(headers.get("eta")))
            headers[AFTER_HEADER] = parent.last_word
        return
    if not _is_job(sender, headers) or headers.get("retries"):
        return
    if isinstance(parent, Job) and parent.owner is not None:
        headers.setdefault(OWNER_HEADER, parent.owner)
    headers[SENDING_HEADER] = secrets.token_hex(6)
    job = new_job(headers["id"], origin=origin_of(headers), celery_conf=current_app.conf)
    if isinstance(job, Job):
        job.queued(task=sender)
        job.flush()


def due(when: object) -> datetime:
    """When a task is due; Celery says it as a time, as seconds from now, or not at all."""
    if isinstance(when, str):
        when = datetime.fromisoformat(when)
    if isinstance(when, datetime):
        return when if when.tzinfo else when.replace(tzinfo=UTC)
    return now() + timedelta(seconds=when if isinstance(when, int | float) else 0)


def _is_job(name: str, headers: dict[str, Any]) -> bool:
    # A task that only the worker knows is a job if it has an owner.
    task = current_app.tasks.get(name)
    return OWNER_HEADER in headers or getattr(task, "is_followed", False)


signals.before_task_publish.connect(announce, weak=False)
