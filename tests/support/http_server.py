"""A server process with its HTTP interface, and events to publish for its clients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from jobcast.events import JobComplete, JobLog, JobStatus
from tests.support import Server, running
from tests.support.redis_family import RedisProcess

Token = Callable[..., str]
Publish = Callable[..., None]

PROBLEM = "application/problem+json"
LINE = "x" * 8000


@contextmanager
def serving(valkey: RedisProcess, folder: Path, **env: str) -> Iterator[Server]:
    """Run a server process of its own."""
    with running(Server(folder / "server.log", valkey.url, env)) as server:
        yield server.ready()


def started(job_id: str, **fields: Any) -> JobStatus:
    return JobStatus(job_id=job_id, status="started", task="shop.export", attempt=1, **fields)


def line(job_id: str, message: object) -> JobLog:
    return JobLog(job_id=job_id, level="info", message=str(message))


def complete(job_id: str, result: object = None) -> JobComplete:
    return JobComplete(job_id=job_id, result=result)


def code_of(response: httpx.Response, status: int) -> str:
    """The code of a problem document."""
    problem = response.json()
    assert (response.status_code, problem["status"]) == (status, status)
    assert response.headers["content-type"] == PROBLEM
    assert problem["type"] == "about:blank"
    assert problem["title"]
    assert problem["detail"]
    code: str = problem["code"]
    return code
