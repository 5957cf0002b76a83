"""Requests to cancel a job, over Socket.IO and over HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from jobcast.events import JobStatus
from jobcast.revocation import revoke
from jobcast.settings import Settings
from jobcast.testing.ends import until
from jobcast.transports import Origin, Outgoing, Run, open_publisher
from tests.conftest import Valkey
from tests.support import SECRET, Server, answers, eventually, following, new_id, running
from tests.support.http_server import Publish, Token, code_of, complete, serving, started
from tests.support.sse import http_client

Ask = Callable[..., Any]

SENT = Run("aa")
NOT_YOURS = "there is no such job, or it is not yours to cancel"


def queued(job_id: str, **fields: Any) -> JobStatus:
    return JobStatus(job_id=job_id, status="queued", **fields)


@pytest.fixture(params=["socketio", "http"])
def ask(request: pytest.FixtureRequest, server: Server, token: Token) -> Ask:
    """Cancel a job: ``await ask(job_id, message=..., claims={...})``; returns the answer."""

    async def over_socketio(
        job_id: str, claims: dict[str, Any] | None = None, **fields: Any
    ) -> dict[str, Any]:
        async with following(server.url, token(**claims or {})) as client:
            answer: dict[str, Any] = await client.request(
                "cancel_job", {"job_id": job_id, **fields}
            )
            return answer

    async def over_http(
        job_id: str, claims: dict[str, Any] | None = None, **fields: Any
    ) -> dict[str, Any]:
        async with http_client(server.url, token(**claims or {})) as client:
            response = await client.post(
                f"/jobs/{job_id}/cancel", content=json.dumps(fields) if fields else b""
            )
            answer: dict[str, Any] = response.json()
            if response.status_code == 200:
                return answer
            return {"ok": False, "code": answer["code"], "message": answer["detail"]}

    return over_socketio if request.param == "socketio" else over_http


async def state_of(client: httpx.AsyncClient, job_id: str) -> dict[str, Any]:
    state: dict[str, Any] = (await client.get(f"/jobs/{job_id}")).json()
    return state


async def last_seq(server: Server, token: Token, job_id: str) -> int:
    """Return the number of the job's latest event."""
    async with following(server.url, token()) as client:
        return int((await client.join(job_id))["seq"])


async def test_owner_cancels_a_job_that_has_not_started(
    client: httpx.AsyncClient, publish: Publish, ask: Ask, job_id: str, server: Server
) -> None:
    publish(queued(job_id))
    assert await ask(job_id, message="wrong file") == {
        "ok": True, "job_id": job_id, "outcome": "cancelled",
    }  # fmt: skip
    state = await state_of(client, job_id)
    assert state["status"] == "cancelled"
    assert state["error"] == {
        "error": "JobCancelled", "message": "wrong file", "reason": "cancelled", "by": "alice",
    }  # fmt: skip
    assert await ask(job_id) == {"ok": True, "job_id": job_id, "outcome": "already_ended"}
    await eventually(lambda: f"cancel {job_id}: cancelled: sub='alice'" in server.log, "log line")


async def test_running_job_is_asked_to_stop(
    client: httpx.AsyncClient, publish: Publish, ask: Ask, job_id: str
) -> None:
    other = new_id()
    publish(started(job_id), started(other, worker="w", terminates=True))
    asked = {"ok": True, "job_id": job_id, "outcome": "requested", "terminates": False}
    assert await ask(job_id, message="wrong file") == asked
    assert await ask(job_id) == asked
    state = await state_of(client, job_id)
    assert state["status"] == "cancelling"
    assert (state["cancellation"]["by"], state["cancellation"]["message"]) == (
        "alice",
        "wrong file",
    )
    assert await ask(other) == {**asked, "job_id": other, "terminates": True}
    publish(complete(job_id))
    state = await state_of(client, job_id)
    assert state["status"] == "complete"
    assert "cancellation" not in state


