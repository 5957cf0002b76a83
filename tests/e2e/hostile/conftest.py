from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Valkey
from tests.support import TIMEOUT, eventually, new_id, running, wait_for, wire
from tests.support.attacks.attack import Attack, Seen, Target
from tests.support.attacks.history import publish_long_history
from tests.support.attacks.innocent_client import Innocent, innocent
from tests.support.attacks.server import Served
from tests.support.wire import WebSocket, Wire

MAX_GROWTH = 64 * 1024 * 1024  # bytes by which one connection may make the server grow
LOG_LINES = 20  # log lines that a connection without a token may cause
AUTHENTICATED_LOG_LINES = 1000  # log lines that an authenticated connection may cause
SHORT_TIMEOUTS = {"JOBCAST_SEND_TIMEOUT": "3", "JOBCAST_RATE_PATIENCE": "1"}
WINDOW = 4.0  # seconds over which the server's reads are measured
MAX_THROTTLED = 160 * 1024  # bytes per window that the server may read of a throttled connection
MAX_FLOOD = 8 * 1024 * 1024  # bytes that the server may read of a flood in total

Token = Callable[..., str]
Serve = Callable[..., Served]


@pytest.fixture(scope="session")
def long_job(valkey: Valkey) -> str:
    """A job with 8 MiB of history."""
    return publish_long_history(valkey.url)


@pytest.fixture
def serve(valkey: Valkey, tmp_path: Path) -> Iterator[Serve]:
    """Start a server with settings: ``serve(JOBCAST_MAX_JOBS="2")``."""
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
    """A server with default settings except for shorter timeouts."""
    with running(Served(tmp_path / "server.log", valkey.url, SHORT_TIMEOUTS)) as server:
        yield server.ready()


@pytest.fixture
def target(served: Served, token: Token, long_job: str) -> Target:
    return Target(served.url, token("mallory", jobs=["*"]), long_job)


@pytest.fixture(scope="module")
def shared(valkey: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server for many short attacks."""
    log_path = tmp_path_factory.mktemp("hostile") / "server.log"
    with running(Served(log_path, valkey.url, SHORT_TIMEOUTS)) as server:
        yield server.ready()


@pytest.fixture
def shared_target(shared: Served, token: Token, long_job: str) -> Target:
    return Target(shared.url, token("mallory", jobs=["*"]), long_job)


Undisturbed = Callable[[Served], AbstractAsyncContextManager[Innocent]]


@pytest.fixture
def undisturbed(valkey: Valkey, token: Token) -> Undisturbed:
    """Run a block beside an innocent client and check that the block has no effect on it.

    The client's transcript is complete; the server grows by less than `MAX_GROWTH`, logs no
    traceback, answers no request with 5xx and releases all connections.
    """

    @asynccontextmanager
    async def check(server: Served) -> AsyncIterator[Innocent]:
        async with innocent(server.url, valkey.url, token("innocent", jobs=["*"])) as client:
            assert not await client.check(TIMEOUT)
            before = server.forget_peak()
            yield client
            # Events published from here on arrive too.
            assert not await client.check(TIMEOUT)
            assert server.peak_memory() - before < MAX_GROWTH
            await wait_until_only_innocent_is_connected(server)
        assert server.tracebacks == 0, server.log[-4000:]
        assert not server.server_errors
        await wait_until_disconnected(server)

    return check


async def wait_until_only_innocent_is_connected(server: Served) -> None:
    await _wait_for_gauges(server, 1)


async def wait_until_disconnected(server: Served) -> None:
    await _wait_for_gauges(server, 0)


async def _wait_for_gauges(server: Served, number: int) -> None:
    def same() -> bool:
        return set(server.gauges().values()) == {number}

    await asyncio.to_thread(wait_for, same, f"gauges of {number}")


async def log_lines(server: Served, token: Token) -> list[str]:
    """Return the server's log so far, including lines that it has not written yet."""
    last = new_id("last")
    async with WebSocket(server.url) as socket:
        await socket.greet(token(last))
    await eventually(lambda: server.log.count(last) == 2, "line about the end of the connection")
    return server.log.splitlines()


async def attack_until_closed(attack: Attack, target: Target) -> Seen:
    """Attack over one connection until the server closes it."""
    seen = Seen()
    async with asyncio.timeout(TIMEOUT):
        await attack.once(target, seen)
    return seen


async def wait_until_polling_ends(connection: Wire, path: str) -> None:
    """Poll until the server ends the session. Pending responses may arrive first."""
    status = 200
    async with asyncio.timeout(TIMEOUT):
        while status == 200:
            await connection.send(wire.request("GET", path))
            status, _ = await connection.read_response()
    assert status == 400


async def attack_until_contained(attack: Attack, target: Target) -> Seen:
    """Attack over one connection until the server closes it or hardly reads from it."""
    seen = Seen()
    attacking = asyncio.create_task(attack.once(target, seen))
    async with asyncio.timeout(TIMEOUT):
        while not attacking.done():
            before = seen.sent
            await asyncio.wait([attacking], timeout=WINDOW)
            assert seen.sent < MAX_FLOOD, seen
            if seen.sent - before < MAX_THROTTLED:
                break
    await cancel_attacks(attacking)
    return seen


async def cancel_attacks(*tasks: asyncio.Task[Any]) -> None:
    """Cancel attacks and raise the exception of an attack that failed."""
    for task in tasks:
        task.cancel()
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(outcome, Exception):
            raise outcome


async def wait_for_events(client: Innocent, events: int = 10) -> None:
    """Wait for further events of the innocent client."""
    wanted = len(client.received) + events
    await eventually(lambda: len(client.received) >= wanted, "events of the innocent client")
