"""The moment a task is sent: whose job it is, and that it is queued."""

from __future__ import annotations

from typing import Any, Final

from celery import current_app, signals

from jobcast.worker.job import Job, current_job
from jobcast.worker.process import new_job

OWNER_HEADER: Final = "jobcast_owner"


def owner_of(request: Any) -> str | None:
    """The subject that a task's message says it belongs to."""
    owner = (request.headers or {}).get(OWNER_HEADER)
    return owner if isinstance(owner, str) and owner else None


def announce(sender: str, headers: dict[str, Any], **_: object) -> None:
    """Publish ``queued``, so that a job can be followed by its owner before a worker has it.

    What a job sends belongs to the job's owner, unless the message says otherwise.
    """
    if not _is_job(sender, headers) or headers.get("retries"):
        return
    parent = current_job()
    if isinstance(parent, Job):
        if parent.job_id == headers.get("id"):
            return  # a task that replaces itself is the same job
        if parent.owner is not None:
            headers.setdefault(OWNER_HEADER, parent.owner)
    job = new_job(headers["id"], owner=headers.get(OWNER_HEADER), celery_conf=current_app.conf)
    if isinstance(job, Job):
        job.queued(task=sender)
        job.flush()


def _is_job(name: str, headers: dict[str, Any]) -> bool:
    from jobcast.worker.task import ProgressTask

    return OWNER_HEADER in headers or isinstance(current_app.tasks.get(name), ProgressTask)


signals.before_task_publish.connect(announce, weak=False)