async def test_two_requests_at_once_end_a_waiting_job_once(
    client: httpx.AsyncClient, publish: Publish, ask: Ask, job_id: str, server: Server, token: Token
) -> None:
    publish(queued(job_id))
    answers = await asyncio.gather(ask(job_id, message="first"), ask(job_id, message="second"))
    outcomes = {answer["outcome"]: answer for answer in answers}
    assert outcomes == {
        outcome: {"ok": True, "job_id": job_id, "outcome": outcome}
        for outcome in ("cancelled", "already_ended")
    }
    winner = ("first", "second")[answers.index(outcomes["cancelled"])]
    assert (await state_of(client, job_id))["error"]["message"] == winner
    assert await last_seq(server, token, job_id) == 2


async def test_two_requests_at_once_ask_a_running_job_once(
    client: httpx.AsyncClient, publish: Publish, ask: Ask, job_id: str, server: Server, token: Token
) -> None:
    publish(started(job_id))
    asked = {"ok": True, "job_id": job_id, "outcome": "requested", "terminates": False}
    assert [*await asyncio.gather(ask(job_id), ask(job_id))] == [asked, asked]
    assert (await state_of(client, job_id))["status"] == "cancelling"
    assert await last_seq(server, token, job_id) == 2


async def test_job_that_cannot_be_cancelled_is_marked(
    client: httpx.AsyncClient, publish: Publish, ask: Ask, job_id: str
) -> None:
    publish(queued(job_id, cancellable=False))
    refusal = await ask(job_id)
    assert refusal["code"] == "not_cancellable"
    state = await state_of(client, job_id)
    assert (state["status"], state["cancellable"]) == ("queued", False)


async def test_unknown_job_and_foreign_job_have_the_same_answer(
    client: httpx.AsyncClient, publish: Publish, ask: Ask, job_id: str
) -> None:
    publish(queued(job_id))
    unknown = new_id()
    refused = {"ok": False, "code": "job_not_found", "message": NOT_YOURS}
    for claims in (
        {"sub": "bob"},
        {"sub": "bob", "jobs": [job_id, unknown]},  # may follow
        {"sub": "bob", "jobs": ["*"], "can": ["pause"]},
        {"sub": "bob", "can": ["cancel"]},
    ):
        assert await ask(job_id, claims) == refused, claims
        assert await ask(unknown, claims) == refused, claims
    assert await ask(unknown) == refused
    assert (await state_of(client, job_id))["status"] == "queued"


async def test_token_may_cancel_the_jobs_that_it_names(
    publish: Publish, ask: Ask, job_id: str, client: httpx.AsyncClient
) -> None:
    publish(queued(job_id))
    claims = {"sub": "bob", "jobs": [job_id], "can": ["cancel"]}
    assert (await ask(job_id, claims))["outcome"] == "cancelled"
    assert (await state_of(client, job_id))["error"]["by"] == "bob"


async def test_message_is_limited(
    client: httpx.AsyncClient, publish: Publish, ask: Ask, job_id: str
) -> None:
    publish(queued(job_id))
    for message in ("x" * 1001, 7, None, ["x"], {"a": "b"}):
        refusal = await ask(job_id, message=message)
        assert refusal["code"] == "invalid_request", message
    odd = 'a\n\r\0\x1b[31m</script>\u2028 "42[\\' + "é😀" * 10
    assert (await ask(job_id, message=odd, unknown={"field": 1}))["outcome"] == "cancelled"
    assert (await state_of(client, job_id))["error"]["message"] == odd


async def test_followers_see_who_cancels_a_job(
    server: Server, token: Token, publish: Publish, ask: Ask, job_id: str
) -> None:
    publish(started(job_id))
    async with following(server.url, token(sub="bob", jobs=[job_id])) as follower:
        assert (await follower.join(job_id))["ok"]
        await ask(job_id, message="wrong file")

        def statuses() -> list[Any]:
            events = follower.transcript.of(job_id, "job_status")
            return [
                (event.get("status"), event.get("by"), event.get("message")) for event in events
            ]

        await eventually(
            lambda: ("cancelling", "alice", "wrong file") in statuses(), "the event of the request"
        )


