"""The asyncio client with the answers of a loaded server, and with invalid ones."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from itertools import pairwise
from typing import Any

import pytest

from jobcast.client import JobClient
from jobcast.errors import JoinRefused
from jobcast.events import JobEvent
from tests.support import TIMEOUT, eventually, next_event
from tests.support.scripted_server import ScriptedServer, scripted_server

RETRY_AFTER = 0.4  # seconds
RATE_LIMITED = {
    "ok": False, "code": "rate_limited", "message": "too many requests", "retry_after": RETRY_AFTER,
}  # fmt: skip
LEFT = {"job_id": "a", "code": "job_not_found", "message": "there is no such job"}


def refuse_first(server: ScriptedServer, name: str, times: int = 2) -> None:
    """Make the server refuse the first requests of a name as rate-limited."""

    def answer(request: str, _payload: dict[str, Any]) -> Any:
        limited = request == name and len(server.requests_named(name)) <= times
        return RATE_LIMITED if limited else None

    server.answer = answer


def pauses_between(server: ScriptedServer, name: str) -> list[float]:
    arrivals = server.arrivals(name)
    return [later - earlier for earlier, later in pairwise(arrivals)]


async def first_event(client: JobClient, job_id: str) -> JobEvent:
    async with aclosing(client.follow(job_id)) as events, asyncio.timeout(TIMEOUT):
        return await next_event(events)


async def test_rate_limited_join_is_retried_after_the_pause() -> None:
    async with scripted_server() as server:
        refuse_first(server, "join_job")
        async with JobClient(server.url, "token") as client:
            assert (await first_event(client, "a")).seq == 1
    assert len(server.requests_named("join_job")) == 3
    assert min(pauses_between(server, "join_job")) >= RETRY_AFTER


async def test_rate_limited_leave_is_retried_after_the_pause() -> None:
    async with scripted_server() as server:
        refuse_first(server, "leave_job")
        async with JobClient(server.url, "token") as client:
            await first_event(client, "a")
            await eventually(lambda: len(server.requests_named("leave_job")) == 3, "accepted leave")
    assert min(pauses_between(server, "leave_job")) >= RETRY_AFTER


async def test_rate_limited_refresh_is_retried_after_the_pause() -> None:
    async with scripted_server() as server:
        refuse_first(server, "refresh_token")
        async with JobClient(server.url, lambda: "token") as client:
            await first_event(client, "a")
            await server.emit("token_expiring", {"expires_at": "2026-01-15T09:30:00Z"})
            await eventually(
                lambda: len(server.requests_named("refresh_token")) == 3, "accepted refresh"
            )
    assert min(pauses_between(server, "refresh_token")) >= RETRY_AFTER


async def test_refused_leave_is_not_retried_once_the_job_is_followed_again() -> None:
    async with scripted_server() as server:
        refuse_first(server, "leave_job", times=1)
        async with JobClient(server.url, "token") as client:
            await first_event(client, "a")
            await eventually(lambda: server.requests_named("leave_job"), "refused leave")
            async with aclosing(client.follow("a")) as events, asyncio.timeout(TIMEOUT):
                await anext(events)
                assert len(server.requests_named("leave_job")) == 1


async def test_left_event_ends_all_followers_of_the_job() -> None:
    async with scripted_server() as server, JobClient(server.url, "token") as client:
        events, other = client.follow("a"), client.follow("b")
        async with asyncio.timeout(TIMEOUT):
            assert (await anext(events)).job_id == "a"
            assert (await anext(other)).job_id == "b"
            result = asyncio.create_task(client.result("a"))
            await asyncio.sleep(0)
            await server.emit("left", LEFT)
            for end in (anext(events), result):
                with pytest.raises(JoinRefused, match="no such job") as caught:
                    await end
                assert caught.value.code == "job_not_found"
            assert client.status("a") is None
            await server.emit_log("b", 2)
            assert (await next_event(other)).seq == 2
            # The server dropped the join: a later follower joins again, without a leave before.
            await first_event(client, "a")
        assert [payload["job_id"] for payload in server.requests_named("join_job")] == [
            "a",
            "b",
            "a",
        ]


@pytest.mark.parametrize("code", ["internal_error", "unavailable"])
async def test_left_event_for_a_temporary_reason_is_followed_by_a_rejoin(code: str) -> None:
    async with scripted_server() as server, JobClient(server.url, "token") as client:
        events = client.follow("a")
        async with asyncio.timeout(TIMEOUT):
            assert (await next_event(events)).seq == 1
            await server.emit("left", LEFT | {"code": code})
            await eventually(lambda: len(server.requests_named("join_job")) == 2, "another join")
            await server.emit_log("a", 2)
            assert (await next_event(events)).seq == 2
        assert server.requests_named("join_job")[1]["after"] == {"epoch": "1", "seq": 1}


async def test_left_event_of_a_former_join_does_not_end_the_newer_one() -> None:
    async with scripted_server() as server, JobClient(server.url, "token") as client:
        await first_event(client, "a")
        await eventually(lambda: server.requests_named("leave_job"), "leave")
        release = asyncio.Event()

        async def join_late() -> dict[str, Any]:
            await server.emit("left", LEFT)
            await release.wait()
            await server.emit_joined("a")
            await server.emit_log("a", 1, "of the newer join")
            joined = {"job_id": "a", "epoch": "1", "seq": 1, "status": "started"}
            return {"ok": True, **joined, "recovered": False}

        server.handle_join = join_late
        event = asyncio.create_task(first_event(client, "a"))
        await eventually(lambda: len(server.requests_named("join_job")) == 2, "second join")
        release.set()
        assert (await event).seq == 1


async def test_left_event_that_violates_the_protocol_is_logged_and_ignored(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with scripted_server() as server, JobClient(server.url, "token") as client:
        events = client.follow("a")
        async with asyncio.timeout(TIMEOUT):
            await anext(events)
            await server.emit("left", {"job_id": "a", "code": 7})
            await server.emit("left", LEFT | {"job_id": "not an id"})
            await server.emit("left", LEFT | {"job_id": "unknown"})
            await server.emit_log("a", 2)
            assert (await next_event(events)).seq == 2
    assert caplog.text.count("ignored an event that violates the protocol: left") == 2


@pytest.mark.parametrize("namespace", ["/jobs", "/deep/er"])
async def test_client_connects_to_another_namespace(namespace: str) -> None:
    async with (
        scripted_server(namespace) as server,
        JobClient(server.url, "token", namespace=namespace) as client,
    ):
        assert (await first_event(client, "a")).seq == 1
