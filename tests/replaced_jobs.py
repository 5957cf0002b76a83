"""Tasks that are replaced by others, which go to the queue that they get."""

from __future__ import annotations

from typing import Any

from celery import chain, group

from jobcast import ProgressTask
from tests.cancelled_jobs import app as app
from tests.cancelled_jobs import job, note, runs


@job()
def is_replaced(self: ProgressTask, kind: str, queue: str, notes: str) -> Any:
    note(notes, "began")
    last: Any = runs.si(notes).set(queue=queue)
    raise self.replace(chain(runs.si(notes), last) if kind == "chain" else last)


@job(max_retries=1)
def is_replaced_after_a_retry(self: ProgressTask, kind: str, queue: str, notes: str) -> Any:
    note(notes, "began")
    if self.request.retries == 0:
        raise self.retry(countdown=0)
    raise self.replace(runs.si(notes).set(queue=queue))


@app.task(shared=False)
def plain(notes: str) -> str:
    """Run as a plain Celery task, which jobcast cannot stop."""
    note(notes, "ran")
    return "done"


@job()
def is_replaced_by_plain_tasks(self: ProgressTask, kind: str, queue: str, notes: str) -> Any:
    note(notes, "began")
    last: Any = plain.si(notes).set(queue=queue)
    raise self.replace(group([last]) if kind == "group" else last)
