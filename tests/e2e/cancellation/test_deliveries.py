"""A request outlives workers: later deliveries of a cancelled job's message do not run."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests import cancelled_jobs as jobs
from tests.conftest import Valkey
from tests.e2e.cancellation.harness import Harness, Token, Workers, harness_of
from tests.support import Server, eventually, restore_unacknowledged, running

PREFORK = "--pool=prefork", "--concurrency=2"


@pytest.fixture
async def here(
    workers: Workers, server: Server, valkey: Valkey, tmp_path: Path, token: Token
) -> AsyncIterator[Harness]:
    worker = workers.create(*PREFORK).ready()
    async with harness_of(worker, server, valkey.url, tmp_path, token) as harness:
        yield harness
    worker.kill()


async def test_a_worker_that_starts_later_does_not_run_the_job(
    here: Harness, workers: Workers
) -> None:
    here.worker.kill()
    job_id = await here.followed(here.send(jobs.runs))
    assert here.cancel(job_id).outcome == "cancelled"
    here.worker = workers.create(*PREFORK, "-Q", here.queue).ready()
    await eventually(lambda: here.steps(job_id), "errback")
    await here.wait_cancelled(job_id)
    assert here.steps(job_id) == ["errback TaskRevokedError"]
    here.worker.kill()


async def test_a_lost_run_is_not_repeated(here: Harness, workers: Workers, valkey: Valkey) -> None:
    job_id = await here.begun(here.send(jobs.goes_on_late))
    assert here.cancel(job_id).outcome == "requested"
    here.worker.kill()
    restore_unacknowledged(valkey.url)
    here.worker = workers.create(*PREFORK, "-Q", here.queue).ready()
    await here.wait_cancelled(job_id)
    assert here.steps(job_id) == ["began", "errback TaskRevokedError"]
    here.worker.kill()


async def test_a_killed_child_s_run_is_not_repeated(here: Harness) -> None:
    job_id = await here.begun(here.send(jobs.is_killed_when_cancelled))
    assert here.cancel(job_id).outcome == "requested"
    await here.wait_cancelled(job_id)
    assert here.steps(job_id) == ["began", "killed", "errback TaskRevokedError"]


async def test_a_job_that_is_sent_again_runs(here: Harness) -> None:
    first = here.send(jobs.runs, countdown=600)
    job_id = await here.followed(first)
    await here.settle()
    assert here.cancel(job_id).outcome == "cancelled"
    await here.wait_cancelled(job_id)
    here.send(jobs.runs, task_id=job_id)
    await here.wait_state(job_id, "SUCCESS")
    await eventually(lambda: here.steps(job_id) == ["ran"], "the second run")
    assert (await here.alice.join(job_id))["status"] == "complete"


async def test_an_outage_of_the_store_delays_the_cancellation(
    workers: Workers, own_valkey: Valkey, server: Server, tmp_path: Path, token: Token,
    valkey: Valkey,
) -> None:  # fmt: skip
    """The worker's transport is paused for two seconds at the moment of the request."""
    worker = workers.create(*PREFORK, env={"JOBCAST_URL": own_valkey.url}).ready()
    with running(Server(tmp_path / "server.log", own_valkey.url)) as own_server:
        async with harness_of(worker, own_server.ready(), own_valkey.url, tmp_path, token) as here:
            for task in (jobs.is_silent, jobs.talks):
                job_id = await here.begun(here.send(task))
                await wait_started(here, job_id)
                with ThreadPoolExecutor(1) as pool:
                    os.kill(own_valkey.popen.pid, signal.SIGSTOP)
                    threading.Timer(2, os.kill, (own_valkey.popen.pid, signal.SIGCONT)).start()
                    answer = pool.submit(here.cancel_when_available, job_id).result()
                # A repeated request may find that the first one has ended the job.
                assert answer.outcome in ("requested", "already_ended")
                await here.wait_cancelled(job_id)
    worker.kill()


async def wait_started(here: Harness, job_id: str) -> None:
    def statuses() -> list[str]:
        return [event["status"] for event in here.alice.transcript.of(job_id, "job_status")]

    await eventually(lambda: "started" in statuses(), f"start of {job_id}")
