"""A run that is stopped after it has stored its result: the result counts everywhere."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from tests import stored_results as jobs
from tests.conftest import Valkey
from tests.e2e.cancellation.harness import Harness, PoolWorker, Token, harness_of
from tests.support import Server, eventually, running


@pytest.fixture
async def here(
    sending_process: None, server: Server, valkey: Valkey, tmp_path: Path, token: Token
) -> AsyncIterator[Harness]:
    app = "tests.stored_results"
    with running(PoolWorker(tmp_path, valkey.url, "prefork", app=app, concurrency=1)) as worker:
        async with harness_of(worker.ready(), server, valkey.url, tmp_path, token) as harness:
            yield harness


DELAYED = "job {}: its run has stored its outcome; terminating it in 5 s if it goes on"


def publish(here: Harness, job_id: str) -> None:
    Path(jobs.may_publish(here.notes[job_id])).touch()


async def process_of(here: Harness, job_id: str) -> int:
    """Wait until the result of a run is stored, and return the id of its process."""

    def stored() -> list[str]:
        return [step for step in here.steps(job_id) if step.startswith("stored")]

    [step] = await eventually(stored, "the stored result")
    return int(step.split()[1])


async def wait_success(here: Harness, job_id: str) -> None:
    end = await here.alice.transcript.end(job_id)
    assert (end.get("result"), end.get("error")) == ("done", None)
    await here.wait_state(job_id, "SUCCESS")
    assert len(here.alice.transcript.of(job_id, "job_error", "job_complete")) == 1


async def test_a_run_that_has_stored_its_result_is_not_terminated(here: Harness) -> None:
    job_id = await here.begun(here.send(jobs.returns_with_a_short_grace))
    pid = await process_of(here, job_id)
    assert here.cancel(job_id).outcome == "requested"
    await eventually(lambda: DELAYED.format(job_id) in here.worker.log, "the decision")
    publish(here, job_id)
    await wait_success(here, job_id)
    assert here.steps(job_id) == ["began", f"stored {pid}"]


async def test_a_run_that_has_stored_its_failure_is_not_terminated(here: Harness) -> None:
    job_id = await here.begun(here.send(jobs.fails_with_a_short_grace))
    pid = await process_of(here, job_id)
    assert here.cancel(job_id).outcome == "requested"
    await eventually(lambda: DELAYED.format(job_id) in here.worker.log, "the decision")
    publish(here, job_id)
    await here.wait_outcome(job_id, "FAILURE", error="LookupError", reason="failure")
    assert here.steps(job_id) == ["began", "errback LookupError", f"stored {pid}"]


def revoke(here: Harness, job_id: str, pid: int) -> None:
    url = here.worker.env["CELERY_BROKER_URL"]
    with Celery(broker=url, set_as_current=False) as app:
        app.control.revoke(job_id, terminate=True, destination=[f"{here.worker.name}@test"])


def kill(here: Harness, job_id: str, pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


STOPS: dict[str, tuple[Any, Any]] = {
    "revoked": (jobs.returns, revoke),
    "killed": (jobs.returns, kill),
    "time limit": (jobs.returns_within_its_limit, lambda *_: None),
}


@pytest.mark.parametrize("stop", STOPS)
async def test_a_run_that_is_stopped_after_it_has_stored_its_result_succeeds(
    here: Harness, stop: str
) -> None:
    task, stops = STOPS[stop]
    job_id = await here.begun(here.send(task))
    pid = await process_of(here, job_id)
    stops(here, job_id, pid)
    await eventually(lambda: not Path(f"/proc/{pid}").exists(), "the end of the process")
    publish(here, job_id)
    await wait_success(here, job_id)
