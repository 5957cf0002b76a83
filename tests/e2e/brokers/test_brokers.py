"""Both brokers: how jobs end, with pytest-celery's own set-up of broker, backend and worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pytest_celery import CeleryTestSetup

from jobcast.publishing import runtime
from tests.e2e.brokers import broker_tasks as jobs
from tests.e2e.brokers.conftest import LEASE
from tests.e2e.endings.harness import story_of
from tests.support import (
    AHEAD,
    Follower,
    Server,
    eventually,
    following,
    give_back_unacknowledged,
    outside_of_the_loop,
    running,
)

Token = Callable[..., str]

BEGUN = ["queued", "started 1/1", "log"]
DONE = "complete 'done'"


@pytest.fixture
def url(celery_setup: CeleryTestSetup, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where the broker is, for processes that are in no container."""
    url: str = celery_setup.broker.config()["host_url"]
    url = url.replace("pyamqp://", "amqp://")
    monkeypatch.setenv("JOBCAST_URL", url)
    # A busy broker takes its time to store that a job is queued, which is not shown later.
    monkeypatch.setenv("JOBCAST_ENQUEUE_TIMEOUT", "30")
    return url


@asynccontextmanager
async def scene(url: str, token: Token, folder: Path) -> AsyncIterator[Follower]:
    env = {"JOBCAST_LEASE": LEASE, "JOBCAST_LOST_AFTER": "60"}
    runtime.close()
    with running(Server(folder / "server.log", url, env)) as server:
        async with following(server.ready().url, token()) as alice:
            yield alice
    runtime.close()


async def send(alice: Follower, task: Any, *args: Any, **options: Any) -> str:
    signature = task.owned_by("alice")
    # For results Celery would subscribe, with a connection of each thread that sends.
    options["ignore_result"] = True
    job_id = str(outside_of_the_loop(signature.apply_async, args, **options).id)
    await eventually_joined(alice, job_id)
    return job_id


async def eventually_joined(alice: Follower, job_id: str) -> None:
    """Over RabbitMQ a Socket.IO process knows of a job when the broker has told it."""
    for _ in range(100):
        if (await alice.join(job_id))["ok"]:
            return
    raise AssertionError(f"{job_id} cannot be joined")


async def story(alice: Follower, job_id: str) -> list[str]:
    await alice.transcript.end(job_id)
    return story_of(alice, job_id)


async def test_endings(
    celery_setup: CeleryTestSetup, url: str, token: Token, tmp_path: Path
) -> None:
    async with scene(url, token, tmp_path) as alice:
        ids = {what: await send(alice, jobs.does, what) for what in ("succeed", "fail", "retry")}
        assert await story(alice, ids["succeed"]) == [*BEGUN, DONE]
        assert await story(alice, ids["fail"]) == [*BEGUN, "error LookupError failure"]
        assert await story(alice, ids["retry"]) == [
            *BEGUN, "retrying 2 ConnectionError", "started 2/2", "log", DONE,
        ]  # fmt: skip
        killed = await send(alice, jobs.does, "kill")
        assert await story(alice, killed) == [*BEGUN, "error WorkerLostError worker_lost"]
        revoked = await send(alice, jobs.does, "succeed", countdown=AHEAD)
        celery_setup.app.control.revoke(revoked)
        assert await story(alice, revoked) == ["queued", "error TaskRevokedError revoked"]
        hanging = await send(alice, jobs.does, "hang")
        await alice.transcript.logged(hanging, 1)
        celery_setup.app.control.revoke(hanging, terminate=True)
        assert await story(alice, hanging) == [*BEGUN, "error Terminated revoked"]


async def test_a_worker_that_is_killed_and_started_again(
    celery_setup: CeleryTestSetup, url: str, token: Token, tmp_path: Path
) -> None:
    async with scene(url, token, tmp_path) as alice:
        job_id = await send(alice, jobs.hangs_at_first)
        await alice.transcript.logged(job_id, 1)
        celery_setup.worker.kill()
        await eventually(lambda: "stalled" in story_of(alice, job_id), "stalled job")
        if url.startswith("redis"):  # RabbitMQ has noticed that its worker is gone
            give_back_unacknowledged(url)
        await asyncio.to_thread(celery_setup.worker.restart)
        again = "started 1/2"
        await eventually(lambda: again in story_of(alice, job_id), again)
        assert await story(alice, job_id) == [*BEGUN, "stalled", "started 1/2", "log", DONE]
