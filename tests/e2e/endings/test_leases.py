"""Jobs whose worker is killed, stopped or does not answer."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from jobcast.liveness import sidecar_main
from jobcast.transports.leases import LeaseTimeouts
from tests import ending_jobs as jobs
from tests.e2e.endings.harness import (
    ALL_POOLS,
    DONE,
    STARTED,
    Deployment,
    Token,
    harness_on,
    timeline_of,
)
from tests.support import Worker, eventually, restore_unacknowledged
from tests.support.proxy import Proxy


@asynccontextmanager
async def running_proxy() -> AsyncIterator[Proxy]:
    proxy = Proxy()
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.aclose()


@pytest.mark.parametrize("pool", ALL_POOLS)
@pytest.mark.parametrize("deployment", [LeaseTimeouts(lease=6, lost_after=3)], indirect=True)
async def test_job_of_a_killed_worker_stalls_and_is_lost(
    pool: str, deployment: Deployment, token: Token
) -> None:
    worker = deployment.worker(pool=pool)
    async with harness_on(deployment, worker, token) as harness:
        job_id, waiting = harness.send(jobs.hangs), harness.send(jobs.succeeds, queue="unserved")
        await harness.follow(job_id)
        await harness.follow(waiting)
        await harness.wait_until_running(job_id)
        worker.kill()
        end = await harness.alice.transcript.end(job_id)
        timeline = [*STARTED, "stalled", "error WorkerLostError worker_lost"]
        assert await harness.timeline(job_id) == timeline
        assert "is gone" in end["message"]
        # A job that never started has no lease.
        assert await harness.timeline(waiting) == ["queued"]


@pytest.mark.parametrize("deployment", [LeaseTimeouts(lease=6, lost_after=3)], indirect=True)
async def test_job_is_lost_if_its_process_dies_before_it_could_send_the_ending(
    deployment: Deployment, token: Token
) -> None:
    """The worker is alive, and Celery has the result, but only the dead process had the ending."""
    async with running_proxy() as transport:
        transport.target = deployment.valkey.port
        url = f"redis://127.0.0.1:{transport.port}/0"
        worker = deployment.worker("--concurrency=1", JOBCAST_URL=url)
        gate = Path(deployment.folder / "gate")
        async with harness_on(deployment, worker, token) as harness:
            job_id = harness.send(jobs.waits, str(gate))
            await harness.follow(job_id)
            await harness.wait_until_running(job_id)
            [child] = psutil.Process(worker.popen.pid).children()
            transport.target = None
            transport.reset_all()
            gate.touch()
            await asyncio.to_thread(worker.wait_result, job_id)
            # The main process reports the result itself if the child is lost before it has it.
            await asyncio.to_thread(worker.wait_idle)
            child.kill()
            transport.target = deployment.valkey.port
            await harness.alice.transcript.end(job_id)
            timeline = [*STARTED, "stalled", "error WorkerLostError worker_lost"]
            assert await harness.timeline(job_id) == timeline


async def test_job_of_a_killed_worker_runs_again_on_another_worker(
    deployment: Deployment, token: Token
) -> None:
    worker = deployment.worker()
    async with harness_on(deployment, worker, token) as harness:
        job_id = harness.send(jobs.hangs_at_first, harness.marker())
        await harness.follow(job_id)
        await harness.wait_until_running(job_id)
        worker.kill()
        await eventually(lambda: "stalled" in timeline_of(harness.alice, job_id), "stalled job")
        restore_unacknowledged(deployment.valkey.url)
        harness.worker = await deployment.start_replacement(worker)
        timeline = [*STARTED, "stalled", "started 1/2", "log", DONE]
        assert await harness.final_timeline(job_id) == timeline


async def test_job_that_blocks_its_process_keeps_its_lease(
    deployment: Deployment, token: Token
) -> None:
    """Another process of the worker renews the lease of the job."""
    worker = deployment.worker()
    async with harness_on(deployment, worker, token) as harness:
        job_id = harness.send(jobs.holds_the_interpreter, 14)
        await harness.follow(job_id)
        assert await harness.final_timeline(job_id) == [*STARTED, DONE]
        assert sidecars_of(worker) == []


def sidecars_of(worker: Worker) -> list[psutil.Process]:
    children = psutil.Process(worker.popen.pid).children()
    return [child for child in children if sidecar_main.__file__ in child.cmdline()]


@pytest.mark.parametrize("pool", ["threads", "gevent", "eventlet"])
@pytest.mark.parametrize("deployment", [LeaseTimeouts(lease=24, lost_after=1)], indirect=True)
async def test_sidecar_keeps_leases_while_a_job_blocks_the_worker(
    pool: str, deployment: Deployment, token: Token
) -> None:
    """Jobs beside the blocking one keep their leases too."""
    worker = deployment.worker(pool=pool)
    gate = Path(deployment.folder / "gate")
    async with harness_on(deployment, worker, token) as harness:
        beside = harness.send(jobs.waits, str(gate))
        await harness.follow(beside)
        await harness.wait_until_running(beside)
        job_id = harness.send(jobs.holds_the_interpreter, 32)
        await harness.follow(job_id)
        assert await harness.final_timeline(job_id) == [*STARTED, DONE], worker.log
        gate.touch()
        assert await harness.final_timeline(beside) == [*STARTED, "log", DONE]


@pytest.mark.parametrize("deployment", [LeaseTimeouts(lease=6, lost_after=1)], indirect=True)
async def test_sidecar_ends_with_a_killed_worker(deployment: Deployment, token: Token) -> None:
    worker = deployment.worker(pool="threads")
    async with harness_on(deployment, worker, token) as harness:
        job_id = harness.send(jobs.hangs)
        await harness.follow(job_id)
        await harness.wait_until_running(job_id)
        [sidecar] = await eventually(lambda: sidecars_of(worker), "sidecar")
        # Unlike worker.kill(), this leaves the worker's child processes alive.
        os.kill(worker.popen.pid, signal.SIGKILL)
        await harness.alice.transcript.end(job_id)
        timeline = [*STARTED, "stalled", "error WorkerLostError worker_lost"]
        assert await harness.timeline(job_id) == timeline
        await eventually(lambda: not sidecar.is_running(), "end of the sidecar")


async def test_sidecar_ends_with_a_stopped_worker(deployment: Deployment, token: Token) -> None:
    worker = deployment.worker(pool="threads")
    async with harness_on(deployment, worker, token) as harness:
        job_id = harness.send(jobs.succeeds)
        await harness.follow(job_id)
        assert await harness.final_timeline(job_id) == [*STARTED, DONE]
        [sidecar] = await eventually(lambda: sidecars_of(worker), "sidecar")
        # Supervisors signal the whole process group. The sidecar ends only after the worker.
        os.killpg(worker.popen.pid, signal.SIGTERM)
        assert await worker.wait_exit() == 0
        await eventually(lambda: not sidecar.is_running(), "end of the sidecar")
        assert "Traceback" not in worker.log


async def test_worker_has_no_sidecar_by_default(deployment: Deployment, token: Token) -> None:
    worker = deployment.worker(pool="threads", JOBCAST_LEASE_SIDECAR="")
    gate = Path(deployment.folder / "gate")
    async with harness_on(deployment, worker, token) as harness:
        done, waiting = harness.send(jobs.succeeds), harness.send(jobs.waits, str(gate))
        await harness.follow(done)
        await harness.follow(waiting)
        assert await harness.final_timeline(done) == [*STARTED, DONE]
        await harness.wait_until_running(waiting)
        assert sidecars_of(worker) == []
        gate.touch()
        assert await harness.final_timeline(waiting) == [*STARTED, "log", DONE]


async def test_stalled_job_of_a_suspended_worker_resumes(
    deployment: Deployment, token: Token
) -> None:
    worker = deployment.worker()
    gate = Path(deployment.folder / "gate")
    async with harness_on(deployment, worker, token) as harness:
        job_id = harness.send(jobs.waits, str(gate))
        await harness.follow(job_id)
        await harness.wait_until_running(job_id)
        os.killpg(worker.popen.pid, signal.SIGSTOP)
        await eventually(lambda: "stalled" in timeline_of(harness.alice, job_id), "stalled job")
        os.killpg(worker.popen.pid, signal.SIGCONT)
        await eventually(
            lambda: timeline_of(harness.alice, job_id)[-1] == "started 1/1", "resumed job"
        )
        gate.touch()
        timeline = [*STARTED, "stalled", "started 1/1", "log", DONE]
        assert await harness.final_timeline(job_id) == timeline
