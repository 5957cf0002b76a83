"""Key rotation, unavailable keys, numeric subjects and token lifetimes on a real server."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
import socketio
from socketio.exceptions import ConnectionError as Refused

from jobcast.events import JobLog
from jobcast.tokens import LATEST_TIME, mint
from jobcast.transports import Origin, Outgoing, open_publisher
from tests.conftest import Valkey
from tests.support import SECRET, Server, eventually, following, new_id, running
from tests.support.key_server import key_server, private_key

Token = Callable[..., str]

NEW, OLD = "n" * 32, "o" * 32


async def refusal_code(url: str, token: str) -> str:
    client = socketio.AsyncClient(reconnection=False, handle_sigint=False)
    errors: list[dict[str, Any]] = []
    client.on("connect_error", errors.append)
    with pytest.raises(Refused):
        await client.connect(url, auth={"token": token}, transports=["websocket"])
    code: str = errors[0]["data"]["code"]
    return code


async def test_tokens_of_old_and_new_secrets_are_accepted(valkey: Valkey, tmp_path: Path) -> None:
    env = {"JOBCAST_JWT_SECRET": "", "JOBCAST_JWT_SECRETS": f"new={NEW}, {OLD}"}
    with running(Server(tmp_path / "log", valkey.url, env)) as process:
        process.ready()
        for secret, kid in ((NEW, "new"), (NEW, None), (OLD, None)):
            async with following(process.url, mint(secret, "alice", kid=kid)) as alice:
                renewed = mint(NEW, "alice", kid="new")
                assert (await alice.request("refresh_token", {"token": renewed}))["ok"]
        wrong = mint(OLD, "alice", kid="new")
        assert await refusal_code(process.url, wrong) == "token_signature"
        assert NEW not in process.log
        assert OLD not in process.log


async def test_hanging_jwks_endpoint_does_not_delay_tokens_with_known_keys(
    valkey: Valkey, tmp_path: Path
) -> None:
    with key_server({"good": private_key()}) as keys:
        env = {"JOBCAST_JWT_SECRET": "", "JOBCAST_JWKS_URL": keys.url}
        with running(Server(tmp_path / "log", valkey.url, env)) as process:
            process.ready()
            await eventually(lambda: keys.requests == 1, "request when the server starts")
            keys.answers.clear()
            async with following(process.url, keys.token("good")) as alice:
                unknown_key_attempts = [
                    asyncio.create_task(
                        refusal_code(process.url, keys.token(f"x{n}", private_key()))
                    )
                    for n in range(12)
                ]
                for _ in range(10):
                    async with following(process.url, keys.token("good")):
                        pass
                    answer = await alice.request("refresh_token", {"token": keys.token("good")})
                    assert answer["ok"]
                codes = set(await asyncio.gather(*unknown_key_attempts))
                assert codes <= {"unavailable", "token_key"}
            assert keys.requests <= 2
            assert "Traceback" not in process.log


async def test_numeric_subject_follows_the_jobs_that_it_owns(
    server: Server, valkey: Valkey, job_id: str
) -> None:
    publisher = open_publisher(valkey.url)
    event = JobLog(job_id=job_id, level="info", message="hello")
    publisher.publish([Outgoing.of(event, Origin("42"))])
    publisher.close()
    for sub, joins in ((42, True), ("42", True), (43, False)):
        payload = json.dumps({"sub": sub, "exp": int(time.time()) + 60}).encode()
        token = jwt.PyJWS().encode(payload, SECRET, algorithm="HS256")
        async with following(server.url, token) as follower:
            assert (await follower.join(job_id))["ok"] is joins


async def test_token_valid_until_the_year_9999_is_accepted(server: Server) -> None:
    payload = json.dumps({"sub": "alice", "exp": LATEST_TIME}).encode()
    token = jwt.PyJWS().encode(payload, SECRET, algorithm="HS256")
    async with following(server.url, token) as alice:
        answer = await alice.request("refresh_token", {"token": token})
        assert answer == {"ok": True, "expires_at": "9999-12-31T23:59:59Z"}


async def test_token_with_too_long_a_lifetime_is_refused(
    valkey: Valkey, tmp_path: Path, token: Token
) -> None:
    env = {"JOBCAST_JWT_MAX_LIFETIME": "600"}
    with running(Server(tmp_path / "log", valkey.url, env)) as process:
        process.ready()
        assert await refusal_code(process.url, token(ttl=3600)) == "token_lifetime"
        async with following(process.url, token("alice", ttl=600)) as alice:
            answer = await alice.request("refresh_token", {"token": token("alice", ttl=3600)})
            assert answer["code"] == "token_lifetime"
            assert (await alice.leave(new_id()))["ok"]
