"""The functions of an application that a server asks: who a client is, and what it may follow."""

from __future__ import annotations

import os
from pathlib import Path

from starlette.requests import HTTPConnection

from jobcast.realtime import Subject

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


def may_follow(subject: Subject, job_id: str, owner: str | None) -> bool:
    """Allow every job until a file exists."""
    return not Path(os.environ[FORBIDDEN]).exists()
