"""Jobs whose worker is killed, stopped or does not answer."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest

from jobcast.liveness import sidecar_main
from jobcast.transports.leases import LeaseTimeouts
from tests import ending_jobs as jobs
from tests.e2e.endings.harness import ANY, BEGUN, DONE, Quick, Token, at, story_of
from tests.support import Worker, eventually, give_back_unacknowledged


@pytest.mark.parametrize("pool", ANY)
@pytest.mark.parametrize("quick", [LeaseTimeouts(lease=3, lost_after=3)], indirect=True)
async def test_a_worker_that_is_killed_is_missed(pool: str, quick: Quick, token: Token) -> None:
    worker = quick.worker(pool=pool)
    async with at(quick, worker, token) as scene:
        job_id, waiting = scene.send(jobs.hangs), scene.send(jobs.succeeds, queue="nobody")
        await scene.follow(job_id)
        await scene.follow(waiting)
        await scene.runs(job_id)
        worker.kill()
        end = await scene.alice.transcript.end(job_id)
        story = [*BEGUN, "stalled", "error WorkerLostError worker_lost"]
        assert await scene.told(job_id) == story
        assert "is gone" in end["message"]
        # What was sent and never begun is in nobody's hands yet.
        assert await scene.told(waiting) == ["queued"]


async def test_a_job_whose_worker_is_gone_goes_on_at_another(quick: Quick, token: Token) -> None:
    worker = quick.worker()
    async with at(quick, worker, token) as scene:
        job_id = scene.send(jobs.hangs_at_first, scene.marker())
        await scene.follow(job_id)
        await scene.runs(job_id)
        worker.kill()
        await eventually(lambda: "stalled" in story_of(scene.alice, job_id), "stalled job")
        give_back_unacknowledged(quick.valkey.url)
        scene.worker = await quick.another(worker)
        assert await scene.story(job_id) == [*BEGUN, "stalled", "started 1/2", "log", DONE]


async def test_a_living_job_whose_process_does_not_answer(quick: Quick, token: Token) -> None:
    """Another process of its worker speaks for it."""
    worker = quick.worker()
    async with at(quick, worker, token) as scene:
        job_id = scene.send(jobs.holds_the_interpreter, 14)
        await scene.follow(job_id)
        assert await scene.story(job_id) == [*BEGUN, DONE]
        assert sidecars_of(worker) == []


def sidecars_of(worker: Worker) -> list[psutil.Process]:
    children = psutil.Process(worker.popen.pid).children()
    return [child for child in children if sidecar_main.__file__ in child.cmdline()]


@pytest.mark.parametrize("pool", ["threads", "gevent", "eventlet"])
@pytest.mark.parametrize("quick", [LeaseTimeouts(lease=24, lost_after=1)], indirect=True)
async def test_a_living_job_that_keeps_its_whole_worker_from_answering(
    pool: str, quick: Quick, token: Token
) -> None:
    """Nor are those that run beside it missed."""
    worker = quick.worker(pool=pool)
    gate = Path(quick.folder / "gate")
    async with at(quick, worker, token) as scene:
        beside = scene.send(jobs.waits, str(gate))
        await scene.follow(beside)
        await scene.runs(beside)
        job_id = scene.send(jobs.holds_the_interpreter, 32)
        await scene.follow(job_id)
        assert await scene.story(job_id) == [*BEGUN, DONE], worker.log
        gate.touch()
        assert await scene.story(beside) == [*BEGUN, "log", DONE]


@pytest.mark.parametrize("quick", [LeaseTimeouts(lease=3, lost_after=1)], indirect=True)
async def test_nobody_speaks_for_a_worker_that_is_gone(quick: Quick, token: Token) -> None:
    worker = quick.worker(pool="threads")
    async with at(quick, worker, token) as scene:
        job_id = scene.send(jobs.hangs)
        await scene.follow(job_id)
        await scene.runs(job_id)
        [sidecar] = await eventually(lambda: sidecars_of(worker), "process that keeps jobs alive")
        # What it has started stays.
        os.kill(worker.popen.pid, signal.SIGKILL)
        await scene.alice.transcript.end(job_id)
        assert await scene.told(job_id) == [*BEGUN, "stalled", "error WorkerLostError worker_lost"]
        await eventually(lambda: not sidecar.is_running(), "end of that process")


async def test_a_worker_that_stops_leaves_nothing_behind(quick: Quick, token: Token) -> None:
    worker = quick.worker(pool="threads")
    async with at(quick, worker, token) as scene:
        job_id = scene.send(jobs.succeeds)
        await scene.follow(job_id)
        assert await scene.story(job_id) == [*BEGUN, DONE]
        [sidecar] = await eventually(lambda: sidecars_of(worker), "process that keeps jobs alive")
        # As supervisors do; it is the worker that decides when it ends.
        os.killpg(worker.popen.pid, signal.SIGTERM)
        assert await worker.ended() == 0
        await eventually(lambda: not sidecar.is_running(), "end of that process")
        assert "Traceback" not in worker.log


async def test_worker_has_no_sidecar_by_default(quick: Quick, token: Token) -> None:
    worker = quick.worker(pool="threads", JOBCAST_LEASE_SIDECAR="")
    gate = Path(quick.folder / "gate")
    async with at(quick, worker, token) as scene:
        done, waiting = scene.send(jobs.succeeds), scene.send(jobs.waits, str(gate))
        await scene.follow(done)
        await scene.follow(waiting)
        assert await scene.story(done) == [*BEGUN, DONE]
        await scene.runs(waiting)
        assert sidecars_of(worker) == []
        gate.touch()
        assert await scene.story(waiting) == [*BEGUN, "log", DONE]


async def test_a_worker_that_was_only_asleep(quick: Quick, token: Token) -> None:
    worker = quick.worker()
    gate = Path(quick.folder / "gate")
    async with at(quick, worker, token) as scene:
        job_id = scene.send(jobs.waits, str(gate))
        await scene.follow(job_id)
        await scene.runs(job_id)
        os.killpg(worker.popen.pid, signal.SIGSTOP)
        await eventually(lambda: "stalled" in story_of(scene.alice, job_id), "stalled job")
        os.killpg(worker.popen.pid, signal.SIGCONT)
        await eventually(
            lambda: story_of(scene.alice, job_id)[-1] == "started 1/1", "job that is there again"
        )
        gate.touch()
        assert await scene.story(job_id) == [*BEGUN, "stalled", "started 1/1", "log", DONE]
