"""Steps of chains and chords that never run, because an earlier one did not succeed.

Celery stores a failure for them and calls no hook: nobody would ever hear of them again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

from celery import Celery, group
from celery.canvas import _chain, _chord

from jobcast.celery.enqueue import is_followed, is_job
from jobcast.celery.failures import StepFailed
from jobcast.celery.headers import STANDS_IN_HEADER, headers_of, origin_of
from jobcast.celery.signatures import headers_of_options
from jobcast.publishing.identity import job_id_of
from jobcast.publishing.job import Job
from jobcast.publishing.runtime import new_job
from jobcast.transports import Origin


def never_run(app: Celery, request: Any) -> None:
    """Say of every job that was to come after a run that it will not.

    Args:
        app: whose tasks they are.
        request: the ``celery.app.task.Context`` of the run, which did not succeed.
    """
    never_run_steps(app, request.chain, request.chord, origin_of(headers_of(request)).owner)


def never_run_steps(app: Celery, steps: Iterable[Any] | None, body: Any, owner: str | None) -> None:
    """Say of every job of a message's chain and chord that it will not run.

    Args:
        app: whose tasks they are.
        steps: of the chain that are left, if there is one.
        body: of the chord, if there is one.
        owner: whose they are.
    """
    for job_id, name, headers in chain.from_iterable(map(_jobs_of, [*(steps or []), body or {}])):
        if is_job(app, name, headers):
            origin = Origin(origin_of(headers).owner or owner)
            job = new_job(job_id, origin=origin, celery_conf=app.conf, waits=False)
            if isinstance(job, Job):
                # A step is sent before the one before it has quite ended, and may be running.
                job.fail(StepFailed(), requires="pending")


def standing_in(app: Celery, signature: Any, name: str) -> Any:
    """What replaces a task, marked so that whoever runs the last of it speaks for the job.

    Args:
        app: that knows the tasks.
        signature: gets the job's id, and need not be of a followed task.
        name: of the task that is replaced.
    """
    if isinstance(signature, group):
        signature |= app.tasks["celery.accumulate"].s(index=0)  # as Celery would
    last = signature
    while isinstance(last, _chain | _chord):
        if isinstance(last, _chord):
            last = last.body
        else:
            last.tasks = list(last.tasks)
            if isinstance(last.tasks[-1], group):
                last.tasks[-1] |= app.tasks["celery.accumulate"].s(index=0)
            last = last.tasks[-1]
    if not is_followed(app.tasks.get(last.task)):
        last.options["headers"] = {**(last.options.get("headers") or {}), STANDS_IN_HEADER: name}
    return signature


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
                job_id = job_id_of(options["task_id"])
                yield job_id, signature["task"], headers_of_options(options)
    for part in parts:
        if isinstance(part, Mapping):
            yield from _jobs_of(part)
        else:
            for one in part or []:
                yield from _jobs_of(one)
    # What comes after the last step of a chain that is itself a step.
    if (after := options.get("chord")) is not None:
        yield from _jobs_of(after)
