"""Signatures of jobs, which carry the job's owner in an option of their own.

Celery preserves options through ``set``, ``clone``, ``apply_async``, groups and chords, whereas
later ``headers`` replace earlier ones. The option becomes a header when the message is sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, TypeVar

from celery.canvas import Signature, _chain, _chord, group

from jobcast.celery.headers import OWNER_HEADER
from jobcast.publishing.identity import owner_of

S = TypeVar("S", bound=Signature)

OPTIONS = (OWNER_HEADER,)


class JobSignature(Signature):
    """A signature of a job, to which arguments can be added.

    >>> convert.owned_by("alice").s(pages)
    """

    @classmethod
    def of(cls, task: Any, owner: object) -> Self:
        """Return a signature of a task whose job ``owner`` may follow, without arguments."""
        return cls(task, options={OWNER_HEADER: owner_of(owner)}, app=task.app)

    def s(self, *args: Any, **kwargs: Any) -> Signature:
        """Return the signature with these arguments."""
        return self.clone(args, kwargs)

    def si(self, *args: Any, **kwargs: Any) -> Signature:
        """Return the signature with these arguments, immutable."""
        return self.clone(args, kwargs).set(immutable=True)


def owned_by(signature: S, owner: object) -> S:
    """Return a signature whose jobs the subject ``owner`` may follow.

    Args:
        signature: a signature of a task, or a chain, group or chord. Each of its tasks gets the
            owner.
        owner: a text, a number (its digits) or a UUID (its text).

    Raises:
        TypeError: ``owner`` has another type.
        ValueError: the owner is empty or contains lone surrogates.

    >>> owned_by(convert.s(pages) | upload.s(), "alice").delay()
    """
    owned: S = signature.clone()
    _set(owned, {OWNER_HEADER: owner_of(owner)})
    return owned


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
