"""The Python clients cancel jobs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from jobcast.client import CancelResult, JobClient, cancel_job
from jobcast.client.sync import JobClient as SyncJobClient
from jobcast.errors import CancelRefused, ConnectionRefused, InvalidJobId, JobFailed
from jobcast.events import JobError, JobStatus
from tests.conftest import Valkey
from tests.support import Server, new_id, running
from tests.support.http_server import Token
from tests.support.owner import Owner

Cancel = Callable[..., Awaitable[CancelResult]]
OpenClient = Callable[[str, str], Any]


@asynccontextmanager
async def async_client(url: str, token: str) -> AsyncIterator[Cancel]:
    async with JobClient(url, token) as client:
        yield client.cancel


@asynccontextmanager
async def sync_client(url: str, token: str) -> AsyncIterator[Cancel]:
    with SyncJobClient(url, token) as client:

        async def cancel(*args: Any, **kwargs: Any) -> CancelResult:
            return await asyncio.to_thread(client.cancel, *args, **kwargs)

        yield cancel


@pytest.fixture(params=[async_client, sync_client], ids=["async", "sync"])
def open_client(request: pytest.FixtureRequest) -> OpenClient:
    client: OpenClient = request.param
    return client


def state_of(server: Server, token: str, job_id: str) -> Any:
    with SyncJobClient(server.url, token) as client:
        return client.state(job_id)


async def test_answer_tells_what_the_request_led_to(
    open_client: OpenClient, server: Server, owner: Owner, token: Token
) -> None:
    waiting, running_job = new_id(), owner.start(worker="w", terminates=True)
    owner.publish(JobStatus(job_id=waiting, status="queued"))
    mine = token(owner.name)
    async with open_client(server.url, mine) as cancel:
        assert await cancel(waiting, message="wrong file") == CancelResult(outcome="cancelled")
        assert await cancel(waiting) == CancelResult(outcome="already_ended")
        requested = CancelResult(outcome="requested", terminates=True)
        assert await cancel(running_job, message="too slow") == requested
        assert await cancel(running_job) == requested
    state = state_of(server, mine, waiting)
    assert (state.status, state.has_ended) == ("cancelled", True)
    assert state.error["by"] == owner.name
    with pytest.raises(JobFailed, match="wrong file") as failed:
        state.outcome()
    assert failed.value.reason == "cancelled"
    state = state_of(server, mine, running_job)
    assert (state.status, state.terminates) == ("cancelling", True)
    assert (state.cancellation["by"], state.cancellation["message"]) == (owner.name, "too slow")


async def test_refusals_name_the_job_and_the_code(
    open_client: OpenClient, server: Server, owner: Owner, token: Token
) -> None:
    fixed = owner.start(cancellable=False)
    async with open_client(server.url, token(owner.name)) as cancel:
        for job_id, code in ((new_id(), "job_not_found"), (fixed, "not_cancellable")):
            with pytest.raises(CancelRefused) as refused:
                await cancel(job_id)
            assert (refused.value.job_id, refused.value.code) == (job_id, code)
        with pytest.raises(InvalidJobId):
            await cancel("a b")
        with pytest.raises(ValueError, match="at most 1000 characters, and it has 1001"):
            await cancel(fixed, message="x" * 1001)


async def test_job_id_with_a_slash_is_cancelled(
    open_client: OpenClient, server: Server, owner: Owner, token: Token
) -> None:
    job_id = owner.start(f"a/b~{new_id()}")
    async with open_client(server.url, token(owner.name)) as cancel:
        assert (await cancel(job_id)).outcome == "requested"


async def test_request_is_repeated_after_a_restart_of_the_server(
    open_client: OpenClient, valkey: Valkey, owner: Owner, token: Token, tmp_path: Path
) -> None:
    first = owner.start()
    second = owner.start()
    with running(Server(tmp_path / "log", valkey.url)) as server:
        server.ready()
        async with open_client(server.url, token(owner.name)) as cancel:
            await cancel(first)
            server.kill()
            request = asyncio.ensure_future(cancel(second))
            await asyncio.sleep(0)  # the request begins without a server
            with running(Server(tmp_path / "log2", valkey.url, port=server.port)) as again:
                again.ready()
                assert (await request).outcome == "requested"


async def test_request_without_an_answer_ends_after_its_timeout(
    open_client: OpenClient,
    valkey: Valkey,
    owner: Owner,
    token: Token,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job_id = owner.start()
    with running(Server(tmp_path / "log", valkey.url)) as server:
        server.ready()
        async with open_client(server.url, token(owner.name)) as cancel:
            await cancel(owner.start())
            server.kill()
            for module in (cancel_job, "jobcast.client.job_client", "jobcast.client.sync"):
                name = module if isinstance(module, str) else module.__name__
                monkeypatch.setattr(f"{name}.CANCEL_TIMEOUT", 0.5)
            with pytest.raises(CancelRefused, match=f"cancel job {job_id} within 0.5 s") as refused:
                await cancel(job_id)
            assert refused.value.code in ("unavailable", "unreachable")


async def test_closed_client_refuses_a_request(server: Server, token: Token) -> None:
    async with JobClient(server.url, token()) as client:
        pass
    with pytest.raises(ConnectionRefused) as refused:
        await client.cancel("a")
    assert refused.value.code == "closed"


async def test_follower_sees_who_cancels_the_job(
    server: Server, owner: Owner, token: Token
) -> None:
    job_id = owner.start()
    events = []
    async with JobClient(server.url, token(owner.name)) as client:
        async for event in client.follow(job_id):
            events.append(event)
            if isinstance(event, JobStatus) and event.status == "started":
                await client.cancel(job_id, message="wrong file")
            if isinstance(event, JobStatus) and event.status == "cancelling":
                assert client.status(job_id) == "cancelling"
                owner.publish(
                    JobError(job_id=job_id, error="JobCancelled", message="", reason="cancelled")
                )
    asked, end = events[-2:]
    assert isinstance(asked, JobStatus)
    assert isinstance(end, JobError)
    assert end.state == "cancelled"
    assert (asked.by, asked.message) == (owner.name, "wrong file")
