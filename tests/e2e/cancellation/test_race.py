"""A thousand requests that race with the completion of their jobs."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from celery import Celery
from kombu.connection import Connection

from jobcast.events import TERMINAL, TERMINAL_STATES
from jobcast.transports import open_manager, open_publisher
from jobcast.transports.cancellation import Cancellation
from tests import cancelled_jobs as jobs
from tests.conftest import Valkey
from tests.e2e.cancellation.harness import Workers
from tests.support import Worker, eventually

JOBS = 1000
DELAYS = 0.0, 0.05  # seconds from sending a job to the request: about as long as it takes
STATES = {"complete": "SUCCESS", "cancelled": "REVOKED"}


@pytest.fixture(params=["prefork", "threads"])
def worker(request: pytest.FixtureRequest, workers: Workers) -> Iterator[Worker]:
    arguments = f"--pool={request.param}", "--concurrency=2", "--loglevel=warning"
    worker = workers.create(*arguments, "--prefetch-multiplier=4")
    yield worker
    worker.kill()


def send_and_cancel(url: str, queue: str) -> tuple[list[str], Counter[str]]:
    """Send jobs, and cancel each after a random time. Return their ids and the outcomes."""
    delays = random.Random(20)
    transport: Any = open_publisher(url)
    sent: list[str] = []
    answers: list[Future[str]] = []

    def cancel(job_id: str, at: float) -> str:
        time.sleep(max(0.0, at - time.monotonic()))
        answer = transport.cancel(Cancellation(job_id=job_id))
        return str(answer.outcome)

    # A publisher is not thread-safe: one thread cancels.
    with ThreadPoolExecutor(1) as pool, Connection(url) as connection:
        for _ in range(JOBS):
            job_id = jobs.is_quick.apply_async(queue=queue, connection=connection).id
            sent.append(job_id)
            at = time.monotonic() + delays.uniform(*DELAYS)
            answers.append(pool.submit(cancel, job_id, at))
        outcomes = Counter(answer.result() for answer in answers)
    transport.close()
    return sent, outcomes


async def test_record_and_result_agree_whoever_wins(worker: Worker, valkey: Valkey) -> None:
    sent, outcomes = await asyncio.to_thread(send_and_cancel, valkey.url, worker.name)
    assert outcomes.total() == JOBS
    assert outcomes.keys() <= {"cancelled", "requested", "already_ended"}
    source = open_manager(valkey.url).source
    with Celery(backend=valkey.url, set_as_current=False) as app:
        for job_id in sent:
            await eventually(lambda job_id=job_id: app.AsyncResult(job_id).ready(), job_id)
            snapshot = await source.snapshot(job_id)
            while snapshot.state not in TERMINAL_STATES:  # the result is stored first
                await asyncio.sleep(0.01)
                snapshot = await source.snapshot(job_id)
            state = app.AsyncResult(job_id).state
            assert state == STATES[snapshot.state], (job_id, outcomes)
            endings = [event for event in snapshot.events if event.kind == TERMINAL]
            assert endings == [*snapshot.events][-1:]
    await source.aclose()
    print(outcomes, Counter())
