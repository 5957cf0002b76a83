"""Rules for ``JOBCAST_AUTHORIZE`` that decide about feeds."""

from __future__ import annotations

from jobcast import FeedTarget, JobTarget
from jobcast.tokens import Subject

asked: list[tuple[str, str, object]] = []  # the subject, the action and the target of each call
closed: set[str] = set()  # feeds that the rule refuses from now on


def may_list_tags(subject: Subject, action: str, target: JobTarget | FeedTarget) -> bool:
    """Allow everyone to list the feeds of tags that are not closed."""
    asked.append((subject.sub, action, target))
    return (
        isinstance(target, FeedTarget)
        and action == "list"
        and target.name.startswith("tag:")
        and target.name not in closed
    )


def fails(subject: Subject, action: str, target: JobTarget | FeedTarget) -> bool:
    raise LookupError(f"{subject.sub} {action} {target}")
