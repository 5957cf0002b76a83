"""The functions of an application that a server asks: who a client is, and what it may follow."""

from __future__ import annotations

import asyncio
import math
import os
from pathlib import Path
from typing import Any

from redis import Redis
from starlette.requests import HTTPConnection

from jobcast import JobTarget
from jobcast.realtime import Subject, default_rule
from jobcast.targets import Target

PAUSED = "TEST_PAUSED"  # names a file that exists when the transport has been suspended
UNDECIDED = "TEST_UNDECIDED"  # names a job about which the rule does not decide
PAUSE = 1500  # milliseconds
FORBIDDEN = "TEST_FORBIDDEN"  # names a file that exists when no job may be followed any more


def user_of(connection: HTTPConnection) -> str | Subject | None:
    """Return the user of a session cookie."""
    session = connection.cookies.get("session")
    if session == "broken":
        raise RuntimeError("the session cannot be read")
    if session == "everything":
        return Subject(sub="operator", claims={"jobs": ["*"]})
    return session


async def user_of_async(connection: HTTPConnection) -> str | None:
    return connection.cookies.get("session")


def may_follow(subject: Subject, action: str, target: Target) -> bool:
    """Allow every job until a file exists."""
    return not Path(os.environ[FORBIDDEN]).exists()


# What an application may return by mistake.
_NOT_A_STRING: Any = None
SUBJECTS = {
    "expired": Subject(sub="alice", expires_at=1000.0),
    "nobody": Subject(sub=_NOT_A_STRING, claims={"jobs": ["without-owner"]}),
    "empty": Subject(sub=""),
    "endless": Subject(sub="alice", expires_at=math.nan),
    "one-job": Subject(sub="alice", claims={"jobs": "without-owner"}),
    "one-action": Subject(sub="alice", claims={"can": "cancel"}),
    "numbered-feeds": Subject(sub="alice", claims={"feeds": [7]}),
    "no-jobs": Subject(sub="alice", claims={"jobs": None}),
}


def odd_subject_of(connection: HTTPConnection) -> Subject:
    return SUBJECTS[connection.cookies["session"]]


def may_follow_own(subject: Subject, action: str, target: Target) -> bool:
    """Allow the owner, and suspend the transport after the first decision."""
    paused = Path(os.environ[PAUSED])
    if not paused.exists():
        paused.touch()
        with Redis.from_url(os.environ["JOBCAST_URL"]) as redis:
            redis.client_pause(PAUSE)
    return default_rule(subject, action, target)


async def may_follow_in_time(subject: Subject, action: str, target: JobTarget) -> bool:
    """Allow every job but one, about which the rule never decides."""
    if target.id == os.environ[UNDECIDED]:
        await asyncio.Event().wait()
    return True


def may_cancel_open_jobs(subject: Subject, action: str, target: Target) -> bool:
    """Allow everyone to follow, and to cancel the jobs with the tag ``open``."""
    return action != "cancel" or (isinstance(target, JobTarget) and "open" in target.tags)
