"""Jobs whose worker shuts down, loses its broker or fails."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import redis

from tests import ending_jobs as jobs
from tests.e2e.endings.harness import BEGUN, DONE, Quick, Token, at
from tests.support import Worker, eventually


async def ends_during(
    quick: Quick, worker: Worker, token: Token, how: signal.Signals, word: str
) -> None:
    """A job ends well after its worker was told to stop, and has said ``word`` of that."""
    gate = Path(quick.folder / "gate")
    async with at(quick, worker, token) as scene:
        job_id = scene.send(jobs.waits, str(gate))
        await scene.follow(job_id)
        await scene.runs(job_id)
        worker.popen.send_signal(how)
        await eventually(lambda: word in worker.log, word)
        gate.touch()
        await scene.alice.transcript.end(job_id)
        await worker.ended()
        assert await scene.told(job_id) == [*BEGUN, "log", DONE]


async def test_a_warm_shutdown_waits_for_the_end(quick: Quick, token: Token) -> None:
    await ends_during(quick, quick.worker(), token, signal.SIGTERM, "Warm shutdown")


@pytest.mark.parametrize("soft", ["0", "1"])
async def test_a_cold_shutdown_ends_what_nobody_will_run_again(
    soft: str, quick: Quick, token: Token
) -> None:
    worker = quick.worker(SOFT_SHUTDOWN=soft)
    async with at(quick, worker, token) as scene:
        job_id = scene.send(jobs.hangs)
        await scene.follow(job_id)
        await scene.runs(job_id)
        worker.popen.send_signal(signal.SIGQUIT)
        end = await scene.alice.transcript.end(job_id)
        await worker.ended()
        assert await scene.told(job_id) == [*BEGUN, "error WorkerShutdown worker_lost"]
        assert end["message"] == "The worker was stopped while it ran this job"


@pytest.mark.parametrize("soft", ["0", "1"])
async def test_a_cold_shutdown_gives_back_what_another_can_run(
    soft: str, quick: Quick, token: Token
) -> None:
    worker = quick.worker(SOFT_SHUTDOWN=soft)
    async with at(quick, worker, token) as scene:
        job_id = scene.send(jobs.hangs_at_first, scene.marker())
        await scene.follow(job_id)
        await scene.runs(job_id)
        worker.popen.send_signal(signal.SIGQUIT)
        await worker.ended()
        scene.worker = await quick.another(worker)
        story = [*BEGUN, "retrying 1 WorkerShutdown", "started 1/2", "log", DONE]
        assert await scene.story(job_id) == story


async def test_a_connection_to_the_broker_that_is_lost_takes_its_jobs_along(
    quick: Quick, token: Token
) -> None:
    """If Celery is told to stop what it will be given again."""
    worker = quick.worker(CANCEL_ON_LOSS="1")
    async with at(quick, worker, token) as scene:
        job_id = scene.send(jobs.hangs_at_first, scene.marker())
        await scene.follow(job_id)
        await scene.runs(job_id)
        with redis.Redis.from_url(quick.valkey.url) as client:
            client.client_kill_filter(_type="normal", skipme=True)
        await scene.alice.transcript.end(job_id)
        story = [*BEGUN, "retrying 1 BrokerLost", "started 1/2", "log", DONE]
        assert await scene.told(job_id) == story
        [retrying, *_] = [
            event for event in scene.alice.transcript.of(job_id, "job_status")
            if event["status"] == "retrying"
        ]  # fmt: skip
        message = "The worker that ran this job lost its connection to the queue"
        assert retrying["message"] == message


@pytest.mark.parametrize("task", [jobs.hangs, jobs.hangs_late], ids=["early", "late"])
@pytest.mark.parametrize("pool", ["solo", "gevent", "eventlet"])
async def test_a_cold_shutdown_of_a_pool_that_gives_nothing_back(
    pool: str, task: Any, quick: Quick, token: Token
) -> None:
    """Here Celery acknowledges what it stops, also what it would acknowledge late."""
    worker = quick.worker(pool=pool)
    async with at(quick, worker, token) as scene:
        job_id = scene.send(task)
        await scene.follow(job_id)
        await scene.runs(job_id)
        worker.popen.send_signal(signal.SIGQUIT)
        end = await scene.alice.transcript.end(job_id)
        error = "NotImplementedError" if pool == "solo" else "WorkerShutdown"
        assert await scene.told(job_id) == [*BEGUN, f"error {error} worker_lost"]
        assert end["message"] == "The worker was stopped while it ran this job"


async def test_a_cold_shutdown_cannot_end_a_thread(quick: Quick, token: Token) -> None:
    worker = quick.worker(pool="threads")
    await ends_during(quick, worker, token, signal.SIGQUIT, "NotImplementedError")


async def test_a_soft_shutdown_leaves_time_to_end(quick: Quick, token: Token) -> None:
    worker = quick.worker(SOFT_SHUTDOWN="3")
    await ends_during(quick, worker, token, signal.SIGQUIT, "Soft Shutdown")


async def test_a_task_without_memory_takes_its_worker_along(quick: Quick, token: Token) -> None:
    worker = quick.worker()
    async with at(quick, worker, token) as scene:
        job_id = scene.send(jobs.has_no_memory)
        await scene.follow(job_id)
        await scene.alice.transcript.end(job_id)
        await worker.ended()
        assert await scene.told(job_id) == [*BEGUN, "error MemoryError failure"]


async def test_sys_exit_where_it_ends_the_worker(quick: Quick, token: Token) -> None:
    worker = quick.worker(pool="solo")
    async with at(quick, worker, token) as scene:
        job_id = scene.send(jobs.exits)
        await scene.follow(job_id)
        await scene.alice.transcript.end(job_id)
        await worker.ended()
        assert await scene.told(job_id) == [*BEGUN, "error SystemExit worker_lost"]


async def test_a_result_that_the_backend_does_not_take(quick: Quick, token: Token) -> None:
    worker = quick.worker("--concurrency=1")
    async with at(quick, worker, token) as scene:
        job_id = scene.send(jobs.breaks_the_backend)
        await scene.follow(job_id)
        await scene.alice.transcript.end(job_id)
        assert await scene.told(job_id) == [*BEGUN, "error OSError failure"]
