"""Jobs are cancelled with RabbitMQ as the broker, and as the transport or with Redis as that."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
from celery import Celery
from celery.result import AsyncResult
from celery.utils import uuid
from kombu.connection import Connection

from jobcast.celery.headers import OWNER_HEADER
from jobcast.publishing import runtime
from jobcast.transports.cancellation import CancelAnswer
from tests import cancelled_jobs as jobs
from tests.conftest import Valkey
from tests.e2e.cancellation.harness import MESSAGE, Harness, PoolWorker, Token
from tests.e2e.services import join_until_accepted
from tests.support import (
    COUNTDOWN,
    TIMEOUT,
    Server,
    eventually,
    following,
    new_id,
    running,
)
from tests.support.rabbitmq import RabbitMQ
from tests.support.sse import http_client

RACING_JOBS = 100
FIRST_DELAY = 0.02  # seconds from the sending of a job to the request
ADAPTATION = 1.3  # factor of the delay, which approaches the moment at which the jobs begin

prefork_only = pytest.mark.parametrize("pool", ["prefork"], indirect=True)


@dataclass
class Deployment:
    """A server, and the URLs of its transport, of Celery's broker and of the result backend."""

    server: Server
    transport: str
    broker: str
    results: str
    folder: Path

    def worker(self, pool: str) -> PoolWorker:
        """Start a worker."""
        env = {"CELERY_RESULT_BACKEND": self.results}
        return PoolWorker(self.folder, self.transport, pool, broker=self.broker, env=env)


