"""Sending a task for a user, with all that the user's page needs to follow its job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from celery import Task
from celery.canvas import Signature
from celery.local import Proxy
from celery.utils import uuid

from jobcast.celery.enqueue import is_followed, is_internal
from jobcast.celery.signatures import owned_by
from jobcast.events import job_path
from jobcast.issuing import issue_token
from jobcast.publishing.identity import job_id_of
from jobcast.settings import Settings

BY_NAME: Final = (
    "send a task of another application with send_task(name, args, headers=owner_headers(owner))"
)


@dataclass(frozen=True)
class Submission:
    """A job that :func:`submit` has sent. ``dataclasses.asdict`` makes an answer of it.

    Attributes:
        job_id: the id that clients join.
        token: a token of the owner, valid for 15 minutes.
        urls: the URLs of the server (``server``), of the job's state (``state``) and of its event
            stream (``events``). They begin with ``JOBCAST_PUBLIC_URL`` or, if that is not set, are
            paths that begin with ``JOBCAST_PATH_PREFIX``.
    """

    job_id: str
    token: str = field(repr=False)
    urls: Mapping[str, str]


def submit(
    task: Any, /, *args: Any, owner: str | int | UUID, jti: str | None = None, **kwargs: Any
) -> Submission:
    """Send a task whose job ``owner`` may follow, and return what a page needs to follow it.

    The token is issued first: if the settings have no key that signs, no task is sent.

    Args:
        task: a task whose base is ``ProgressTask``, or a signature of one, which may have options:
            ``build.s().set(queue="slow", countdown=60)``.
        args: the positional arguments of the task.
        owner: the subject that may follow the job.
        jti: the id of the token, by which it can be revoked. In Django, ``token_id_of(request)`` is
            the id that the tokens of the user's session have: signing out revokes them.
        kwargs: the keyword arguments of the task. If it has an argument ``owner`` or ``jti``, bind
            it in a signature.

    Raises:
        TypeError: the task is not followed, is a canvas, or ``owner`` has another type.
        ValueError: the owner is empty or contains lone surrogates.
        SettingsError: the settings have no key that signs, or a setting is wrong.
        Exception: the error of ``apply_async`` if the broker does not accept the message.

    >>> submission = submit(build, 100, owner=request.user.pk)
    >>> return JsonResponse(asdict(submission))
    """
    signature = owned_by(_signature_of(task).clone(args, kwargs), owner)
    settings = Settings.load(celery_conf=signature.app.conf)
    job_id = job_id_of(signature.options.setdefault("task_id", uuid()))
    token = issue_token(owner, jobs=[job_id], jti=jti, settings=settings)
    signature.apply_async()
    return Submission(job_id=job_id, token=token, urls=urls_of(job_id, settings))


def urls_of(job_id: str, settings: Settings) -> dict[str, str]:
    """Return the URLs of the server, and of the state and the events of a job."""
    state = f"{settings.client_url}{job_path(job_id)}"
    return {"server": settings.client_url, "state": state, "events": f"{state}/events"}


def _signature_of(task: Any) -> Signature:
    """Return the signature of one followed task.

    Raises:
        TypeError: the task is not followed, or the signature is a canvas.
    """
    if not isinstance(task, Signature | Task | Proxy):
        raise TypeError(
            f"submit() takes a task or a signature of one, not a value of type"
            f" {type(task).__name__}: {BY_NAME}"
        )
    signature = task if isinstance(task, Signature) else task.s()
    if is_internal(signature.task):
        raise TypeError(
            f"submit() sends one task, not a {signature.task.removeprefix('celery.')}: send it with"
            " jobcast.owned_by(canvas, owner).delay()"
        )
    if not is_followed(signature.app.tasks.get(signature.task)):
        raise TypeError(
            f"submit() sends a task of this application whose base is ProgressTask, and"
            f" {signature.task} is none: {BY_NAME}"
        )
    return signature
