"""A job whose task has replaced itself is cancelled before the replacement starts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from kombu.connection import Connection

from tests import replaced_jobs as jobs
from tests.conftest import Valkey
from tests.e2e.cancellation.harness import Harness, PoolWorker, Token, harness_of
from tests.support import Server, eventually, new_id, running


@pytest.fixture(params=["prefork", "threads"])
async def here(
    request: pytest.FixtureRequest, sending_process: None, server: Server, valkey: Valkey,
    tmp_path: Path, token: Token,
) -> AsyncIterator[Harness]:  # fmt: skip
    app = "tests.replaced_jobs"
    with running(PoolWorker(tmp_path, valkey.url, request.param, app=app, concurrency=1)) as worker:
        async with harness_of(worker.ready(), server, valkey.url, tmp_path, token) as harness:
            yield harness


KINDS: dict[str, tuple[Any, list[str]]] = {
    "task": (jobs.is_replaced, ["began"]),
    "chain": (jobs.is_replaced, ["began", "ran"]),
    "after a retry": (jobs.is_replaced_after_a_retry, ["began", "began"]),
}


async def wait_queued(here: Harness, queue: str) -> None:
    """Wait until a message is in a queue that no worker consumes."""
    with Connection(here.worker.env["CELERY_BROKER_URL"]) as connection:
        channel = connection.default_channel
        await eventually(lambda: channel._size(queue), f"message in {queue}")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_replacement_of_a_cancelled_job_does_not_run(here: Harness, kind: str) -> None:
    task, steps = KINDS[kind]
    queue = new_id("queue")
    job_id = await here.followed(here.send(task, kind, queue))
    await wait_queued(here, queue)
    assert here.cancel(job_id).outcome == "cancelled"
    here.consume(queue)
    await eventually(lambda: len(here.steps(job_id)) > len(steps), "errback")
    await here.wait_cancelled(job_id)
    assert here.steps(job_id) == [*steps, "errback TaskRevokedError"]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_replacement_that_runs_ends_its_job(here: Harness, kind: str) -> None:
    task, steps = KINDS[kind]
    job_id = await here.followed(here.send(task, kind, here.queue))
    assert (await here.alice.transcript.end(job_id))["result"] == "done"
    assert here.steps(job_id) == [*steps, "ran"]
    await here.wait_state(job_id, "SUCCESS")


@pytest.mark.parametrize(("kind", "result"), [("task", "done"), ("group", ["done"])])
async def test_a_job_that_is_replaced_by_plain_tasks_cannot_be_cancelled(
    here: Harness, kind: str, result: object
) -> None:
    queue = new_id("queue")
    job_id = await here.followed(here.send(jobs.is_replaced_by_plain_tasks, kind, queue))
    await wait_queued(here, queue)
    assert here.cancel(job_id).outcome == "not_cancellable"
    here.consume(queue)
    assert (await here.alice.transcript.end(job_id))["result"] == result
    assert here.steps(job_id) == ["began", "ran"]
    assert here.cancel(job_id).outcome == "already_ended"
