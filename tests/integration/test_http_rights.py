"""Clients of the HTTP interface that ask for more than they may have."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis
from socketio.exceptions import ConnectionError as ConnectionRefused

from jobcast.realtime.http.budgets import READS_AT_ONCE
from jobcast.transports import Origin, Outgoing, Retention, open_publisher
from tests.conftest import Valkey
from tests.http_application import PAUSED, SUBJECTS
from tests.support import Server, eventually, following, new_id
from tests.support.http_server import LINE, Publish, Token, code_of, line, serving, started
from tests.support.sse import http_client, read_until, streaming

LINES = 100


async def test_page_of_any_origin_cannot_use_the_session_of_a_user(
    valkey: Valkey, publish: Publish, token: Token, tmp_path: Path, job_id: str
) -> None:
    publish(started(job_id))
    env = {
        "JOBCAST_AUTHENTICATE": "tests.http_application:user_of",
        "JOBCAST_CORS_ORIGINS": "*",
        "JOBCAST_INSECURE_ANY_ORIGIN": "true",
    }
    evil = {"Cookie": "session=alice", "Origin": "https://evil.example"}
    with serving(valkey, tmp_path, **env) as server:
        own = {**evil, "Origin": server.url}
        # The client removes cookies from the mapping.
        with pytest.raises(ConnectionRefused):
            async with following(server.url, "", headers=dict(evil)):
                pass
        await eventually(lambda: "(token_missing)" in server.log, "refusal in the log")
        async with following(server.url, "", headers=dict(own)) as page:
            assert (await page.join(job_id))["ok"]
        async with http_client(server.url) as client:
            path = f"/jobs/{job_id}"
            assert code_of(await client.get(path, headers=evil), 401) == "token_missing"
            assert (await client.get(path, headers=own)).status_code == 200
            with_token = {**evil, "Authorization": f"Bearer {token()}"}
            assert (await client.get(path, headers=with_token)).status_code == 200


@pytest.mark.parametrize(
    ("session", "status", "code"),
    [
        ("expired", 401, "token_expired"),
        *((name, 500, "internal_error") for name in SUBJECTS if name != "expired"),
    ],
)
async def test_invalid_subject_of_the_application_is_refused(
    valkey: Valkey, tmp_path: Path, session: str, status: int, code: str
) -> None:
    env = {"JOBCAST_AUTHENTICATE": "tests.http_application:odd_subject_of"}
    with serving(valkey, tmp_path, **env) as server:
        async with http_client(server.url, cookies={"session": session}) as client:
            assert code_of(await client.get("/jobs/without-owner"), status) == code


async def test_application_may_authenticate_by_other_credentials(
    valkey: Valkey, publish: Publish, tmp_path: Path, job_id: str
) -> None:
    publish(started(job_id))
    env = {"JOBCAST_AUTHENTICATE": "tests.http_application:user_of"}
    with serving(valkey, tmp_path, **env) as server:
        async with http_client(server.url) as client:
            client.headers["Authorization"] = "Basic YWxpY2U6MQ=="
            assert code_of(await client.get(f"/jobs/{job_id}"), 401) == "token_missing"
            client.cookies["session"] = "alice"
            assert (await client.get(f"/jobs/{job_id}")).status_code == 200


async def test_history_of_a_forbidden_job_is_not_read(
    valkey: Valkey, client: httpx.AsyncClient, publish: Publish, job_id: str
) -> None:
    publish(started(job_id), *(line(job_id, LINE) for _ in range(LINES)), owner="bob")
    redis: Any = Redis.from_url(valkey.url)
    with redis:
        before = redis.info("stats")["total_net_output_bytes"]
        for _ in range(5):
            assert code_of(await client.get(f"/jobs/{job_id}"), 404) == "job_not_found"
        assert redis.info("stats")["total_net_output_bytes"] - before < LINES * len(LINE)


async def test_concurrent_requests_do_not_exceed_the_budget_of_history(
    valkey: Valkey, publish: Publish, token: Token, tmp_path: Path, job_id: str
) -> None:
    publish(started(job_id), *(line(job_id, LINE) for _ in range(LINES)))
    with serving(valkey, tmp_path, JOBCAST_HISTORY_RATE="1024") as server:
        async with http_client(server.url, token()) as client:
            requests = [client.get(f"/jobs/{job_id}") for _ in range(40)]
            answers = await asyncio.gather(*requests)
    statuses = [answer.status_code for answer in answers]
    assert 1 <= statuses.count(200) <= READS_AT_ONCE
    assert statuses.count(429) == len(statuses) - statuses.count(200)


async def test_regular_check_of_rights_spares_a_join_in_progress(
    own_valkey: Valkey, token: Token, tmp_path: Path, job_id: str
) -> None:
    env = {
        "JOBCAST_AUTHORIZE": "tests.http_application:may_follow_own",
        "JOBCAST_REAUTHORIZE": "0.3",
        PAUSED: str(tmp_path / "paused"),
    }
    with serving(own_valkey, tmp_path, **env) as server:
        publisher = open_publisher(own_valkey.url, Retention(ttl=600, size=100))
        publisher.publish([Outgoing.of(started(job_id), Origin(owner="alice"))])
        publisher.close()
        async with (
            http_client(server.url, token()) as client,
            streaming(client, f"/jobs/{job_id}/events") as (reader, chunks),
        ):
            await read_until(reader, chunks, "job_status")
    assert reader.names == ["joined", "job_status"]


async def test_missing_job_of_a_listed_id_can_be_awaited(
    server: Server, publish: Publish, token: Token
) -> None:
    job_id = new_id()
    async with http_client(server.url, token(jobs=[job_id])) as client:
        async with streaming(client, f"/jobs/{job_id}/events") as (reader, chunks):
            await read_until(reader, chunks, "joined")
            await asyncio.to_thread(publish, started(job_id))
            await read_until(reader, chunks, "job_status")
    assert [joined["status"] for joined in reader.of("joined")] == ["pending", "started"]
