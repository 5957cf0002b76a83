"""Convert task ids and users' ids to the ids of jobs and owners."""

from __future__ import annotations

from uuid import UUID


def job_id_of(task_id: object) -> str:
    """Return the id of a task's job. Celery accepts task ids of any type, such as a ``UUID``."""
    return str.__str__(task_id) if isinstance(task_id, str) else str(task_id)


def owner_of(owner: object) -> str:
    """Return the subject of a job's owner: a text, the digits of a number, or a UUID's text.

    Raises:
        TypeError: ``owner`` has another type.
        ValueError: the text is empty or contains lone surrogates.
    """
    if isinstance(owner, int) and not isinstance(owner, bool):
        return str(int(owner))
    if isinstance(owner, UUID):
        return str(owner)
    if not isinstance(owner, str):
        kind = type(owner).__name__
        raise TypeError(f"a job's owner is a str, an int or a UUID, not a value of type {kind}")
    subject = str.__str__(owner)
    try:
        subject.encode()
    except UnicodeEncodeError:
        raise ValueError(
            f"a job's owner is valid Unicode, but {subject!r} has lone surrogates"
        ) from None
    if not subject:
        raise ValueError("a job's owner is empty: omit it for a job without an owner")
    return subject
