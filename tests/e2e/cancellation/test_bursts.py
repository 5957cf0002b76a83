"""Many requests at once."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from kombu.connection import Connection

from jobcast.publishing.notice_board import SLOTS
from tests import cancelled_jobs as jobs
from tests.conftest import Valkey
from tests.e2e.cancellation.harness import POOLS, Harness, Token, Workers, harness_of
from tests.support import Server, Worker, eventually, new_id, running

#: The requests at once, by the place of the messages. The worker has to handle its own messages.
BURSTS = {"in the broker": 1000, "in the worker": SLOTS + 50}
BURST = 2000  # jobs that wait in the broker
#: Log lines of a worker that cannot mark jobs.
FAILED = re.compile(r"could not store in the result backend that \d+ cancelled .* retrying")
DROPPED = re.compile(r"that (\d+) cancelled jobs are revoked, because the worker ends")
#: A run then learns of nothing by the renewal of its lease.
LONG_LEASE = {"JOBCAST_LEASE": "3600"}


def send_scheduled(here: Harness, count: int) -> list[str]:
    """Send jobs that do not begin during the test. Return their ids."""
    return [here.send(jobs.runs, countdown=3600).id for _ in range(count)]


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
        # The worker has handled all requests.
        await here.wait_states(others, "REVOKED")
    await eventually(lambda: "noticed" in here.steps(job_id), "the end of the run")
    await here.wait_cancelled(job_id)
    assert jobs.steps(notes) == []


@pytest.mark.parametrize("pool", POOLS)
async def test_scheduled_jobs_that_are_cancelled_at_once_end_once(
    workers: Workers, server: Server, valkey: Valkey, tmp_path: Path, token: Token, pool: str
) -> None:
    worker = workers.create(pool).ready()
    async with harness_of(worker, server, valkey.url, tmp_path, token) as here:
        scheduled = await asyncio.to_thread(send_scheduled, here, 300)
        await here.wait_received(scheduled[-1])
        assert await asyncio.to_thread(cancel_all, here, scheduled) == {"cancelled"}
        await here.wait_states(scheduled, "REVOKED")
        await here.settle()
        for job_id in scheduled:
            await here.wait_steps(job_id, ["errback TaskRevokedError"])
        worker.kill()
        await worker.restart()
        await here.settle()
        for job_id in scheduled:
            assert here.steps(job_id) == ["errback TaskRevokedError"]
            assert worker.log.count(f"[{job_id}] received") == 1  # it was acknowledged
    worker.kill()


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """A result backend that can be away while the broker and the store are there."""
    with running(Valkey(tmp_path_factory.mktemp("backend"))) as backend:
        yield backend.ready()


@contextmanager
def silent(backend: Valkey) -> Iterator[None]:
    """Let the backend accept connections, but answer nothing."""
    os.kill(backend.popen.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(backend.popen.pid, signal.SIGCONT)


@contextmanager
def gone(backend: Valkey) -> Iterator[None]:
    backend.kill()
    try:
        yield
    finally:
        backend.start()
        backend.ready()


@pytest.fixture
async def waiting(
    request: pytest.FixtureRequest, workers: Workers, server: Server, valkey: Valkey,
    backend: Valkey, tmp_path: Path, token: Token,
) -> AsyncIterator[tuple[Harness, list[str]]]:  # fmt: skip
    """A worker of a pool with a result backend of its own, and jobs that wait in the broker."""
    worker = workers.create(
        request.param, concurrency=1, env={"CELERY_RESULT_BACKEND": backend.url}
    ).ready()
    queue, notes = f"unread-{worker.name}", str(tmp_path / "others")
    job_ids = await asyncio.to_thread(send_many, valkey.url, queue, notes, 200)
    async with harness_of(worker, server, valkey.url, tmp_path, token) as harness:
        await wait_listening(harness, lambda: send_many(valkey.url, queue, notes, 1))
        yield harness, job_ids
    worker.kill()


async def wait_listening(here: Harness, send: Callable[[], list[str]]) -> None:
    """Wait until the worker learns of requests, which may be a moment after it is ready."""
    cancelled: list[str] = []

    def is_listening() -> bool:
        cancelled.extend(send())
        here.cancel(cancelled[-1])
        return "REVOKED" in here.states(cancelled)

    await eventually(is_listening, f"requests in {here.worker.name}")


async def cancel_while_away(here: Harness, job_ids: list[str]) -> None:
    """Cancel jobs whose result backend is away. The loop of the worker answers."""
    assert await asyncio.to_thread(cancel_all, here, job_ids) == {"cancelled"}
    for _ in range(2):  # an answer may come before the loop handles the requests
        assert await asyncio.to_thread(here.ping)


@pytest.mark.parametrize("waiting", POOLS, indirect=True)
async def test_a_worker_answers_while_its_result_backend_does_not(
    waiting: tuple[Harness, list[str]], backend: Valkey
) -> None:
    here, job_ids = waiting
    with silent(backend):
        await cancel_while_away(here, job_ids)
    await here.wait_states(job_ids, "REVOKED")


@pytest.mark.parametrize("waiting", ["prefork"], indirect=True)
async def test_an_outage_of_the_result_backend_loses_no_mark_and_is_logged_once(
    waiting: tuple[Harness, list[str]], backend: Valkey
) -> None:
    here, job_ids = waiting
    with gone(backend):
        await cancel_while_away(here, job_ids)
        await eventually(lambda: FAILED.search(here.worker.log), "a failed attempt")
    await here.wait_states(job_ids, "REVOKED")
    assert len(FAILED.findall(here.worker.log)) == 1


async def end_while_away(
    here: Harness, job_ids: list[str], backend: Valkey, how: signal.Signals = signal.SIGTERM
) -> None:
    """Stop a worker that cannot mark jobs. It ends with one warning."""
    with silent(backend):
        await cancel_while_away(here, job_ids)
        here.worker.popen.send_signal(how)
        code = await here.worker.wait_exit()
    assert code == 0 or how == signal.SIGQUIT
    [dropped] = DROPPED.findall(here.worker.log)
    assert int(dropped) > 0


@pytest.mark.parametrize("waiting", ["threads", "gevent"], indirect=True)
async def test_a_worker_ends_without_its_result_backend(
    waiting: tuple[Harness, list[str]], backend: Valkey
) -> None:
    await end_while_away(*waiting, backend)


@pytest.mark.parametrize("waiting", ["prefork", "gevent"], indirect=True)
async def test_a_cold_shutdown_warns_of_the_marks_that_it_drops(
    waiting: tuple[Harness, list[str]], backend: Valkey
) -> None:
    await end_while_away(*waiting, backend, signal.SIGQUIT)


@pytest.mark.parametrize("waiting", ["prefork"], indirect=True)
async def test_a_worker_that_receives_jobs_whose_marks_were_dropped_revokes_them(
    waiting: tuple[Harness, list[str]], backend: Valkey, tmp_path: Path
) -> None:
    here, job_ids = waiting
    await end_while_away(here, job_ids, backend)
    assert here.states(job_ids) == {"PENDING"}
    await here.worker.restart()
    here.consume(f"unread-{here.queue}")
    await here.wait_states(job_ids, "REVOKED")
    assert jobs.steps(tmp_path / "others") == []


async def test_two_workers_mark_a_burst_while_their_pools_fork(
    workers: Workers, server: Server, valkey: Valkey, tmp_path: Path, token: Token
) -> None:
    """A lock of the result backend that the marking thread holds would deadlock a new child."""
    pair = [workers.create("prefork", "--max-tasks-per-child=1") for _ in range(2)]
    for worker in pair:
        worker.ready()
    queue, notes = new_id("unread"), str(tmp_path / "others")
    burst = await asyncio.to_thread(send_many, valkey.url, queue, notes, BURST)
    async with harness_of(pair[0], server, valkey.url, tmp_path, token) as here:
        await wait_listening(here, lambda: send_many(valkey.url, queue, notes, 1))
        cancelling = asyncio.create_task(asyncio.to_thread(cancel_all, here, burst))
        while not cancelling.done():
            await here.settle()
        assert await cancelling == {"cancelled"}
        await here.wait_states(burst, "REVOKED")
        await here.settle()
    assert jobs.steps(notes) == []
    for worker in pair:
        worker.kill()
