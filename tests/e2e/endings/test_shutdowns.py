"""Jobs whose worker shuts down, loses its broker or fails."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import billiard
import pytest
import redis
from celery import VERSION

from tests import ending_jobs as jobs
from tests.e2e.endings.harness import DONE, STARTED, Deployment, Token, harness_on
from tests.support import Worker, eventually


async def assert_job_completes_after_signal(
    deployment: Deployment, worker: Worker, token: Token, signum: signal.Signals, word: str
) -> None:
    """Check that a job completes after its worker gets a signal and logs ``word``."""
    gate = Path(deployment.folder / "gate")
    async with harness_on(deployment, worker, token) as harness:
        job_id = harness.send(jobs.waits, str(gate))
        await harness.follow(job_id)
        await harness.wait_until_active(job_id)
        worker.popen.send_signal(signum)
        await eventually(lambda: word in worker.log, word)
        gate.touch()
        await harness.alice.transcript.end(job_id)
        if (
            VERSION < (5, 7)
            and word == "NotImplementedError"
            and "Unrecoverable error" not in worker.log
        ):
            # The signal has interrupted code that catches errors, such as a control command. Celery
            # then goes on.
            worker.popen.send_signal(signum)
        await worker.wait_exit()
        assert await harness.timeline(job_id) == [*STARTED, "log", DONE]


async def test_warm_shutdown_waits_for_the_job(deployment: Deployment, token: Token) -> None:
    await assert_job_completes_after_signal(
        deployment, deployment.worker(), token, signal.SIGTERM, "Warm shutdown"
    )


@pytest.mark.parametrize("soft", ["0", "1"])
async def test_cold_shutdown_fails_a_job_that_is_not_redelivered(
    soft: str, deployment: Deployment, token: Token
) -> None:
    worker = deployment.worker(SOFT_SHUTDOWN=soft)
    async with harness_on(deployment, worker, token) as harness:
        job_id = harness.send(jobs.hangs)
        await harness.follow(job_id)
        await harness.wait_until_active(job_id)
        worker.popen.send_signal(signal.SIGQUIT)
        end = await harness.alice.transcript.end(job_id)
        await worker.wait_exit()
        assert await harness.timeline(job_id) == [*STARTED, "error WorkerShutdown worker_lost"]
        assert end["message"] == "The worker was stopped while it ran this job"


@pytest.mark.parametrize("soft", ["0", "1"])
async def test_cold_shutdown_requeues_a_late_acknowledged_job(
    soft: str, deployment: Deployment, token: Token
) -> None:
    worker = deployment.worker(SOFT_SHUTDOWN=soft)
    async with harness_on(deployment, worker, token) as harness:
        job_id = harness.send(jobs.hangs_at_first, harness.marker())
        await harness.follow(job_id)
        await harness.wait_until_active(job_id)
        worker.popen.send_signal(signal.SIGQUIT)
        await worker.wait_exit()
        harness.worker = await deployment.start_replacement(worker)
        timeline = [*STARTED, "retrying 1 WorkerShutdown", "started 1/2", "log", DONE]
        assert await harness.final_timeline(job_id) == timeline


async def test_lost_broker_connection_cancels_and_reruns_jobs(
    deployment: Deployment, token: Token
) -> None:
    """Celery cancels jobs that the broker redelivers, if it is configured to."""
    worker = deployment.worker(CANCEL_ON_LOSS="1")
    async with harness_on(deployment, worker, token) as harness:
        job_id = harness.send(jobs.hangs_at_first, harness.marker())
        await harness.follow(job_id)
        await harness.wait_until_active(job_id)
        with redis.Redis.from_url(deployment.valkey.url) as client:
            client.client_kill_filter(_type="normal", skipme=True)
        await harness.alice.transcript.end(job_id)
        timeline = [*STARTED, "retrying 1 BrokerLost", "started 1/2", "log", DONE]
        assert await harness.timeline(job_id) == timeline
        [retrying, *_] = [
            event for event in harness.alice.transcript.of(job_id, "job_status")
            if event["status"] == "retrying"
        ]  # fmt: skip
        message = "The worker that ran this job lost its connection to the queue"
        assert retrying["message"] == message


@pytest.mark.parametrize("task", [jobs.hangs, jobs.hangs_late], ids=["early", "late"])
@pytest.mark.parametrize("pool", ["solo", "gevent", "eventlet"])
async def test_cold_shutdown_of_a_pool_without_requeue_fails_its_jobs(
    pool: str, task: Any, deployment: Deployment, token: Token
) -> None:
    """Here Celery acknowledges the tasks that it stops, even those it acknowledges late."""
    worker = deployment.worker(pool=pool)
    async with harness_on(deployment, worker, token) as harness:
        job_id = harness.send(task)
        await harness.follow(job_id)
        await harness.wait_until_running(job_id)
        worker.popen.send_signal(signal.SIGQUIT)
        end = await harness.alice.transcript.end(job_id)
        error = "NotImplementedError" if pool == "solo" else "WorkerShutdown"
        assert await harness.timeline(job_id) == [*STARTED, f"error {error} worker_lost"]
        assert end["message"] == "The worker was stopped while it ran this job"


async def test_cold_shutdown_of_a_thread_pool_waits_for_the_job(
    deployment: Deployment, token: Token
) -> None:
    worker = deployment.worker(pool="threads")
    await assert_job_completes_after_signal(
        deployment, worker, token, signal.SIGQUIT, "NotImplementedError"
    )


async def test_soft_shutdown_gives_the_job_time_to_complete(
    deployment: Deployment, token: Token
) -> None:
    worker = deployment.worker(SOFT_SHUTDOWN="8")
    await assert_job_completes_after_signal(
        deployment, worker, token, signal.SIGQUIT, "Soft Shutdown"
    )


async def test_memory_error_ends_the_job_and_its_worker(
    deployment: Deployment, token: Token
) -> None:
    worker = deployment.worker()
    async with harness_on(deployment, worker, token) as harness:
        job_id = harness.send(jobs.has_no_memory)
        await harness.follow(job_id)
        await harness.alice.transcript.end(job_id)
        timeline = [*STARTED, "error MemoryError failure"]
        if billiard.VERSION >= (4, 3):
            await worker.wait_exit()
            assert await harness.timeline(job_id) == timeline
        else:  # the pool logs the error, and its worker runs further jobs
            assert await harness.final_timeline(job_id) == timeline


async def test_sys_exit_in_a_solo_pool_ends_the_job_and_its_worker(
    deployment: Deployment, token: Token
) -> None:
    worker = deployment.worker(pool="solo")
    async with harness_on(deployment, worker, token) as harness:
        job_id = harness.send(jobs.exits)
        await harness.follow(job_id)
        await harness.alice.transcript.end(job_id)
        await worker.wait_exit()
        assert await harness.timeline(job_id) == [*STARTED, "error SystemExit worker_lost"]


async def test_job_fails_if_its_result_cannot_be_stored(
    deployment: Deployment, token: Token
) -> None:
    worker = deployment.worker("--concurrency=1")
    async with harness_on(deployment, worker, token) as harness:
        job_id = harness.send(jobs.breaks_the_backend)
        await harness.follow(job_id)
        await harness.alice.transcript.end(job_id)
        assert await harness.timeline(job_id) == [*STARTED, "error OSError failure"]
