"""A request outlives workers: later deliveries of a cancelled job's message do not run."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest
import redis
from celery import VERSION

from tests import cancelled_jobs as jobs
from tests.conftest import Valkey
from tests.e2e.cancellation.harness import (
    Harness,
    Token,
    Workers,
    harness_of,
    in_pools,
    paused,
)
from tests.support import Server, eventually, restore_unacknowledged, running


async def test_a_restarted_worker_runs_no_cancelled_job(here: Harness) -> None:
    scheduled = await here.followed(here.send(jobs.runs, countdown=600))
    await here.settle()
    lost = [await here.begun(here.send(jobs.goes_on_late)) for _ in range(here.worker.concurrency)]
    for job_id in lost:
        await here.wait_status(job_id, "started")
    # The first run is cancelled before the worker is killed, the others after it.
    assert here.cancel(lost[0]).outcome == "requested"
    here.worker.kill()
    for job_id in lost[1:]:
        assert here.cancel(job_id).outcome == "requested"
    unreceived = await here.followed(here.send(jobs.runs))
    for job_id in (scheduled, unreceived):
        assert here.cancel(job_id).outcome == "cancelled"
    await here.worker.restart()
    errback = "errback TaskRevokedError"
    for job_id, steps in [
        *((job_id, ["began", errback]) for job_id in lost),
        (scheduled, [errback]),
        (unreceived, [errback]),
    ]:
        await here.wait_cancelled(job_id)
        await here.wait_steps(job_id, steps)


@in_pools("prefork")
@pytest.mark.parametrize("acks", ["early", "late"])
async def test_a_run_whose_process_is_killed_in_its_grace_is_cancelled(
    here: Harness, acks: str
) -> None:
    tasks = {"early": jobs.is_killed_when_cancelled, "late": jobs.is_killed_when_cancelled_late}
    job_id = await here.begun(here.send(tasks[acks]))
    assert here.cancel(job_id).outcome == "requested"
    await here.wait_cancelled(job_id)
    assert here.steps(job_id) == ["began", "killed", "errback TaskRevokedError"]
    assert here.worker.log.count(f"[{job_id}] received") == 1


@in_pools("prefork" if VERSION >= (5, 7) else "eventlet", "gevent")
async def test_a_run_is_terminated_after_its_grace_if_the_broker_is_lost_meanwhile(
    here: Harness, valkey: Valkey
) -> None:
    job_id = await here.begun(here.send(jobs.has_a_long_grace))
    assert here.cancel(job_id).terminates
    await wait_asked(here, job_id)
    with redis.Redis.from_url(valkey.url) as client:
        client.client_kill_filter(_type="normal", skipme=True)
    await here.wait_cancelled(job_id)
    assert "onnection to broker lost" in here.worker.log
    assert here.steps(job_id) == ["began", "errback TaskRevokedError"]


@in_pools("prefork")
async def test_a_stopped_worker_ends_the_run_that_it_has_terminated(here: Harness) -> None:
    """Celery would store a retry that it never sends."""
    job_id = await here.begun(here.send(jobs.holds_the_interpreter))
    assert here.cancel(job_id).terminates
    line = f"job {job_id}: terminating its run"
    await eventually(lambda: line in here.worker.log, line)
    here.worker.popen.send_signal(signal.SIGQUIT)
    await here.worker.wait_exit()
    await here.worker.restart()
    await here.wait_cancelled(job_id)
    assert here.steps(job_id) == ["began", "errback TaskRevokedError"]


async def test_a_job_that_is_sent_again_runs(here: Harness) -> None:
    first = here.send(jobs.runs, countdown=600)
    job_id = await here.followed(first)
    await here.settle()
    assert here.cancel(job_id).outcome == "cancelled"
    await here.wait_cancelled(job_id)
    here.send(jobs.runs, task_id=job_id)
    await here.wait_state(job_id, "SUCCESS")
    await eventually(lambda: here.steps(job_id) == ["ran"], "the second run")
    # The result is in Celery's backend before the ending is published.
    await eventually(lambda: here.alice.transcript.of(job_id, "job_complete"), "the second ending")
    assert (await here.alice.join(job_id))["status"] == "complete"


async def deliver_again(here: Harness, job_id: str) -> None:
    """Have the worker receive the message of a running task for a second time."""
    await asyncio.to_thread(restore_unacknowledged, here.worker.env["CELERY_BROKER_URL"])
    received = f"[{job_id}] received"
    await eventually(lambda: here.worker.log.count(received) == 2, "the second delivery")


async def fill(here: Harness) -> str:
    """Occupy the other process or thread of the worker. Return the job that does so."""
    return await here.begun(here.send(jobs.is_silent))


async def wait_asked(here: Harness, job_id: str) -> None:
    """Wait until the main process has handled a request."""
    line = f"job {job_id}: asking its run to stop"
    await eventually(lambda: line in here.worker.log, line)


@in_pools("prefork", "threads")
@pytest.mark.parametrize("second", ["waits", "comes after the request"])
async def test_the_result_of_a_run_counts_whose_message_is_delivered_again(
    here: Harness, second: str
) -> None:
    job_id = await here.begun(here.send(jobs.finishes_late))
    if second == "waits":
        other = await fill(here)
        await deliver_again(here, job_id)
    assert here.cancel(job_id).outcome == "requested"
    await wait_asked(here, job_id)
    if second == "comes after the request":
        await deliver_again(here, job_id)
    await eventually(lambda: "noticed" in here.steps(job_id), "the request")
    here.release(job_id)
    await here.wait_outcome(job_id, "SUCCESS", result="done")
    if second == "waits":
        assert here.cancel(other).outcome == "requested"
        await here.wait_cancelled(other)
        await here.wait_outcome(job_id, "SUCCESS", result="done")
    assert here.steps(job_id) == ["began", "noticed"]


@in_pools("prefork")
async def test_a_run_is_terminated_whose_message_waits_again(here: Harness) -> None:
    job_id = await here.begun(here.send(jobs.is_terminated_late))
    other = await fill(here)
    await deliver_again(here, job_id)
    assert here.cancel(job_id).terminates
    await here.wait_cancelled(job_id)
    assert here.cancel(other).outcome == "requested"
    await here.wait_cancelled(other)
    assert here.state(job_id) == "REVOKED"
    assert here.steps(job_id) == ["began", "finally", "errback TaskRevokedError"]


@in_pools("prefork")
async def test_both_runs_of_a_message_are_terminated(here: Harness) -> None:
    job_id = await here.begun(here.send(jobs.is_terminated_late))
    await deliver_again(here, job_id)
    await eventually(lambda: here.steps(job_id) == ["began", "began"], "the second run")
    assert here.cancel(job_id).terminates
    await here.wait_cancelled(job_id)
    await eventually(lambda: here.steps(job_id).count("finally") == 2, "the end of both runs")
    await here.wait_cancelled(job_id)
    assert here.worker.log.count(f"job {job_id}: terminating its run") == 2


async def cancel_during_an_outage(here: Harness, valkey: Valkey) -> None:
    """Cancel jobs that run, and one that waits, while the store is paused."""
    waiting = await here.followed(here.send(jobs.runs, countdown=600))
    await here.wait_status(waiting, "queued")
    await here.settle()
    tasks = (jobs.is_silent, jobs.talks)[: here.worker.concurrency]
    begun = [await here.begun(here.send(task)) for task in tasks]
    for job_id in begun:
        await here.wait_status(job_id, "started")
    with paused(valkey):
        outcomes = await asyncio.gather(*map(here.cancel_when_available, (*begun, waiting)))
    # A repeated request may find that the first one has ended the job.
    assert {*outcomes[:-1]} <= {"requested", "already_ended"}
    assert outcomes[-1] in ("cancelled", "already_ended")
    for job_id in (*begun, waiting):
        await here.wait_cancelled(job_id)


async def test_an_outage_of_redis_delays_the_cancellation(here: Harness, valkey: Valkey) -> None:
    """One Redis is the store, the broker and the result backend."""
    await cancel_during_an_outage(here, valkey)


async def test_an_outage_of_the_store_delays_the_cancellation(
    workers: Workers, own_valkey: Valkey, tmp_path: Path, token: Token
) -> None:
    """The worker's store is another one than that of the sender, which it misses events of."""
    worker = workers.create("prefork", env={"JOBCAST_URL": own_valkey.url}).ready()
    with running(Server(tmp_path / "server.log", own_valkey.url)) as server:
        async with harness_of(worker, server.ready(), own_valkey.url, tmp_path, token) as here:
            await cancel_during_an_outage(here, own_valkey)
    worker.kill()
