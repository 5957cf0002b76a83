"""Many requests at once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from kombu.connection import Connection

from jobcast.publishing.notice_board import SLOTS
from tests import cancelled_jobs as jobs
from tests.conftest import Valkey
from tests.e2e.cancellation.harness import Harness, Token, Workers, harness_of
from tests.support import Server, Worker, eventually, new_id

#: The requests at once, by the place of the messages. The worker has to handle its own messages.
BURSTS = {"in the broker": 1000, "in the worker": SLOTS + 50}
#: A run then learns of nothing by the renewal of its lease.
LONG_LEASE = {"JOBCAST_LEASE": "3600"}


def cancel_all(here: Harness, job_ids: list[str]) -> set[str]:
    """Return the outcomes."""
    return {here.cancel(job_id).outcome for job_id in job_ids}


@pytest.fixture
async def here(
    workers: Workers, server: Server, valkey: Valkey, tmp_path: Path, token: Token
) -> AsyncIterator[Harness]:
    worker = workers.create(
        "prefork", "--prefetch-multiplier=0", concurrency=1, env=LONG_LEASE
    ).ready()
    async with harness_of(worker, server, valkey.url, tmp_path, token) as harness:
        yield harness
    worker.kill()


@contextmanager
def paused_children(worker: Worker) -> Iterator[None]:
    """Pause the processes of a pool, which then do not read the notices of the main process."""
    pid = worker.popen.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for child in children:
        os.kill(int(child), signal.SIGSTOP)
    try:
        yield
    finally:
        for child in children:
            os.kill(int(child), signal.SIGCONT)


def send_many(url: str, queue: str, notes: str, count: int) -> list[str]:
    with Connection(url) as connection:
        options = {"queue": queue, "connection": connection}
        return [jobs.runs.apply_async((notes,), **options).id for _ in range(count)]


@pytest.mark.parametrize("where", BURSTS)
async def test_a_silent_run_learns_of_its_request_before_many_others(
    here: Harness, valkey: Valkey, where: str
) -> None:
    job_id = await here.begun(here.send(jobs.is_silent))
    queue = new_id("unread") if where == "in the broker" else here.queue
    notes = str(here.folder / "others")
    others = await asyncio.to_thread(send_many, valkey.url, queue, notes, BURSTS[where])
    assert len(others) > SLOTS
    with paused_children(here.worker):
        assert here.cancel(job_id).outcome == "requested"
        # In a thread, so that the client in the loop answers the server's pings meanwhile.
        outcomes = await asyncio.to_thread(cancel_all, here, others)
        assert outcomes == {"cancelled"}
        # The worker handles the requests in their order.
        await here.wait_state(others[-1], "REVOKED")
    await eventually(lambda: "noticed" in here.steps(job_id), "the end of the run")
    await here.wait_cancelled(job_id)
    assert jobs.steps(notes) == []
