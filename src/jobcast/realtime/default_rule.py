"""The rule that applies without ``JOBCAST_AUTHORIZE``."""

from __future__ import annotations

from typing import Final

from jobcast.feeds import MINE, OWNER_PREFIX
from jobcast.targets import FOLLOW, LIST, FeedTarget, Target
from jobcast.tokens import Subject

EVERY: Final = "*"  # every job in the claim ``jobs``, every feed in the claim ``feeds``


def default_rule(subject: Subject, action: str, target: Target) -> bool:
    """Return whether a subject may perform an action, by the owner and the subject's claims.

    The owner may do everything with a job. A job in the claim ``jobs`` may be followed; the claim
    ``can`` lists further actions on these jobs. Every subject may list its own jobs, as ``mine`` or
    ``owner:SUBJECT``; the claim ``feeds`` lists further feeds. A tag gives no right.

    >>> default_rule(Subject(sub="alice"), "cancel", JobTarget(id="42", owner="alice"))
    True
    """
    if isinstance(target, FeedTarget):
        own = (MINE, OWNER_PREFIX + subject.sub)
        return action == LIST and (target.name in own or _has(subject.feeds, target.name))
    if target.owner == subject.sub:
        return True
    return _has(subject.jobs, target.id) and (action == FOLLOW or action in subject.can)


def _has(listed: frozenset[str], name: str) -> bool:
    return name in listed or EVERY in listed
