"""A server and a worker with a transport of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jobcast.publishing import runtime
from tests.support import Follower, Server, Worker, running

ONE_CHILD = "--pool=prefork", "--concurrency=1"


@contextmanager
def services(
    folder: Path, events: str, broker: str, results: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Server, Worker]]:
    """Run a server and a worker, with this process as the sender."""
    env = {"CELERY_RESULT_BACKEND": results}
    with (
        running(Server(folder / "server.log", events)) as server,
        running(Worker(folder / "worker.log", events, broker, *ONE_CHILD, env=env)) as worker,
    ):
        server.ready()
        worker.ready()
        monkeypatch.setenv("JOBCAST_URL", events)
        runtime.close()
        yield server, worker


async def join_until_accepted(follower: Follower, job_id: str) -> None:
    """Join a job whose first event may still be on its way to the server."""
    for _ in range(200):
        if (await follower.join(job_id))["ok"]:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{job_id} could not be joined")
