"""Chains and chords whose steps are cancelled end, instead of waiting for ever."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from celery import chain

from tests import cancelled_jobs as jobs
from tests.conftest import Valkey
from tests.e2e.cancellation.harness import Harness, Token, Workers, harness_of
from tests.support import Server, eventually, new_id


@pytest.fixture(params=["prefork", "threads"])
async def here(
    request: pytest.FixtureRequest, workers: Workers, server: Server, valkey: Valkey,
    tmp_path: Path, token: Token,
) -> AsyncIterator[Harness]:  # fmt: skip
    worker = workers.for_pool(request.param)
    async with harness_of(worker, server, valkey.url, tmp_path, token) as harness:
        yield harness


async def wait_failed(here: Harness, job_id: str) -> None:
    """Wait until a step has failed for its followers and in Celery, without having run."""
    end = await here.alice.transcript.end(job_id)
    assert (end["error"], end["reason"]) == ("StepFailed", "failure")
    await here.wait_state(job_id, "FAILURE")


async def test_later_steps_of_a_chain_fail(here: Harness) -> None:
    notes = str(here.folder / new_id("notes"))
    last = here.apply(
        chain(jobs.is_silent.si(notes), jobs.runs.si(notes), jobs.runs.si(notes)), notes
    )
    ids = [last.parent.parent.id, last.parent.id, last.id]
    for job_id in ids:
        assert (await here.alice.join(job_id))["ok"]
    here.notes[ids[0]] = notes
    await eventually(lambda: "began" in jobs.steps(notes), "the first step")
    assert here.cancel(ids[0]).outcome == "requested"
    await here.wait_cancelled(ids[0])
    for job_id in ids[1:]:
        await wait_failed(here, job_id)
    assert jobs.steps(notes)[:2] == ["began", "noticed"]
    assert "ran" not in jobs.steps(notes)


async def test_a_chord_fails_whose_running_member_is_cancelled(here: Harness) -> None:
    body, member, notes = await here.start_chord("silent member")
    await eventually(lambda: {"began", "ran"} <= {*jobs.steps(notes)}, "both members")
    assert here.cancel(member).outcome == "requested"
    await here.wait_cancelled(member)
    await wait_failed(here, body)
    assert "collected" not in jobs.steps(notes)


async def test_a_chord_fails_whose_waiting_member_is_cancelled(here: Harness) -> None:
    body, member, notes = await here.start_chord("scheduled member")
    await eventually(lambda: jobs.steps(notes) == ["ran"], "the other member")
    await here.settle()
    assert here.cancel(member).outcome == "cancelled"
    await here.wait_cancelled(member)
    await wait_failed(here, body)
    assert "collected" not in jobs.steps(notes)


@pytest.mark.parametrize("kind", jobs.CHAINS)
async def test_a_chord_fails_whose_member_is_a_cancelled_chain(here: Harness, kind: str) -> None:
    body, first, notes = await here.start_chord(kind)
    await eventually(lambda: {"began", "ran"} <= {*jobs.steps(notes)}, "both members")
    assert here.cancel(first).outcome == "requested"
    await here.wait_cancelled(first)
    await wait_failed(here, body)
    assert "collected" not in jobs.steps(notes)


async def test_the_body_of_a_chord_is_cancelled_while_it_runs(here: Harness) -> None:
    body, _, notes = await here.start_chord("silent body")
    await eventually(lambda: "began" in jobs.steps(notes), "the body")
    assert here.cancel(body).outcome == "requested"
    await here.wait_cancelled(body)
    assert jobs.steps(notes) == ["ran", "began", "noticed"]
