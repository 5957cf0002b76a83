"""Revocation of tokens on every server process and transport, and during outages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import socketio
from kombu.connection import Connection
from socketio.exceptions import ConnectionError as Refused

from jobcast.events import JobLog
from jobcast.revocation import revoke
from jobcast.settings import Settings
from jobcast.transports import Origin, Outgoing, open_publisher
from jobcast.transports.amqp.names import Names
from tests.conftest import Valkey
from tests.e2e.raw import raw_client
from tests.support import (
    TIMEOUT,
    Follower,
    Server,
    answers,
    eventually,
    following,
    new_id,
    running,
    wait_for,
)
from tests.support.rabbitmq import RabbitMQ

Token = Callable[..., str]


@pytest.fixture(params=["valkey", "rabbitmq"])
def transport(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue(request.param).url
    return url


def disconnect(transport: str, *arguments: str) -> str:
    """Run ``jobcast disconnect`` and return its output."""
    done = subprocess.run(
        [sys.executable, "-m", "jobcast.cli", "disconnect", *arguments],
        env={**os.environ, "JOBCAST_URL": transport}, text=True, capture_output=True,
        timeout=TIMEOUT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


async def refusal_code(url: str, token: str) -> str:
    """Return the ``connect_error`` code for a token, or an empty string if it is accepted."""
    client = socketio.AsyncClient(reconnection=False, handle_sigint=False)
    errors: list[dict[str, Any]] = []
    client.on("connect_error", errors.append)
    try:
        await client.connect(url, auth={"token": token}, transports=["websocket"])
    except Refused:
        code: str = errors[0]["data"]["code"]
        return code
    await client.disconnect()
    return ""


async def wait_until_revoked(follower: Follower) -> None:
    """Wait until a connection ends, and check that the server gave the reason."""
    await eventually(lambda: not follower.client.connected, "end of the connection")
    [(_, reason)] = [event for event in follower.transcript.events if event[0] == "closing"]
    assert reason["code"] == "token_revoked"
    assert reason["message"]


async def test_revoked_subject_is_refused_on_every_server_process(
    transport: str, tmp_path: Path, token: Token
) -> None:
    name, other = new_id("alice"), new_id("bob")
    old = token(name)
    with (
        running(Server(tmp_path / "one.log", transport)) as one,
        running(Server(tmp_path / "two.log", transport)) as two,
    ):
        async with AsyncExitStack() as stack:
            for server in (one, two):
                server.ready()
            revoked = [
                await stack.enter_async_context(following(server.url, old)) for server in (one, two)
            ]
            unaffected = [
                await stack.enter_async_context(following(server.url, token(other)))
                for server in (one, two)
            ]
            assert f"the tokens of '{name}'" in disconnect(transport, "--sub", name)
            for follower in revoked:
                await wait_until_revoked(follower)
            for server in (one, two):
                assert await refusal_code(server.url, old) == "token_revoked"
            # A token issued later is accepted, also in the same second.
            new = token(name)
            async with following(one.url, new) as again:
                answer = await again.request("refresh_token", {"token": old})
                assert answer["code"] == "token_revoked"
                assert (await again.request("refresh_token", {"token": new}))["ok"]
            for follower in unaffected:
                assert (await follower.leave("any"))["ok"]
            # A process that starts later refuses the old token too.
            with running(Server(tmp_path / "three.log", transport)) as three:
                three.ready()
                await wait_until_refused(three.url, old)
                assert await refusal_code(three.url, new) == ""
        for server in (one, two):
            assert "Traceback" not in server.log
            assert old not in server.log


async def wait_until_refused(url: str, token: str) -> None:
    """Wait until a new process has read the revoked tokens."""
    deadline = time.monotonic() + TIMEOUT
    while (code := await refusal_code(url, token)) != "token_revoked":
        assert time.monotonic() < deadline, code


async def test_one_token_is_revoked_by_its_jti(
    transport: str, tmp_path: Path, token: Token
) -> None:
    one, two = new_id("jti"), new_id("jti")
    with running(Server(tmp_path / "server.log", transport)) as server:
        server.ready()
        async with (
            following(server.url, token("alice", jti=one)) as revoked,
            following(server.url, token("alice", jti=two)) as unaffected,
        ):
            assert f"the token '{one}'" in disconnect(transport, "--jti", one)
            await wait_until_revoked(revoked)
            assert (await unaffected.leave("any"))["ok"]
            assert await refusal_code(server.url, token("alice", jti=one)) == "token_revoked"
            assert await refusal_code(server.url, token("alice", jti=two)) == ""
            assert await refusal_code(server.url, token("alice")) == ""


async def test_known_revocations_stay_in_force_during_an_outage(
    own_valkey: Valkey, tmp_path: Path, token: Token
) -> None:
    settings = Settings(url=own_valkey.url, jwt_max_lifetime=3600)
    with running(Server(tmp_path / "server.log", own_valkey.url)) as server:
        server.ready()
        async with following(server.url, token("alice", jti="one")) as alice:
            revocation = revoke(jti="one", settings=settings)
            assert 3600 <= revocation.until - time.time() < 3700
            await wait_until_revoked(alice)
        own_valkey.kill()
        wait_for(lambda: answers(f"{server.url}/readyz", 503), "server without a transport")
        assert await refusal_code(server.url, token("alice", jti="one")) == "token_revoked"
        async with following(server.url, token("alice", jti="two")) as two:
            own_valkey.start()
            own_valkey.ready()
            # A revocation right after the outage closes the connection.
            revoke(jti="two", settings=settings)
            await wait_until_revoked(two)
        assert "Traceback" not in server.log


async def test_process_started_during_an_outage_reads_revocations_later(
    own_valkey: Valkey, tmp_path: Path, token: Token
) -> None:
    old = token("alice")
    revoke(sub="alice", settings=Settings(url=own_valkey.url))
    own_valkey.command("SAVE")
    own_valkey.kill()
    with running(Server(tmp_path / "server.log", own_valkey.url)) as server:
        server.expect(lambda: answers(f"{server.url}/healthz"), "server")
        async with following(server.url, token("bob")) as bob:
            async with following(server.url, old) as alice:
                own_valkey.start()  # with the data that it saved
                own_valkey.ready()
                await wait_until_revoked(alice)
            assert await refusal_code(server.url, old) == "token_revoked"
            assert bob.client.connected
            warning = "could not read the revoked tokens"
            await eventually(lambda: warning in server.log, warning)


async def test_pending_join_delivers_nothing_after_its_token_is_revoked(
    valkey: Valkey, tmp_path: Path, token: Token
) -> None:
    (tmp_path / "rules.py").write_text(
        "import time\n"
        "from pathlib import Path\n"
        f"FOLDER = Path({str(tmp_path)!r})\n"
        "def allow(subject, action, target):\n"
        "    (FOLDER / 'asked').touch()\n"
        "    while not (FOLDER / 'answers').exists():\n"
        "        time.sleep(0.01)\n"
        "    return True\n"
    )
    env = {"JOBCAST_AUTHORIZE": "rules:allow", "PYTHONPATH": str(tmp_path)}
    job_id, jti = new_id(), new_id("jti")
    publisher = open_publisher(valkey.url)
    event = JobLog(job_id=job_id, level="info", message="secret")
    publisher.publish([Outgoing.of(event, Origin("alice"))])
    publisher.close()
    with running(Server(tmp_path / "server.log", valkey.url, env)) as server:
        server.ready()
        async with raw_client(server.url, token("alice", jti=jti)) as alice:
            await alice.send(f"427{json.dumps(['join_job', {'job_id': job_id}])}")
            await eventually((tmp_path / "asked").exists, "call of the rule")
            revoke(jti=jti, settings=Settings(url=valkey.url))
            # The client leaves the namespace; its connection stays open for the handshake timeout.
            await alice.read_until(lambda packet: packet.startswith("41"))
            (tmp_path / "answers").touch()
            answer = await alice.read_until(lambda packet: packet.startswith("437"))
            assert not json.loads(answer[3:])[0]["ok"]
            assert alice.events("joined") == alice.events("job_log") == []


async def test_new_process_refuses_joins_until_it_has_read_revocations(
    rabbitmq: RabbitMQ, tmp_path: Path, token: Token
) -> None:
    names = Names()
    job_id = new_id()
    with Connection(rabbitmq.url) as lock:
        # While another process reads the revocations, other processes find an empty queue.
        lock.channel().queue_declare(f"{names.revocations}.reading", exclusive=True)
        with running(Server(tmp_path / "server.log", rabbitmq.url)) as server:
            server.ready()
            async with following(server.url, token("alice", jobs=[job_id])) as alice:
                assert (await alice.join(job_id))["code"] == "unavailable"
                lock.release()
                await join_until_accepted(alice, job_id)


async def join_until_accepted(follower: Follower, job_id: str) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not (answer := await follower.join(job_id))["ok"]:
        assert time.monotonic() < deadline, answer


async def test_revocations_are_read_from_a_read_only_server(
    own_valkey: Valkey, tmp_path: Path, token: Token
) -> None:
    settings = Settings(url=own_valkey.url)
    revoke(jti="over", ttl=-59.5, settings=settings)  # expired; the next read would remove it
    revoke(jti="one", settings=settings)
    own_valkey.command("CONFIG", "SET", "min-replicas-to-write", "1")
    with running(Server(tmp_path / "server.log", own_valkey.url)) as server:
        server.ready()
        await wait_until_refused(server.url, token("alice", jti="one"))
