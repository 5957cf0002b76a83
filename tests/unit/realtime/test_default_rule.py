"""The rule that applies without ``JOBCAST_AUTHORIZE``, as a table."""

from __future__ import annotations

from typing import Any

import pytest

from jobcast import FeedTarget, JobTarget
from jobcast.realtime import default_rule
from jobcast.targets import ACTIONS, Target
from jobcast.tokens import Subject

OWN = JobTarget(id="own", owner="alice", tags=("project:7",))
OTHERS = JobTarget(
    id="others", owner="bob", tags=("project:7", "alice"), title="alice", task="alice"
)
CHILD = JobTarget(id="child", owner="bob", parent="own")
UNOWNED = JobTarget(id="unowned")

MINE = FeedTarget(name="mine")
ALL = FeedTarget(name="all")
TAG = FeedTarget(name="tag:project:7")
STAR = FeedTarget(name="*")

EVERY_ACTION = {*ACTIONS, "an action of a later version"}


@pytest.mark.parametrize(
    ("claims", "target", "allowed"),
    [
        # The owner may do everything with a job.
        ({}, OWN, EVERY_ACTION),
        ({"jobs": [], "can": [], "feeds": []}, OWN, EVERY_ACTION),
        # Nothing else gives a right: no tag, title, task or parent, no missing owner.
        ({}, OTHERS, set()),
        ({}, CHILD, set()),
        ({}, UNOWNED, set()),
        ({"can": ["follow", "list", "cancel"]}, OTHERS, set()),
        ({"feeds": ["*", "tag:project:7"]}, OTHERS, set()),
        # A listed job may be followed; the actions in ``can`` are allowed besides.
        ({"jobs": ["others"]}, OTHERS, {"follow"}),
        ({"jobs": ["others"]}, UNOWNED, set()),
        ({"jobs": ["unowned"]}, UNOWNED, {"follow"}),
        ({"jobs": ["*"]}, OTHERS, {"follow"}),
        ({"jobs": ["*"]}, UNOWNED, {"follow"}),
        ({"jobs": ["others"], "can": ["cancel"]}, OTHERS, {"follow", "cancel"}),
        ({"jobs": ["*"], "can": ["cancel", "list"]}, OTHERS, {"follow", "cancel", "list"}),
        ({"jobs": ["own"], "can": ["cancel"]}, OTHERS, set()),
        ({"jobs": ["*"], "can": ["*"]}, OTHERS, {"follow"}),
        # ``mine`` is everyone's; another feed needs the claim ``feeds``.
        ({}, MINE, {"list"}),
        ({}, ALL, set()),
        ({}, TAG, set()),
        ({}, STAR, set()),
        ({"jobs": ["*"], "can": ["list"]}, ALL, set()),
        ({"jobs": ["all"], "can": ["list"]}, ALL, set()),
        ({"feeds": ["tag:project:7"]}, TAG, {"list"}),
        ({"feeds": ["tag:project:7"]}, ALL, set()),
        ({"feeds": ["tag:project:7"]}, FeedTarget(name="tag:project:70"), set()),
        ({"feeds": ["all"]}, TAG, set()),
        ({"feeds": ["*"]}, ALL, {"list"}),
        ({"feeds": ["*"]}, MINE, {"list"}),
    ],
)
def test_owner_and_claims_decide(claims: dict[str, Any], target: Target, allowed: set[str]) -> None:
    subject = Subject(sub="alice", claims=claims)
    found = {action for action in EVERY_ACTION if default_rule(subject, action, target)}
    assert found == allowed
