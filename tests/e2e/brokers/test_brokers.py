"""How jobs end with each broker, in pytest-celery's set-up of broker, backend and worker."""

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
from tests.e2e.endings.harness import timeline_of
from tests.support import (
    COUNTDOWN,
    Follower,
    Server,
    call_in_thread,
    eventually,
    following,
    restore_unacknowledged,
    running,
)

Token = Callable[..., str]

STARTED = ["queued", "started 1/1", "log"]
DONE = "complete 'done'"


@pytest.fixture
def url(celery_setup: CeleryTestSetup, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of the broker for processes outside containers."""
    url: str = celery_setup.broker.config()["host_url"]
    url = url.replace("pyamqp://", "amqp://")
    monkeypatch.setenv("JOBCAST_URL", url)
    return url


@asynccontextmanager
async def connected_follower(url: str, token: Token, folder: Path) -> AsyncIterator[Follower]:
    env = {"JOBCAST_LEASE": LEASE, "JOBCAST_LOST_AFTER": "60"}
    runtime.close()
    with running(Server(folder / "server.log", url, env)) as server:
        async with following(server.ready().url, token()) as alice:
            yield alice
    runtime.close()


async def send(alice: Follower, task: Any, *args: Any, **options: Any) -> str:
    signature = task.owned_by("alice")
    # Otherwise Celery subscribes to results with a connection per sending thread.
    options["ignore_result"] = True
    job_id = str(call_in_thread(signature.apply_async, args, **options).id)
    await join_until_accepted(alice, job_id)
    return job_id


async def join_until_accepted(alice: Follower, job_id: str) -> None:
    """Join a job. With RabbitMQ a process knows a job only after its first event."""
    for _ in range(100):
        if (await alice.join(job_id))["ok"]:
            return
    raise AssertionError(f"{job_id} cannot be joined")


async def timeline(alice: Follower, job_id: str) -> list[str]:
    await alice.transcript.end(job_id)
    return timeline_of(alice, job_id)


async def test_each_ending_is_reported(
    celery_setup: CeleryTestSetup, url: str, token: Token, tmp_path: Path
) -> None:
    async with connected_follower(url, token, tmp_path) as alice:
        ids = {
            outcome: await send(alice, jobs.does, outcome)
            for outcome in ("succeed", "fail", "retry")
        }
        assert await timeline(alice, ids["succeed"]) == [*STARTED, DONE]
        assert await timeline(alice, ids["fail"]) == [*STARTED, "error LookupError failure"]
        assert await timeline(alice, ids["retry"]) == [
            *STARTED, "retrying 2 ConnectionError", "started 2/2", "log", DONE,
        ]  # fmt: skip
        killed = await send(alice, jobs.does, "kill")
        assert await timeline(alice, killed) == [*STARTED, "error WorkerLostError worker_lost"]
        revoked = await send(alice, jobs.does, "succeed", countdown=COUNTDOWN)
        celery_setup.app.control.revoke(revoked)
        assert await timeline(alice, revoked) == ["queued", "error TaskRevokedError revoked"]
        hanging = await send(alice, jobs.does, "hang")
        await alice.transcript.wait_logged(hanging, 1)
        celery_setup.app.control.revoke(hanging, terminate=True)
        assert await timeline(alice, hanging) == [*STARTED, "error Terminated revoked"]


async def test_job_runs_again_after_its_killed_worker_restarts(
    celery_setup: CeleryTestSetup, url: str, token: Token, tmp_path: Path
) -> None:
    async with connected_follower(url, token, tmp_path) as alice:
        job_id = await send(alice, jobs.hangs_at_first)
        await alice.transcript.wait_logged(job_id, 1)
        celery_setup.worker.kill()
        await eventually(lambda: "stalled" in timeline_of(alice, job_id), "stalled job")
        if url.startswith("redis"):  # RabbitMQ redelivers as soon as it notices the dead worker
            restore_unacknowledged(url)
        await asyncio.to_thread(celery_setup.worker.restart)
        second_run = "started 1/2"
        await eventually(lambda: second_run in timeline_of(alice, job_id), second_run)
        assert await timeline(alice, job_id) == [*STARTED, "stalled", "started 1/2", "log", DONE]
