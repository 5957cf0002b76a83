"""Chains and chords whose steps are cancelled end, instead of waiting for ever."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import cancelled_jobs as jobs
from tests.e2e.cancellation.harness import TERMINATING, Harness, in_pools
from tests.support import eventually, new_id


async def test_later_steps_of_a_chain_fail(here: Harness) -> None:
    [first, *later], notes = await here.follow_chain(jobs.is_silent.si, jobs.runs.si, jobs.runs.si)
    await eventually(lambda: "began" in jobs.steps(notes), "the first step")
    assert here.cancel(first).outcome == "requested"
    await here.wait_cancelled(first)
    for job_id in later:
        await here.wait_failed(job_id)
    assert jobs.steps(notes)[:2] == ["began", "noticed"]
    assert "errback TaskRevokedError" in jobs.steps(notes)
    assert "ran" not in jobs.steps(notes)


@pytest.mark.parametrize("waits", ["in the worker", "in the broker"])
async def test_steps_after_a_waiting_step_fail(here: Harness, waits: str) -> None:
    queue = new_id("queue")
    options = {"countdown": 600} if waits == "in the worker" else {"queue": queue}
    [first, waiting, last], notes = await here.follow_chain(
        jobs.runs.si, lambda notes: jobs.runs.si(notes).set(**options), jobs.runs.si
    )
    await here.alice.transcript.end(first)
    await here.settle()
    assert here.cancel(waiting).outcome == "cancelled"
    await here.wait_cancelled(waiting)
    if waits == "in the broker":
        here.consume(queue)
    await here.wait_failed(last)
    await eventually(lambda: "errback TaskRevokedError" in jobs.steps(notes), "errback")
    await here.wait_cancelled(waiting)
    assert jobs.steps(notes).count("ran") == 1


async def test_a_step_that_is_not_sent_yet_cannot_be_cancelled(here: Harness) -> None:
    [first, later], notes = await here.follow_chain(jobs.ends_when_released.si, jobs.runs.si)
    await eventually(lambda: "began" in jobs.steps(notes), "the first step")
    assert here.cancel(later).outcome == "job_not_found"
    assert here.cancel(first).outcome == "requested"
    here.release(first)
    await here.wait_cancelled(first)
    await here.wait_failed(later)


async def wait_chord_failed(here: Harness, body: str, notes: str) -> None:
    """Wait until the body of a chord fails, and its errback is called."""
    await here.wait_failed(body)
    await eventually(lambda: "errback ChordError" in jobs.steps(notes), "errback")
    assert "collected" not in jobs.steps(notes)


async def test_a_chord_fails_whose_running_member_is_cancelled(here: Harness) -> None:
    body, member, notes = await here.start_chord("silent member")
    await eventually(lambda: {"began", "ran"} <= {*jobs.steps(notes)}, "both members")
    assert here.cancel(member).outcome == "requested"
    await here.wait_cancelled(member)
    await wait_chord_failed(here, body, notes)


@in_pools(*TERMINATING)
async def test_a_chord_fails_whose_running_member_is_terminated(here: Harness) -> None:
    body, member, notes = await here.start_chord("terminated member")
    await eventually(lambda: {"began", "ran"} <= {*jobs.steps(notes)}, "both members")
    assert here.cancel(member).terminates
    await here.wait_cancelled(member)
    await wait_chord_failed(here, body, notes)


@in_pools(*TERMINATING)
async def test_later_steps_fail_after_a_step_that_is_terminated(here: Harness) -> None:
    [first, later], notes = await here.follow_chain(jobs.goes_on.si, jobs.runs.si)
    await eventually(lambda: "began" in jobs.steps(notes), "the first step")
    assert here.cancel(first).terminates
    await here.wait_cancelled(first)
    await here.wait_failed(later)
    assert jobs.steps(notes)[:2] == ["began", "finally"]
    assert jobs.steps(notes).count("errback TaskRevokedError") == 1


async def test_a_chord_fails_whose_waiting_member_is_cancelled(here: Harness) -> None:
    body, member, notes = await here.start_chord("scheduled member")
    await eventually(lambda: jobs.steps(notes) == ["ran"], "the other member")
    await here.settle()
    assert here.cancel(member).outcome == "cancelled"
    await here.wait_cancelled(member)
    await wait_chord_failed(here, body, notes)


async def test_a_chord_fails_whose_member_is_cancelled_in_the_broker(here: Harness) -> None:
    body, member, notes = await here.start_chord("queued member")
    await eventually(lambda: jobs.steps(notes) == ["ran"], "the other member")
    assert here.cancel(member).outcome == "cancelled"
    await here.wait_cancelled(member)
    here.consume(Path(notes).name)
    await wait_chord_failed(here, body, notes)
    await here.wait_cancelled(member)
    assert jobs.steps(notes).count("ran") == 1


@pytest.mark.parametrize("kind", jobs.CHAINS)
async def test_a_chord_fails_whose_member_is_a_cancelled_chain(here: Harness, kind: str) -> None:
    body, first, notes = await here.start_chord(kind)
    await eventually(lambda: {"began", "ran"} <= {*jobs.steps(notes)}, "both members")
    assert here.cancel(first).outcome == "requested"
    await here.wait_cancelled(first)
    await wait_chord_failed(here, body, notes)


async def test_the_body_of_a_chord_is_cancelled_while_it_runs(here: Harness) -> None:
    body, _, notes = await here.start_chord("silent body")
    await eventually(lambda: "began" in jobs.steps(notes), "the body")
    assert here.cancel(body).outcome == "requested"
    await here.wait_cancelled(body)
    assert jobs.steps(notes) == ["ran", "began", "noticed", "errback TaskRevokedError"]


async def test_the_body_of_a_chord_is_cancelled_while_it_waits(here: Harness) -> None:
    body, _, notes = await here.start_chord("scheduled body")
    await here.wait_status(body, "queued")
    await here.settle()
    assert here.cancel(body).outcome == "cancelled"
    await here.wait_cancelled(body)
    assert jobs.steps(notes) == ["ran", "errback TaskRevokedError"]
