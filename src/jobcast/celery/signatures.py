"""Signatures of jobs, which carry the job's owner, title and tags in options of their own.

Celery preserves options through ``set``, ``clone``, ``apply_async``, groups and chords, whereas
later ``headers`` replace earlier ones. The options become headers when the message is sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, Self, TypeVar

from celery.canvas import Signature, _chain, _chord, group

from jobcast.celery.headers import OWNER_HEADER, TAGS_HEADER, TITLE_HEADER
from jobcast.publishing.identity import owner_of
from jobcast.publishing.labels import tags_of, title_of

S = TypeVar("S", bound=Signature)

OPTIONS: Final = (OWNER_HEADER, TITLE_HEADER, TAGS_HEADER)


class JobSignature(Signature):
    """A signature of a job, to which arguments can be added.

    >>> convert.owned_by("alice").s(pages)
    """

    @classmethod
    def of(cls, task: Any, options: Mapping[str, Any]) -> Self:
        """Return a signature of a task without arguments, with some of ``OPTIONS``."""
        return cls(task, options=dict(options), app=task.app)

    def s(self, *args: Any, **kwargs: Any) -> Signature:
        """Return the signature with these arguments."""
        return self.clone(args, kwargs)

    def si(self, *args: Any, **kwargs: Any) -> Signature:
        """Return the signature with these arguments, immutable."""
        return self.clone(args, kwargs).set(immutable=True)


def job_headers(
    *, owner: object = None, title: object = None, tags: Iterable[str] = ()
) -> dict[str, Any]:
    """Return the headers that describe a job whose task is sent by its name.

    The sender need not define the task. For a task that it defines, use ``as_job``.

    Args:
        owner: the subject that may follow the job; see :func:`as_job`.
        title: the title of the job, for people.
        tags: up to 10 labels by which the job can be found.

    >>> app.send_task("reports.build", [100], headers=job_headers(owner="alice", tags=["big"]))

    Raises:
        TypeError: the owner is neither a text nor a number nor a UUID, or a tag is no text.
        ValueError: the owner is empty or contains lone surrogates, or the tags are invalid.
    """
    options = {
        OWNER_HEADER: None if owner is None else owner_of(owner),
        TITLE_HEADER: title_of(title),
        TAGS_HEADER: list(tags_of(tags)),
    }
    return {name: value for name, value in options.items() if value}


def as_job(
    signature: S, *, owner: object = None, title: object = None, tags: Iterable[str] = ()
) -> S:
    """Return a signature with an owner, a title and tags of its job.

    Args:
        signature: a signature of a task, or a chain, group or chord. Each of its tasks gets the
            same owner, title and tags.
        owner: the subject that may follow the job: a text, a number (its digits) or a UUID (its
            text).
        title: the title of the job, for people: one line of at most 256 characters.
        tags: up to 10 labels by which the job can be found, each with 1 to 128 characters.

    Raises:
        TypeError: the owner is neither a text nor a number nor a UUID, or a tag is no text.
        ValueError: the owner is empty or contains lone surrogates, or the tags are invalid.

    >>> as_job(convert.s(pages) | upload.s(), owner="alice", tags=["project:7"]).delay()
    """
    described: S = signature.clone()
    _set(described, job_headers(owner=owner, title=title, tags=tags))
    return described


def owned_by(signature: S, owner: object) -> S:
    """Return a signature whose jobs the subject ``owner`` may follow, as :func:`as_job` does.

    Args:
        signature: a signature of a task, or a chain, group or chord. Each of its tasks gets the
            owner.
        owner: a text, a number (its digits) or a UUID (its text).

    Raises:
        TypeError: ``owner`` has another type.
        ValueError: the owner is empty or contains lone surrogates.

    >>> owned_by(convert.s(pages) | upload.s(), "alice").delay()
    """
    return as_job(signature, owner=owner_of(owner))


def with_headers(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a task's options with jobcast's options moved to the headers.

    An existing header takes precedence, because it was set later or explicitly.
    """
    options = dict(options)
    known = {name: options.pop(name) for name in OPTIONS if name in options}
    if known:
        options["headers"] = {**known, **(options.get("headers") or {})}
    return options


def headers_of_options(options: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the headers that a signature's message will have."""
    headers: Mapping[str, Any] = with_headers(options).get("headers") or {}
    return headers


def _set(signature: Any, options: Mapping[str, Any]) -> None:
    match signature:
        case _chord():
            parts = [signature.tasks, signature.body]
        case _chain() | group():
            parts = [signature.tasks]
        case _:
            signature.options.update(options)
            return
    for part in parts:
        for one in [part] if isinstance(part, Signature) else part or ():
            _set(one, options)
