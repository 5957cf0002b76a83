"""Each cancelled run ends once, for its followers and in Celery, in every pool."""

from __future__ import annotations

import pathlib

import pytest

from tests import cancelled_jobs as jobs
from tests.e2e.cancellation.harness import TERMINATING, Harness, in_pools
from tests.support import eventually, new_id


async def test_a_talking_run_ends_at_its_next_event(here: Harness) -> None:
    job_id = await here.begun(here.send(jobs.talks))
    answer = here.cancel(job_id)
    assert (answer.outcome, answer.terminates) == ("requested", here.worker.pool in TERMINATING)
    await here.wait_cancelled(job_id)
    assert here.steps(job_id) == [
        "began", "cancelled by alice: no longer needed", "errback TaskRevokedError",
    ]  # fmt: skip
    names = here.alice.transcript.names(job_id)
    assert names[-1] == "job_error"
    lines = here.alice.transcript.of(job_id, "job_log")
    assert lines[-1]["message"] == "cleaned up"
    statuses = here.alice.transcript.of(job_id, "job_status")
    assert (statuses[-1]["status"], statuses[-1]["by"]) == ("cancelling", "alice")


async def test_a_silent_run_learns_that_it_is_cancelled(here: Harness) -> None:
    for task in (jobs.is_silent, jobs.is_silent_late):
        job_id = await here.begun(here.send(task))
        assert here.cancel(job_id).outcome == "requested"
        # The run may have ended meanwhile.
        assert here.cancel(job_id).outcome in ("requested", "already_ended")
        await here.wait_cancelled(job_id)
        assert here.cancel(job_id).outcome == "already_ended"
        assert here.steps(job_id) == ["began", "noticed", "errback TaskRevokedError"]


@in_pools(*TERMINATING)
async def test_a_run_that_goes_on_is_terminated_after_its_grace(here: Harness) -> None:
    job_id = await here.begun(here.send(jobs.goes_on))
    assert here.cancel(job_id).terminates
    await here.wait_cancelled(job_id)
    assert here.steps(job_id) == ["began", "finally", "errback TaskRevokedError"]
    assert f"job {job_id}: terminating its run" in here.worker.log


async def terminated(here: Harness, then: str) -> tuple[str, pathlib.Path]:
    """Cancel a run that survives its termination. Return its job, and the path of its process."""
    job_id = await here.followed(here.send(jobs.survives_its_termination, then))
    [began] = await eventually(lambda: here.steps(job_id), f"start of {job_id}")
    assert here.cancel(job_id).terminates
    return job_id, pathlib.Path(f"/proc/{began.rpartition(' ')[2]}")


def steps_after_start(here: Harness, job_id: str) -> list[str]:
    began, *later = here.steps(job_id)
    assert began.startswith("began")
    return later


@in_pools(*TERMINATING)
async def test_the_result_of_a_run_that_survives_its_termination_counts(here: Harness) -> None:
    job_id, process = await terminated(here, "returns")
    await here.wait_outcome(job_id, "SUCCESS", result="done")
    assert steps_after_start(here, job_id) == ["survived"]
    if here.worker.pool == "prefork":
        await eventually(lambda: not process.exists(), "the end of the process")


@in_pools(*TERMINATING)
async def test_the_failure_of_a_run_that_survives_its_termination_counts(here: Harness) -> None:
    job_id, process = await terminated(here, "fails")
    await here.wait_outcome(job_id, "FAILURE", error="LookupError", reason="failure")
    assert steps_after_start(here, job_id) == ["survived", "errback LookupError"]
    if here.worker.pool == "prefork":
        await eventually(lambda: not process.exists(), "the end of the process")


@in_pools("prefork")
@pytest.mark.parametrize("then", ["goes on", "retries"])
async def test_a_run_that_survives_its_termination_without_an_outcome_is_cancelled(
    here: Harness, then: str
) -> None:
    job_id, process = await terminated(here, then)
    await here.wait_cancelled(job_id)
    assert steps_after_start(here, job_id) == ["survived", "errback TaskRevokedError"]
    await eventually(lambda: not process.exists(), "the end of the process")


@in_pools(*TERMINATING)
async def test_the_stored_failure_of_a_run_that_hangs_in_a_hook_counts(here: Harness) -> None:
    job_id = await here.begun(here.send(jobs.fails_and_hangs))
    await eventually(lambda: "hook" in here.steps(job_id), f"hook of {job_id}")
    assert here.cancel(job_id).terminates
    await here.wait_outcome(job_id, "FAILURE", error="LookupError", reason="failure")
    assert f"job {job_id}: terminating its run" in here.worker.log
    assert here.steps(job_id) == ["began", "errback LookupError", "hook"]


@in_pools("threads", "solo")
async def test_a_pool_without_termination_warns_of_a_run_that_goes_on(here: Harness) -> None:
    job_id = await here.begun(here.send(jobs.finishes_after_its_grace))
    assert not here.cancel(job_id).terminates
    if here.worker.pool == "threads":  # the solo pool handles requests after the run
        warning = f"job {job_id}: its run is still active, 0.2 s after"
        await eventually(lambda: warning in here.worker.log, warning)
    here.release(job_id)
    end = await here.alice.transcript.end(job_id)
    assert end["result"] == "done"
    await here.wait_state(job_id, "SUCCESS")


@in_pools("prefork")
async def test_a_run_in_c_code_is_killed_after_its_grace(here: Harness) -> None:
    job_id = await here.begun(here.send(jobs.holds_the_interpreter))
    assert here.cancel(job_id).terminates
    await here.wait_cancelled(job_id)
    assert here.steps(job_id) == ["began", "errback TaskRevokedError"]
    log = here.worker
    await eventually(
        lambda: f"job {job_id}: its run ignores SIGTERM" in log.log, "the process is killed"
    )
    await here.settle()


