"""Steps of chains and chords that never run, because an earlier one did not succeed.

Celery stores a failure for them and calls no hook: nobody would ever hear of them again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from celery import Celery

from jobcast.transports import Origin
from jobcast.worker.endings import StepFailed
from jobcast.worker.job import Job
from jobcast.worker.message import origin_of
from jobcast.worker.process import new_job
from jobcast.worker.sending import is_job


def never_run(app: Celery, request: Any) -> None:
    """Say of every job that was to come after a run that it will not.

    Args:
        app: whose tasks they are.
        request: the ``celery.app.task.Context`` of the run, which did not succeed.
    """
    owner = origin_of(request.headers).owner
    for job_id, name, headers in _coming(request):
        if is_job(app, name, headers):
            origin = Origin(origin_of(headers).owner or owner)
            job = new_job(job_id, origin=origin, celery_conf=app.conf, waits=False)
            if isinstance(job, Job):
                job.fail(StepFailed())


def _coming(request: Any) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Id, task and headers of what was to come after a run."""
    for step in [*(request.chain or []), *([request.chord] if request.chord else [])]:
        yield from _jobs_of(step)


def _jobs_of(signature: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    kwargs = signature.get("kwargs") or {}
    options = signature.get("options") or {}
    match signature.get("subtask_type"):
        case "chain" | "group":
            parts = kwargs.get("tasks") or []
        case "chord":
            parts = [kwargs.get("header"), kwargs.get("body")]
        case _:
            parts = []
            if options.get("task_id"):
                yield options["task_id"], signature["task"], options.get("headers") or {}
    for part in parts:
        if isinstance(part, Mapping):
            yield from _jobs_of(part)
        else:
            for one in part or []:
                yield from _jobs_of(one)
    # What comes after the last step of a chain that is itself a step.
    if (after := options.get("chord")) is not None:
        yield from _jobs_of(after)
