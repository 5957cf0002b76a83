"""The actions that a rule decides about, and their targets."""

from __future__ import annotations

from typing import Final, Self

from msgspec import Struct

from jobcast.events import JobInfo

FOLLOW: Final = "follow"
LIST: Final = "list"
CANCEL: Final = "cancel"
ACTIONS: Final = (FOLLOW, LIST, CANCEL)  # an open list: a newer version may ask about others


class JobTarget(Struct, frozen=True, kw_only=True):
    """A job that a subject wants to follow or to act on.

    A job without a record has an id only. The description may be incomplete before the job starts.

    >>> JobTarget(id="42", owner="alice", tags=("project:7",)).title is None
    True
    """

    id: str
    owner: str | None = None  # the subject that owns the job
    tags: tuple[str, ...] = ()
    task: str | None = None  # the Celery task's name
    title: str | None = None
    parent: str | None = None  # the id of the job that sent this one

    @classmethod
    def of(cls, job_id: str, info: JobInfo) -> Self:
        """Return the job with this id and description."""
        return cls(
            id=job_id,
            owner=info.owner,
            tags=info.tags,
            task=info.task,
            title=info.title,
            parent=info.parent,
        )


class FeedTarget(Struct, frozen=True, kw_only=True):
    """A list of jobs that a subject wants to read.

    >>> FeedTarget(name="tag:project:7").name
    'tag:project:7'
    """

    name: str  # ``tag:TAG``, ``owner:SUBJECT`` or ``all``; no rule is asked about ``mine``


Target = JobTarget | FeedTarget