async def test_revoked_token_cancels_nothing(
    server: Server, valkey: Valkey, token: Token, publish: Publish, job_id: str
) -> None:
    sub = new_id("user")
    publish(queued(job_id), owner=sub)
    token_of_user = token(sub=sub)
    settings = Settings(url=valkey.url, jwt_secret=SECRET)
    await asyncio.to_thread(revoke, sub=sub, settings=settings)
    async with http_client(server.url, token_of_user) as client:
        await until(lambda: _is_status(client, f"/jobs/{job_id}", 401))
        assert code_of(await client.post(f"/jobs/{job_id}/cancel"), 401) == "token_revoked"


async def _is_status(client: httpx.AsyncClient, path: str, status: int) -> bool:
    return (await client.get(path)).status_code == status


# --- over HTTP only -------------------------------------------------------------------------------


async def test_request_over_http_needs_authentication(
    server: Server, publish: Publish, job_id: str
) -> None:
    publish(queued(job_id))
    async with http_client(server.url) as client:
        assert code_of(await client.post(f"/jobs/{job_id}/cancel"), 401) == "token_missing"
        client.headers["Authorization"] = "Bearer garbage"
        assert code_of(await client.post(f"/jobs/{job_id}/cancel"), 401) == "token_invalid"


async def test_invalid_body_is_refused(
    client: httpx.AsyncClient, publish: Publish, job_id: str
) -> None:
    publish(queued(job_id))
    path = f"/jobs/{job_id}/cancel"
    for body in (b"{", b"[]", b"7", b"null", b'{"message": "\\ud800"}', b"\xff\xfe", b"[" * 9000):
        assert code_of(await client.post(path, content=body), 400) == "invalid_request", body
    long = await client.post(path, content=b" " * (16 * 1024 + 1))
    assert code_of(long, 413) == "invalid_request"
    assert code_of(await client.post("/jobs/a%20b/cancel"), 400) == "invalid_request"
    assert (await state_of(client, job_id))["status"] == "queued"
    assert (await client.post(path, content=b"  \n")).json()["outcome"] == "cancelled"


async def test_only_post_cancels_a_job(
    client: httpx.AsyncClient, publish: Publish, job_id: str
) -> None:
    slashed = f"{job_id}/cancel"
    publish(queued(job_id))
    publish(queued(slashed))
    for method in ("PUT", "DELETE", "PATCH"):
        refused = await client.request(method, f"/jobs/{job_id}/cancel")
        assert code_of(refused, 405) == "method_not_allowed"
        assert refused.headers["allow"] == "POST, OPTIONS"
    # A job whose id ends with the same word is another job.
    assert (await state_of(client, slashed.replace("/", "%2F")))["job_id"] == slashed
    refused = await client.post(f"/jobs/{slashed.replace('/', '%2F')}")
    assert code_of(refused, 405) == "method_not_allowed"
    assert (await state_of(client, job_id))["status"] == "queued"
    answer = await client.post(f"/jobs/{slashed.replace('/', '%2F')}/cancel")
    assert answer.json() == {"ok": True, "job_id": slashed, "outcome": "cancelled"}
    assert (await state_of(client, job_id))["status"] == "queued"


