"""Fail the steps of chains and chords that never run, because an earlier step did not succeed.

Celery stores a failure for them, but calls no hook, so their jobs would never end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

from celery import Celery, group
from celery.canvas import _chain, _chord
from msgspec import structs

from jobcast.celery.enqueue import is_followed, is_job
from jobcast.celery.failures import StepFailed
from jobcast.celery.headers import (
    SENDING_HEADER,
    STANDS_IN_HEADER,
    headers_of,
    info_of,
    origin_of,
)
from jobcast.celery.signatures import headers_of_options
from jobcast.publishing.identity import job_id_of
from jobcast.publishing.job import Job
from jobcast.publishing.runtime import new_job
from jobcast.publishing.texts import safe_text
from jobcast.transports import Origin
from jobcast.transports.runs import continuing


def fail_later_steps(app: Celery, request: Any) -> None:
    """Fail the jobs of all steps that follow a run.

    Args:
        app: the Celery application of the tasks.
        request: the ``celery.app.task.Context`` of the run, which did not succeed.
    """
    fail_steps(app, request.chain, request.chord, origin_of(headers_of(request)).owner)


def fail_steps(app: Celery, steps: Iterable[Any] | None, body: Any, owner: str | None) -> None:
    """Fail the jobs of all steps in a message's chain and chord.

    Args:
        app: the Celery application of the tasks.
        steps: the remaining steps of the chain, if there is one.
        body: the body of the chord, if there is one.
        owner: the owner of steps that have none in their headers.
    """
    for job_id, name, headers in chain.from_iterable(map(_jobs_of, [*(steps or []), body or {}])):
        if is_job(app, name, headers):
            origin = Origin(origin_of(headers).owner or owner)
            job = new_job(job_id, origin=origin, celery_conf=app.conf, waits=False)
            if isinstance(job, Job):
                job.info = structs.replace(info_of(headers), task=safe_text(name))
                # Celery may have sent the step before its predecessor ended; it may be running.
                job.fail(StepFailed(), requires="pending")


def find_last_step(app: Celery, signature: Any) -> tuple[Any, Any]:
    """Return the signature that replaces a task, and its last step, which ends the task's job.

    A group gets a last step, as in Celery's ``Task.replace``.
    """
    if isinstance(signature, group):
        signature |= app.tasks["celery.accumulate"].s(index=0)
    last = signature
    while isinstance(last, _chain | _chord):
        if isinstance(last, _chord):
            last = last.body
        else:
            last.tasks = list(last.tasks)
            if isinstance(last.tasks[-1], group):
                last.tasks[-1] |= app.tasks["celery.accumulate"].s(index=0)
            last = last.tasks[-1]
    return signature, last


def mark_last_step(app: Celery, last: Any, name: str, sending: str) -> None:
    """Mark the last step of a replacement, so that it publishes for the job of the replaced task.

    Its events belong to the sending of the replaced task: if a request has ended the job, the
    store drops them.

    Args:
        app: the Celery application of the tasks.
        last: the signature of the step. Its task need not be a followed one.
        name: the name of the replaced task.
        sending: the sending of the replaced task's run; empty if it is unknown.
    """
    marks: dict[str, str] = {}
    if not is_followed(app.tasks.get(last.task)):
        marks[STANDS_IN_HEADER] = name
    if sending:
        marks[SENDING_HEADER] = continuing(sending)
    last.options["headers"] = {**(last.options.get("headers") or {}), **marks}


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
    # The steps after a chain that is itself a step.
    if (after := options.get("chord")) is not None:
        yield from _jobs_of(after)
