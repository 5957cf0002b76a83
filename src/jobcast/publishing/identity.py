"""Ids of jobs and of their owners, from what callers have at hand."""

from __future__ import annotations

from uuid import UUID


def job_id_of(task_id: object) -> str:
    """Return the id of a task's job. Celery accepts task ids of any type, such as a ``UUID``."""
    return str.__str__(task_id) if isinstance(task_id, str) else str(task_id)


def owner_of(owner: object) -> str:
    """Return the subject of a job's owner: a text, the digits of a number, or a UUID's text.

    Raises:
        TypeError: it is none of these.
        ValueError: the text is empty, or is no Unicode.
    """
    if isinstance(owner, int) and not isinstance(owner, bool):
        return str(int(owner))
    if isinstance(owner, UUID):
        return str(owner)
    if not isinstance(owner, str):
        raise TypeError(f"a job's owner is a str, an int or a UUID, not {type(owner).__name__}")
    subject = str.__str__(owner)
    try:
        subject.encode()
    except UnicodeEncodeError:
        raise ValueError(f"a job's owner is Unicode, which {subject!r} is not") from None
    if not subject:
        raise ValueError("a job's owner is not empty: leave it out for a job of nobody")
    return subject
