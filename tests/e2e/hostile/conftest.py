from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Valkey
from tests.support import TIMEOUT, eventually, new_id, running, wait_for, wire
from tests.support.attacks.catalogue import Attack, Seen, Target
from tests.support.attacks.history import publish_long_history
from tests.support.attacks.innocent_client import Innocent, innocent
from tests.support.attacks.server import Served
from tests.support.wire import WebSocket, Wire

ROOM = 64 * 1024 * 1024  # bytes that one connection may make the server grow by
LOG_LINES = 20  # that a connection without a token may cause
ANSWERED = 1000  # of an authenticated one that the server may answer, with a line each
IMPATIENT = {"JOBCAST_SEND_TIMEOUT": "3", "JOBCAST_RATE_PATIENCE": "1"}
WINDOW = 4.0  # seconds in which the server reads
TRICKLE = 160 * 1024  # bytes at most, if it holds a connection
MOST = 8 * 1024 * 1024  # bytes that it may read of a flood in all

Token = Callable[..., str]
Serve = Callable[..., Served]


@pytest.fixture(scope="session")
def long_job(valkey: Valkey) -> str:
    """A job with 8 MiB of history."""
    return publish_long_history(valkey.url)


@pytest.fixture
def serve(valkey: Valkey, tmp_path: Path) -> Iterator[Serve]:
    """Starts a server with settings: ``serve(JOBCAST_MAX_JOBS="2")``."""
    servers: list[Served] = []

    def start(**env: str) -> Served:
        server = Served(tmp_path / f"server-{len(servers)}.log", valkey.url, env)
        servers.append(server)
        return server.ready()

    yield start
    for server in servers:
        server.kill()


@pytest.fixture
def served(valkey: Valkey, tmp_path: Path) -> Iterator[Served]:
    """A server with default settings, but for times that a test can wait for."""
    with running(Served(tmp_path / "server.log", valkey.url, IMPATIENT)) as server:
        yield server.ready()


@pytest.fixture
def target(served: Served, token: Token, long_job: str) -> Target:
    return Target(served.url, token("mallory", jobs=["*"]), long_job)


@pytest.fixture(scope="module")
def shared(valkey: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server for many short attacks."""
    log_path = tmp_path_factory.mktemp("hostile") / "server.log"
    with running(Served(log_path, valkey.url, IMPATIENT)) as server:
        yield server.ready()


@pytest.fixture
def shared_target(shared: Served, token: Token, long_job: str) -> Target:
    return Target(shared.url, token("mallory", jobs=["*"]), long_job)


Undisturbed = Callable[[Served], AbstractAsyncContextManager[Innocent]]


@pytest.fixture
def undisturbed(valkey: Valkey, token: Token) -> Undisturbed:
    """Runs its block beside an innocent client, and checks what the block has done to it.

    That is: the client's transcript is complete, the server has grown by less than `ROOM`, has
    logged no traceback and answered no request with 5xx, and nothing is left of the connections.
    """

    @asynccontextmanager
    async def check(server: Served) -> AsyncIterator[Innocent]:
        async with innocent(server.url, valkey.url, token("innocent", jobs=["*"])) as client:
            assert not await client.check(TIMEOUT)
            before = server.forget_peak()
            yield client
            # What is published from here on arrives too.
            assert not await client.check(TIMEOUT)
            assert server.peak_memory() - before < ROOM
            await only_innocent_is_left(server)
        assert server.tracebacks == 0, server.log[-4000:]
        assert not server.server_errors
        await nothing_is_left(server)

    return check


async def only_innocent_is_left(server: Served) -> None:
    await _gauges_become(server, 1)


async def nothing_is_left(server: Served) -> None:
    await _gauges_become(server, 0)


async def _gauges_become(server: Served, number: int) -> None:
    def same() -> bool:
        return set(server.gauges().values()) == {number}

    await asyncio.to_thread(wait_for, same, f"gauges of {number}")


async def log_lines(server: Served, token: Token) -> list[str]:
    """Return what the server has logged so far. It writes its lines in batches."""
    last = new_id("last")
    async with WebSocket(server.url) as socket:
        await socket.greet(token(last))
    await eventually(lambda: server.log.count(last) == 2, "line about the end of the connection")
    return server.log.splitlines()


async def ended(attack: Attack, target: Target) -> Seen:
    """Attack by one connection until the server has ended it."""
    seen = Seen()
    async with asyncio.timeout(TIMEOUT):
        await attack.once(target, seen)
    return seen


async def polling_ends(connection: Wire, path: str) -> None:
    """Poll until the server has ended the session; answers may still be on their way."""
    status = 200
    async with asyncio.timeout(TIMEOUT):
        while status == 200:
            await connection.send(wire.request("GET", path))
            status, _ = await connection.read_response()
    assert status == 400


async def held(attack: Attack, target: Target) -> Seen:
    """Attack by one connection until the server has ended it, or reads next to nothing from it."""
    seen = Seen()
    attacking = asyncio.create_task(attack.once(target, seen))
    async with asyncio.timeout(TIMEOUT):
        while not attacking.done():
            before = seen.sent
            await asyncio.wait([attacking], timeout=WINDOW)
            assert seen.sent < MOST, seen
            if seen.sent - before < TRICKLE:
                break
    await cancelled(attacking)
    return seen


async def cancelled(*tasks: asyncio.Task[Any]) -> None:
    """End attacks. One that has failed by itself fails the test."""
    for task in tasks:
        task.cancel()
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(outcome, Exception):
            raise outcome


async def goes_on(client: Innocent, events: int = 10) -> None:
    """Wait for further events of the innocent client."""
    wanted = len(client.received) + events
    await eventually(lambda: len(client.received) >= wanted, "events of the innocent client")