async def test_a_scheduled_task_is_discarded_at_once(here: Harness) -> None:
    job_id = await here.followed(here.send(jobs.runs, countdown=600))
    await here.settle()
    assert here.cancel(job_id).outcome == "cancelled"
    await here.wait_state(job_id, "REVOKED")
    await here.wait_cancelled(job_id)
    assert here.steps(job_id) == ["errback TaskRevokedError"]
    assert here.alice.transcript.seqs(job_id) == [1, 2]  # queued, and the end


async def test_a_retry_that_waits_is_discarded_at_once(here: Harness) -> None:
    job_id = await here.begun(here.send(jobs.waits_for_its_retry))
    await here.wait_state(job_id, "RETRY")
    await here.settle()
    assert here.cancel(job_id).outcome == "cancelled"
    await here.wait_cancelled(job_id)
    assert here.steps(job_id) == ["began", "errback TaskRevokedError"]


async def test_a_message_that_no_worker_has_received_is_discarded_later(
    here: Harness,
) -> None:
    queue = new_id("queue")
    job_id = await here.followed(here.send(jobs.runs, queue=queue))
    assert here.cancel(job_id).outcome == "cancelled"
    await here.wait_cancelled(job_id)
    assert here.steps(job_id) == []
    here.consume(queue)
    await eventually(lambda: here.steps(job_id), "errback")
    await here.wait_cancelled(job_id)
    assert here.steps(job_id) == ["errback TaskRevokedError"]


@in_pools("prefork", "threads", "gevent", "eventlet")
async def test_a_message_that_waits_for_the_pool_does_not_run(here: Harness) -> None:
    """A pool of threads has the message meanwhile; that of processes takes it when one is free.

    The consumer of a full pool of greenlets waits, and marks the message when one is free.
    """
    running = [await here.begun(here.send(jobs.is_silent)) for _ in range(2)]
    waiting = await here.followed(here.send(jobs.goes_on))
    await here.wait_received(waiting)
    assert here.cancel(waiting).outcome == "cancelled"
    if here.worker.pool in ("prefork", "threads"):
        await here.wait_state(waiting, "REVOKED")
    for job_id in running:
        assert here.cancel(job_id).outcome == "requested"
        await here.wait_cancelled(job_id)
    await here.wait_cancelled(waiting)
    assert here.steps(waiting) == ["errback TaskRevokedError"]
    assert f"{waiting}: terminating" not in here.worker.log


@in_pools("prefork", "threads")
async def test_a_cancelled_run_is_never_retried(here: Harness) -> None:
    job_id = await here.begun(here.send(jobs.would_retry))
    assert here.cancel(job_id).outcome == "requested"
    await here.wait_cancelled(job_id)
    assert here.steps(job_id) == ["began", "errback TaskRevokedError"]


@in_pools("prefork", "threads")
async def test_a_shield_holds_the_cancellation_back(here: Harness) -> None:
    job_id = await here.begun(here.send(jobs.shields_its_work))
    assert here.cancel(job_id).outcome == "requested"
    await here.wait_cancelled(job_id)
    assert here.steps(job_id) == ["began", "saved", "errback TaskRevokedError"]


@in_pools("prefork", "threads")
async def test_a_coroutine_is_cancelled(here: Harness) -> None:
    job_id = await here.begun(here.send(jobs.awaits))
    assert here.cancel(job_id).outcome == "requested"
    await here.wait_cancelled(job_id)
    assert here.steps(job_id) == ["began", "cancelled", "errback TaskRevokedError"]


@in_pools("prefork")
async def test_a_task_can_refuse_to_be_cancelled(here: Harness) -> None:
    result = here.send(jobs.cannot_be_cancelled)
    assert here.cancel(result.id).outcome == "not_cancellable"
    job_id = await here.begun(result)
    assert here.cancel(job_id).outcome == "not_cancellable"
    here.release(job_id)
    end = await here.alice.transcript.end(job_id)
    assert end["result"] == "done"


async def test_two_requests_at_once_cancel_a_running_job_once(here: Harness) -> None:
    job_id = await here.begun(here.send(jobs.ends_when_released))
    terminates = here.worker.pool in TERMINATING
    asked = {"ok": True, "job_id": job_id, "outcome": "requested", "terminates": terminates}
    assert await here.cancel_twice(job_id) == [asked, asked]
    here.release(job_id)
    await here.wait_cancelled(job_id)
    statuses = here.alice.transcript.of(job_id, "job_status")
    assert [event["status"] for event in statuses].count("cancelling") == 1
    assert here.steps(job_id) == ["began", "released", "errback TaskRevokedError"]


async def test_two_requests_at_once_cancel_a_waiting_job_once(here: Harness) -> None:
    job_id = await here.followed(here.send(jobs.runs, countdown=600))
    await here.settle()
    answers = await here.cancel_twice(job_id)
    assert all(answer["ok"] for answer in answers)
    assert {answer["outcome"] for answer in answers} == {"cancelled", "already_ended"}
    await here.wait_cancelled(job_id)
    assert here.steps(job_id) == ["errback TaskRevokedError"]


@in_pools(*TERMINATING)
async def test_a_run_is_terminated_while_a_message_waits_for_the_pool(here: Harness) -> None:
    running = [await here.begun(here.send(jobs.goes_on)) for _ in range(here.worker.concurrency)]
    waiting = await here.followed(here.send(jobs.runs))
    await here.wait_received(waiting)
    for job_id in running:
        assert here.cancel(job_id).terminates
    for job_id in running:
        await here.wait_cancelled(job_id)
        assert "began" in here.steps(job_id)
    assert (await here.alice.transcript.end(waiting))["result"] == "done"
