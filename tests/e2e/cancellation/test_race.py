"""Many requests that race with the completion of their jobs."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from typing import Any

from celery import Celery
from kombu.connection import Connection

from jobcast.events import TERMINAL, TERMINAL_STATES
from jobcast.transports import open_manager, open_publisher
from jobcast.transports.cancellation import Cancellation
from tests import cancelled_jobs as jobs
from tests.conftest import Valkey
from tests.e2e.cancellation.harness import PoolWorker
from tests.support import wait_for

JOBS = {"prefork": 1000, "threads": 1000, "solo": 200, "gevent": 200, "eventlet": 200}
AT_ONCE = 2
DELAY = 0.02  # seconds from one request to the next, at most, in the beginning
STEP = 1.05  # by which the delay grows or shrinks, so that each side wins about half of the races
STATES = {"complete": "SUCCESS", "cancelled": "REVOKED"}


def send_and_cancel(worker: PoolWorker, url: str) -> tuple[list[str], Counter[str]]:
    """Send jobs, and cancel each after a random time. Return their ids and the outcomes."""
    delays, longest = random.Random(20), DELAY
    transport: Any = open_publisher(url)
    sent: list[str] = []
    outcomes: Counter[str] = Counter()
    with Celery(backend=url, set_as_current=False) as app, Connection(url) as connection:
        batch: list[str] = []
        while len(sent) < JOBS[worker.pool]:
            before, batch = batch, [
                jobs.is_quick.apply_async(queue=worker.name, connection=connection).id
                for _ in range(AT_ONCE)
            ]  # fmt: skip
            for job_id in batch:
                time.sleep(delays.uniform(0, longest))
                outcome = transport.cancel(Cancellation(job_id=job_id)).outcome
                outcomes[outcome] += 1
                longest *= 1 / STEP if outcome == "already_ended" else STEP
            # The messages of this batch have the worker act on the requests of the one before.
            for job_id in before:
                wait_for(app.AsyncResult(job_id).ready, f"end of {job_id}")
            sent += batch
        for job_id in batch:
            wait_for(app.AsyncResult(job_id).ready, f"end of {job_id}")
        app.backend.client.close()
    transport.close()
    return sent, outcomes


async def test_record_and_result_agree_whoever_wins(worker: PoolWorker, valkey: Valkey) -> None:
    sent, outcomes = await asyncio.to_thread(send_and_cancel, worker, valkey.url)
    assert outcomes.total() == JOBS[worker.pool]
    # Each side wins sometimes.
    assert {"cancelled", "already_ended"} <= outcomes.keys(), outcomes
    source = open_manager(valkey.url).source
    with Celery(backend=valkey.url, set_as_current=False) as app:
        for job_id in sent:
            snapshot = await source.snapshot(job_id)
            while snapshot.state not in TERMINAL_STATES:  # the result is stored first
                await asyncio.sleep(0.01)
                snapshot = await source.snapshot(job_id)
            state = app.AsyncResult(job_id).state
            assert state == STATES[snapshot.state], (job_id, outcomes)
            endings = [event for event in snapshot.events if event.kind == TERMINAL]
            assert endings == [*snapshot.events][-1:]
        app.backend.client.close()
    await source.aclose()