async def test_pages_of_other_origins_cannot_cancel_with_a_session(
    valkey: Valkey, publish: Publish, token: Token, tmp_path: Path, job_id: str
) -> None:
    publish(queued(job_id))
    env = {
        "JOBCAST_AUTHENTICATE": "tests.http_application:user_of",
        "JOBCAST_CORS_ORIGINS": "https://app.example",
    }
    cookie = {"Cookie": "session=alice"}
    with serving(valkey, tmp_path, **env) as server:
        async with http_client(server.url) as client:
            path = f"/jobs/{job_id}/cancel"
            for headers in (
                {"Origin": "https://evil.example"},
                {"Origin": "null"},
                {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"},
                {"Sec-Fetch-Site": "cross-site"},
                {"Sec-Fetch-Site": "same-site"},
            ):
                refused = await client.post(path, headers={**cookie, **headers})
                assert code_of(refused, 403) == "forbidden", headers
            assert code_of(await client.post(path), 401) == "token_missing"
            allowed = {**cookie, "Origin": "https://app.example"}
            preflight = await client.options(path, headers=allowed)
            assert "POST" in preflight.headers["access-control-allow-methods"]
            assert "Content-Type" in preflight.headers["access-control-allow-headers"]
            answer = await client.post(path, headers=allowed, json={"message": "x"})
            assert answer.json()["outcome"] == "cancelled"
            assert (await client.post(path, headers={**cookie, "Origin": server.url})).json()["ok"]


async def test_any_origin_with_a_session_cancels_nothing(
    valkey: Valkey, publish: Publish, token: Token, tmp_path: Path, job_id: str
) -> None:
    publish(queued(job_id))
    env = {
        "JOBCAST_AUTHENTICATE": "tests.http_application:user_of",
        "JOBCAST_CORS_ORIGINS": "*",
        "JOBCAST_INSECURE_ANY_ORIGIN": "true",
        "JOBCAST_PATH_PREFIX": "/live",
        "JOBCAST_METRICS": "true",
    }
    evil = {"Cookie": "session=alice", "Origin": "https://evil.example"}
    with running(Server(tmp_path / "server.log", valkey.url, env)) as server:
        server.expect(lambda: answers(f"{server.url}/live/readyz"), "response of /readyz")
        async with http_client(server.url) as client:
            path = f"/live/jobs/{job_id}/cancel"
            assert code_of(await client.post(path, headers=evil), 401) == "token_missing"
            with_token = {**evil, "Authorization": f"Bearer {token()}"}
            answer = await client.post(path, headers=with_token)
            assert answer.json() == {"ok": True, "job_id": job_id, "outcome": "cancelled"}
            metrics = (await client.get("/live/metrics")).text
            assert 'jobcast_cancellations_total{outcome="cancelled"} 1.0' in metrics


async def test_rule_of_the_application_decides(
    valkey: Valkey, publish: Publish, token: Token, tmp_path: Path, job_id: str
) -> None:
    other = new_id()
    publish(queued(job_id, tags=("open",)), queued(other), owner="carol")
    env = {"JOBCAST_AUTHORIZE": "tests.http_application:may_cancel_open_jobs"}
    with serving(valkey, tmp_path, **env) as server:
        async with http_client(server.url, token(sub="bob")) as client:
            assert (await client.get(f"/jobs/{other}")).status_code == 200
            refused = await client.post(f"/jobs/{other}/cancel")
            assert code_of(refused, 404) == "job_not_found"
            answer = await client.post(f"/jobs/{job_id}/cancel")
            assert answer.json()["outcome"] == "cancelled"


async def test_requests_over_http_have_a_budget(
    valkey: Valkey, publish: Publish, token: Token, tmp_path: Path, job_id: str
) -> None:
    publish(started(job_id))
    with serving(valkey, tmp_path, JOBCAST_MESSAGE_RATE="1", JOBCAST_MAX_JOBS="1") as server:
        async with http_client(server.url, token()) as client:
            for _ in range(500):
                response = await client.post(f"/jobs/{job_id}/cancel")
                if response.status_code != 200:
                    break
            assert code_of(response, 429) == "rate_limited"


async def test_unavailable_store_is_reported(
    valkey: Valkey, token: Token, tmp_path: Path, job_id: str
) -> None:
    publisher = open_publisher(valkey.url)
    publisher.publish([Outgoing.of(queued(job_id), Origin("alice", SENT))])
    publisher.close()
    with serving(valkey, tmp_path) as server:
        async with http_client(server.url, token()) as client:
            valkey.command("CLIENT", "PAUSE", "1500", "ALL")
            response = await client.post(f"/jobs/{job_id}/cancel")
            # The server answers late or refuses; the same request then takes effect.
            assert response.status_code in (200, 503)
            answer = (await client.post(f"/jobs/{job_id}/cancel")).json()
            while answer.get("code") == "unavailable":
                await asyncio.sleep(0.1)
                answer = (await client.post(f"/jobs/{job_id}/cancel")).json()
            assert answer["outcome"] in ("cancelled", "already_ended")
            assert (await state_of(client, job_id))["status"] == "cancelled"
