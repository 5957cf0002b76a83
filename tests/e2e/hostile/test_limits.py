"""Connections: how many there may be, and how long they may take to say who they are."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from tests.conftest import Valkey
from tests.e2e.hostile.conftest import (
    Serve,
    Token,
    Undisturbed,
    cancelled,
    ended,
    goes_on,
    only_innocent_is_left,
)  # fmt: skip
from tests.support import TIMEOUT, eventually, running, wire
from tests.support.attacks.catalogue import BY_NAME, POLLING, Seen, Target
from tests.support.attacks.innocent_client import Innocent
from tests.support.attacks.server import Served
from tests.support.wire import Gone, WebSocket, Wire, text

# Loopback has more than one address; the innocent client comes from the first.
ELSEWHERE = "127.0.0.2"
FILES = 256  # that the server may open


@asynccontextmanager
async def crowd(url: str, count: int, source: str = ELSEWHERE) -> AsyncIterator[list[Wire]]:
    """Connections that have sent nothing. The server may refuse some."""
    async with AsyncExitStack() as stack:
        wires: list[Wire] = []
        for _ in range(count):
            try:
                wires.append(await stack.enter_async_context(Wire(url, source=source)))
            except Gone:
                continue
        yield wires


async def strangers(stack: AsyncExitStack, url: str, count: int, source: str) -> list[WebSocket]:
    """WebSockets that do not authenticate, as many as the server lets in."""
    sockets: list[WebSocket] = []
    for _ in range(count):
        try:
            socket = await stack.enter_async_context(WebSocket(url, source=source))
            sockets.append(await socket.handshake())
        except Gone:
            continue
    return sockets


def open_ones(wires: list[WebSocket]) -> int:
    return sum(not wire.ended for wire in wires)


@pytest.mark.parametrize(
    "name", ["silent", "half-heads", "slow-heads", "bodiless", "unauthenticated"]
)
async def test_a_connection_that_does_not_get_anywhere_is_closed(
    serve: Serve, token: Token, undisturbed: Undisturbed, name: str
) -> None:
    served = serve(JOBCAST_HANDSHAKE_TIMEOUT="2")
    async with undisturbed(served):
        await ended(BY_NAME[name], Target(served.url, token(), "any"))


async def test_a_namespace_that_refuses_a_connection_gives_it_no_more_time(
    serve: Serve, undisturbed: Undisturbed
) -> None:
    served = serve(JOBCAST_HANDSHAKE_TIMEOUT="2")
    async with undisturbed(served), WebSocket(served.url) as socket:
        await socket.handshake()
        async with asyncio.timeout(TIMEOUT):
            with pytest.raises(Gone):
                while True:
                    await socket.send(text('40{"token":"x"}'))
                    await asyncio.sleep(0.5)


async def test_an_established_client_stays_beyond_the_time_for_a_handshake(
    serve: Serve, token: Token, undisturbed: Undisturbed
) -> None:
    served = serve(JOBCAST_HANDSHAKE_TIMEOUT="1")
    async with undisturbed(served), WebSocket(served.url) as socket:
        await socket.greet(token())
        await asyncio.sleep(3)
        assert (await socket.ask("leave_job", {"job_id": "any"}))["ok"]


async def test_sockets_without_a_token_are_limited(
    serve: Serve, token: Token, undisturbed: Undisturbed
) -> None:
    served = serve(JOBCAST_MAX_UNAUTHENTICATED="5", JOBCAST_HANDSHAKE_TIMEOUT="10")
    async with undisturbed(served) as client, AsyncExitStack() as stack:
        sockets = await strangers(stack, served.url, 30, ELSEWHERE)
        await eventually(lambda: open_ones(sockets) <= 5, "refusal of most of them")
        await goes_on(client)
        # They end by themselves, and make room.
        await eventually(lambda: open_ones(sockets) == 0, "end of those without a token")
        async with WebSocket(served.url, source=ELSEWHERE) as socket:
            await socket.greet(token())


async def test_long_polling_sessions_without_a_token_are_limited(
    serve: Serve, token: Token, undisturbed: Undisturbed
) -> None:
    served = serve(JOBCAST_MAX_UNAUTHENTICATED="5", JOBCAST_HANDSHAKE_TIMEOUT="10")
    async with undisturbed(served), Wire(served.url) as connection:
        statuses: list[int] = []
        sids: list[str] = []
        for _ in range(30):
            await connection.send(wire.request("GET", POLLING))
            status, body = await connection.read_response()
            statuses.append(status)
            if status == 200:
                sids.append(json.loads(body[1:])["sid"])
        assert all(status in (200, 429) for status in statuses)
        # Those that waited for longest made room for the others.
        left = 0
        for sid in sids:
            async with Wire(served.url) as another:
                await another.send(wire.post(f"{POLLING}&sid={sid}", b"3"))
                left += (await another.read_response())[0] == 200
        assert left <= 5


@pytest.mark.parametrize("limit", ["PER_ADDRESS", "PER_SUBJECT", ""])
async def test_connections_are_limited(
    serve: Serve, token: Token, undisturbed: Undisturbed, limit: str
) -> None:
    """By address, by subject, and in all; what is over the limit is refused, the others stay."""
    name = "_".join(filter(None, ["JOBCAST_MAX_CONNECTIONS", limit]))
    served = serve(**{name: "4"})
    room = 4 if limit else 3  # the innocent client is another subject at another address
    async with undisturbed(served) as client:
        async with AsyncExitStack() as stack:
            sockets: list[WebSocket] = []
            for _ in range(room):
                socket = await stack.enter_async_context(WebSocket(served.url, source=ELSEWHERE))
                sockets.append(await socket.greet(token("mallory")))
            for _ in range(3):
                with pytest.raises(Gone):
                    async with WebSocket(served.url, source=ELSEWHERE) as another:
                        await another.greet(token("mallory"))
            for socket in sockets:
                assert (await socket.ask("leave_job", {"job_id": "any"}))["ok"]
            await goes_on(client)
        await only_innocent_is_left(served)
        async with WebSocket(served.url, source=ELSEWHERE) as socket:
            await socket.greet(token("mallory"))  # there is room again


async def test_another_subject_connects_while_one_is_at_its_limit(
    serve: Serve, token: Token, undisturbed: Undisturbed
) -> None:
    served = serve(JOBCAST_MAX_CONNECTIONS_PER_SUBJECT="1")
    async with undisturbed(served), WebSocket(served.url) as first, WebSocket(served.url) as other:
        await first.greet(token("mallory"))
        with pytest.raises(Gone):
            async with WebSocket(served.url) as second:
                await second.greet(token("mallory"))
        await other.greet(token("another"))


async def test_an_address_is_what_a_trusted_proxy_says_and_nobody_else(
    serve: Serve, token: Token
) -> None:
    async def greeted(served: Served, forwarded: str, source: str) -> WebSocket:
        socket = await WebSocket(served.url, source=source).open()
        try:
            await socket.handshake(headers=f"X-Forwarded-For: {forwarded}\r\n")
            await socket.send(text(f"40{json.dumps({'token': token('mallory')})}"))
            if (await socket.read_until("40", "44")).startswith("44"):
                raise Gone("refused")
        except Gone:
            socket.close()
            raise
        return socket

    limits = {"JOBCAST_MAX_CONNECTIONS_PER_ADDRESS": "1"}
    behind = serve(**limits, JOBCAST_TRUSTED_PROXIES=ELSEWHERE)
    kept = [await greeted(behind, f"10.0.0.{n}", ELSEWHERE) for n in range(3)]
    with pytest.raises(Gone):
        await greeted(behind, "10.0.0.1", ELSEWHERE)
    kept.append(await greeted(behind, "10.1.0.1", "127.0.0.3"))
    with pytest.raises(Gone):  # its own address counts: nobody trusts what it says
        await greeted(behind, "10.1.0.2", "127.0.0.3")
    for socket in kept:
        socket.close()


async def test_established_clients_are_served_when_no_file_is_left(
    valkey: Valkey, tmp_path: Path, token: Token, undisturbed: Undisturbed
) -> None:
    few = Served(tmp_path / "server.log", valkey.url, files=FILES)
    with running(few) as served:
        await _stays_up(served.ready(), token, undisturbed)


async def _stays_up(served: Served, token: Token, undisturbed: Undisturbed) -> None:
    async with undisturbed(served) as client, WebSocket(served.url) as other:
        await other.greet(token(jobs=["*"]))
        async with crowd(served.url, 2 * FILES):
            await _still_served(client, other)
        async with asyncio.timeout(TIMEOUT):
            while True:  # the server accepts connections again
                try:
                    async with WebSocket(served.url) as late:
                        await late.greet(token())
                    break
                except Gone:
                    await asyncio.sleep(0.1)


async def _still_served(client: Innocent, other: WebSocket) -> None:
    async with asyncio.timeout(TIMEOUT):
        for n in range(20):
            assert (await other.ask("join_job", {"job_id": f"job-{n}"}))["ok"]
    await goes_on(client)


async def test_sessions_of_long_polling_that_are_left_cost_little(
    served: Served, target: Target, undisturbed: Undisturbed
) -> None:
    async with undisturbed(served) as client:
        seen = Seen()
        opening = asyncio.create_task(BY_NAME["polling-sessions"].persist(target, seen))
        await eventually(lambda: sum(seen.statuses.values()) >= 3000, "three thousand requests")
        await cancelled(opening)
        await goes_on(client)


async def test_a_crowd_of_silent_connections_costs_little(
    serve: Serve, undisturbed: Undisturbed
) -> None:
    served = serve(JOBCAST_HANDSHAKE_TIMEOUT="3")
    async with undisturbed(served) as client, crowd(served.url, 300) as wires:
        await goes_on(client)
        await eventually(lambda: all(wire.ended for wire in wires), "end of the silent ones")