@pytest.fixture(scope="module", params=["rabbitmq", "redis"])
def deployment(
    request: pytest.FixtureRequest, rabbitmq: RabbitMQ, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    """Run a server with one of the transports, and configure this process as a sender."""
    folder = tmp_path_factory.mktemp("deployment")
    with running(Valkey(folder / "valkey")) as valkey, pytest.MonkeyPatch.context() as patch:
        transport = rabbitmq.url if request.param == "rabbitmq" else valkey.url
        valkey.ready()
        with running(Server(folder / "server.log", transport)) as server:
            patch.setenv("JOBCAST_URL", transport)
            runtime.close()
            yield Deployment(server.ready(), transport, rabbitmq.url, valkey.url, folder)
            runtime.close()


@pytest.fixture(scope="module", params=["prefork", "threads"])
def pool(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def worker(deployment: Deployment, pool: str) -> Iterator[PoolWorker]:
    """The only worker of the deployment."""
    with running(deployment.worker(pool)) as worker:
        yield worker.ready()


class BrokerHarness(Harness):
    """A harness whose broker is RabbitMQ, and which cancels jobs through the server."""

    deployment: Deployment
    pool: str
    token: str

    async def followed(self, result: AsyncResult[Any]) -> str:
        await join_until_accepted(self.alice, result.id)
        return str(result.id)

    def cancel(self, job_id: str) -> CancelAnswer:
        return cancel(self.deployment.server, self.token, job_id)

    def state(self, job_id: str) -> str:
        with Celery(backend=self.deployment.results, set_as_current=False) as app:
            state = str(app.backend.get_state(job_id))
            app.backend.client.close()
            return state

    async def wait_listening(self) -> None:
        """Wait until the worker learns of requests: a silent run has no other way."""
        job_id = await self.begun(self.send(jobs.is_silent))
        self.cancel(job_id)
        await self.alice.transcript.end(job_id)

    async def restart(self) -> None:
        """Start the killed worker, which receives the messages of the killed one again."""
        self.worker.start()
        await asyncio.to_thread(self.worker.ready)


def cancel(server: Server, token: str, job_id: str) -> CancelAnswer:
    request = urllib.request.Request(
        f"{server.url}/jobs/{job_id}/cancel", json.dumps({"message": MESSAGE}).encode(),
        {"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )  # fmt: skip
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
        answer = json.load(response)
    return CancelAnswer(outcome=answer["outcome"], terminates=answer.get("terminates", False))


@asynccontextmanager
async def harness_of(
    deployment: Deployment, worker: PoolWorker, pool: str, folder: Path, token: Token
) -> AsyncIterator[BrokerHarness]:
    url = deployment.server.url
    async with following(url, token(jobs=["*"])) as alice, http_client(url, token()) as http:
        harness = BrokerHarness(worker, alice, http, folder, transport=None)
        harness.deployment, harness.pool, harness.token = deployment, pool, token()
        yield harness


@pytest.fixture
async def here(
    deployment: Deployment, worker: PoolWorker, pool: str, tmp_path: Path, token: Token
) -> AsyncIterator[BrokerHarness]:
    async with harness_of(deployment, worker, pool, tmp_path, token) as harness:
        yield harness


@pytest.fixture
async def alone(
    deployment: Deployment, pool: str, tmp_path: Path, token: Token
) -> AsyncIterator[BrokerHarness]:
    """A harness with a worker of its own, which the test may kill."""
    with running(deployment.worker(pool)) as worker:
        async with harness_of(deployment, worker.ready(), pool, tmp_path, token) as harness:
            yield harness
            harness.worker.kill()


async def test_a_talking_run_ends_at_its_next_event(here: BrokerHarness) -> None:
    job_id = await here.begun(here.send(jobs.talks))
    answer = here.cancel(job_id)
    assert (answer.outcome, answer.terminates) == ("requested", here.pool == "prefork")
    await here.wait_cancelled(job_id)
    assert here.steps(job_id) == [
        "began", "cancelled by alice: no longer needed", "errback TaskRevokedError",
    ]  # fmt: skip


@pytest.mark.parametrize("task", ["is_silent", "is_silent_late"])
async def test_a_silent_run_ends(here: BrokerHarness, task: str) -> None:
    job_id = await here.begun(here.send(getattr(jobs, task)))
    answers = await asyncio.gather(*(asyncio.to_thread(here.cancel, job_id) for _ in range(2)))
    assert {answer.outcome for answer in answers} <= {"requested", "already_ended"}
    assert "requested" in {answer.outcome for answer in answers}
    await here.wait_cancelled(job_id)
    assert here.cancel(job_id).outcome == "already_ended"
    assert here.steps(job_id) == ["began", "noticed", "errback TaskRevokedError"]


async def test_a_scheduled_task_is_discarded_at_once(here: BrokerHarness) -> None:
    job_id = await here.followed(here.send(jobs.runs, countdown=600))
    await here.settle()
    answers = await asyncio.gather(*(asyncio.to_thread(here.cancel, job_id) for _ in range(2)))
    assert {answer.outcome for answer in answers} == {"cancelled", "already_ended"}
    await here.wait_cancelled(job_id)
    assert here.steps(job_id) == ["errback TaskRevokedError"]


async def test_a_retry_that_waits_is_discarded_at_once(here: BrokerHarness) -> None:
    job_id = await here.begun(here.send(jobs.waits_for_its_retry))
    await here.wait_state(job_id, "RETRY")
    await here.settle()
    assert here.cancel(job_id).outcome == "cancelled"
    await here.wait_cancelled(job_id)
    assert here.steps(job_id) == ["began", "errback TaskRevokedError"]


async def test_a_message_that_no_worker_has_received_is_discarded_later(
    here: BrokerHarness,
) -> None:
    await here.wait_listening()
    queue = new_id("queue")
    job_id = await here.followed(here.send(jobs.runs, queue=queue))
    assert here.cancel(job_id).outcome == "cancelled"
    await here.wait_cancelled(job_id)
    here.consume(queue)
    await eventually(lambda: here.steps(job_id), "errback")
    await here.wait_cancelled(job_id)
    assert here.steps(job_id) == ["errback TaskRevokedError"]


async def test_a_job_that_is_sent_again_runs(here: BrokerHarness) -> None:
    job_id = await here.followed(here.send(jobs.runs, countdown=600))
    await here.settle()
    assert here.cancel(job_id).outcome == "cancelled"
    await here.wait_cancelled(job_id)
    here.send(jobs.runs, task_id=job_id)
    await here.wait_state(job_id, "SUCCESS")
    await eventually(lambda: here.steps(job_id) == ["ran"], "the second run")
    # The result is in Celery's backend before the ending is published.
    await eventually(lambda: here.alice.transcript.of(job_id, "job_complete"), "the second ending")
    assert (await here.alice.join(job_id))["status"] == "complete"


async def test_a_worker_that_starts_later_does_not_run_the_job(alone: BrokerHarness) -> None:
    alone.worker.kill()
    sent = [
        alone.send(jobs.runs),
        alone.send(jobs.runs),
        alone.send(jobs.runs, countdown=COUNTDOWN),
        alone.send(jobs.runs, countdown=600),
    ]
    cancelled = [await alone.followed(result) for result in sent]
    for job_id in cancelled:
        assert alone.cancel(job_id).outcome == "cancelled"
    await alone.restart()
    for job_id in cancelled:
        await eventually(lambda: alone.steps(job_id), "errback")  # noqa: B023
        await alone.wait_cancelled(job_id)
        assert alone.steps(job_id) == ["errback TaskRevokedError"]


async def test_a_lost_run_is_not_repeated(alone: BrokerHarness) -> None:
    job_id = await alone.begun(alone.send(jobs.goes_on_late))
    assert alone.cancel(job_id).outcome == "requested"
    alone.worker.kill()
    await alone.restart()
    await alone.wait_cancelled(job_id)
    assert alone.steps(job_id) == ["began", "errback TaskRevokedError"]


@prefork_only
async def test_a_killed_child_s_run_is_not_repeated(here: BrokerHarness) -> None:
    job_id = await here.begun(here.send(jobs.is_killed_when_cancelled))
    assert here.cancel(job_id).outcome == "requested"
    await here.wait_cancelled(job_id)
    assert here.steps(job_id) == ["began", "killed", "errback TaskRevokedError"]


@pytest.mark.parametrize("kind", ["silent member", "scheduled member"])
async def test_a_chord_fails_whose_member_is_cancelled(here: BrokerHarness, kind: str) -> None:
    body, member, notes = await here.start_chord(kind)
    steps = {"silent member": {"began", "ran"}, "scheduled member": {"ran"}}
    await eventually(lambda: steps[kind] <= {*jobs.steps(notes)}, "members that run")
    await here.settle()
    here.cancel(member)
    await here.wait_cancelled(member)
    end = await here.alice.transcript.end(body)
    assert (end["error"], end["reason"]) == ("StepFailed", "failure")
    await here.wait_state(body, "FAILURE")
    assert "collected" not in jobs.steps(notes)


def cancel_when_found(here: BrokerHarness, job_id: str, delay: float) -> str:
    """Cancel a job, which may not be sent yet, after a delay. Return the outcome."""
    time.sleep(delay)
    while True:
        try:
            return here.cancel(job_id).outcome
        except HTTPError as exc:
            exc.close()
            if exc.code != 404:
                raise


def send_and_cancel(here: BrokerHarness) -> tuple[list[str], Counter[str]]:
    """Send jobs, and cancel each about when it begins. Return their ids and the outcomes."""
    delay = FIRST_DELAY
    sent = [uuid() for _ in range(RACING_JOBS)]
    outcomes: Counter[str] = Counter()
    with ThreadPoolExecutor(1) as canceller, Connection(here.deployment.broker) as connection:
        for job_id in sent:
            here.notes[job_id] = str(here.folder / new_id("notes"))
            cancelling = canceller.submit(cancel_when_found, here, job_id, delay)
            jobs.runs.apply_async(
                (here.notes[job_id],), task_id=job_id, queue=here.queue, connection=connection,
                headers={OWNER_HEADER: "alice"},
            )  # fmt: skip
            outcome = cancelling.result()
            outcomes[outcome] += 1
            delay = delay * ADAPTATION if outcome == "cancelled" else delay / ADAPTATION
    return sent, outcomes


async def test_record_and_result_agree_whoever_wins(here: BrokerHarness) -> None:
    sent, outcomes = await asyncio.to_thread(send_and_cancel, here)
    # Each side wins sometimes.
    assert {"cancelled", "already_ended"} <= outcomes.keys(), outcomes
    await here.settle()
    for job_id in sent:
        await join_until_accepted(here.alice, job_id)
        end = await here.alice.transcript.end(job_id)
        state = "REVOKED" if end.get("reason") == "cancelled" else "SUCCESS"
        assert here.state(job_id) == state, (job_id, end, outcomes)
        assert len(here.alice.transcript.of(job_id, "job_error", "job_complete")) == 1
        if state == "SUCCESS":
            assert here.steps(job_id) == ["ran"]
    # A job that had not begun does not run. An interrupted run may have added its line before.
    assert sum(here.steps(job_id) == [] for job_id in sent) >= outcomes["cancelled"]
