"""Limits on the number of connections and on the time until they authenticate."""

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
    attack_until_closed,
    cancel_attacks,
    wait_for_events,
    wait_until_only_innocent_is_connected,
)  # fmt: skip
from tests.support import TIMEOUT, eventually, running, wire
from tests.support.attacks.attack import Seen, Target
from tests.support.attacks.catalogue import BY_NAME, POLLING
from tests.support.attacks.innocent_client import Innocent
from tests.support.attacks.server import Served
from tests.support.wire import Gone, WebSocket, Wire, text

# A second loopback address. The innocent client connects from the first.
OTHER_ADDRESS = "127.0.0.2"
MAX_FILES = 256  # file descriptors that the server may open


@asynccontextmanager
async def silent_connections(
    url: str, count: int, source: str = OTHER_ADDRESS
) -> AsyncIterator[list[Wire]]:
    """Open connections that send nothing. The server may refuse some."""
    async with AsyncExitStack() as stack:
        wires: list[Wire] = []
        for _ in range(count):
            try:
                wires.append(await stack.enter_async_context(Wire(url, source=source)))
            except Gone:
                continue
        yield wires


async def open_unauthenticated(
    stack: AsyncExitStack, url: str, count: int, source: str
) -> list[WebSocket]:
    """Open WebSockets that do not authenticate. Return those that the server accepts."""
    sockets: list[WebSocket] = []
    for _ in range(count):
        try:
            socket = await stack.enter_async_context(WebSocket(url, source=source))
            sockets.append(await socket.handshake())
        except Gone:
            continue
    return sockets


def count_open(wires: list[WebSocket]) -> int:
    return sum(not wire.ended for wire in wires)


@pytest.mark.parametrize(
    "name", ["silent", "half-heads", "slow-heads", "bodiless", "unauthenticated"]
)
async def test_connection_without_a_complete_handshake_is_closed(
    serve: Serve, token: Token, undisturbed: Undisturbed, name: str
) -> None:
    served = serve(JOBCAST_HANDSHAKE_TIMEOUT="5")
    async with undisturbed(served):
        await attack_until_closed(BY_NAME[name], Target(served.url, token(), "any"))


async def test_refused_connects_do_not_extend_the_handshake_timeout(
    serve: Serve, undisturbed: Undisturbed
) -> None:
    served = serve(JOBCAST_HANDSHAKE_TIMEOUT="5")
    async with undisturbed(served), WebSocket(served.url) as socket:
        await socket.handshake()
        async with asyncio.timeout(TIMEOUT):
            with pytest.raises(Gone):
                while True:
                    await socket.send(text('40{"token":"x"}'))
                    await asyncio.sleep(0.5)


async def test_established_client_outlives_the_handshake_timeout(
    serve: Serve, token: Token, undisturbed: Undisturbed
) -> None:
    served = serve(JOBCAST_HANDSHAKE_TIMEOUT="5")
    async with undisturbed(served), WebSocket(served.url) as socket:
        await socket.greet(token())
        await asyncio.sleep(7)
        assert (await socket.ask("leave_job", {"job_id": "any"}))["ok"]


async def test_sockets_without_a_token_are_limited(
    serve: Serve, token: Token, undisturbed: Undisturbed
) -> None:
    served = serve(JOBCAST_MAX_UNAUTHENTICATED="5", JOBCAST_HANDSHAKE_TIMEOUT="10")
    async with undisturbed(served) as client, AsyncExitStack() as stack:
        sockets = await open_unauthenticated(stack, served.url, 30, OTHER_ADDRESS)
        await eventually(lambda: count_open(sockets) <= 5, "refusal of most of them")
        await wait_for_events(client)
        # They time out and make room.
        await eventually(lambda: count_open(sockets) == 0, "end of the unauthenticated connections")
        async with WebSocket(served.url, source=OTHER_ADDRESS) as socket:
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
        # The oldest sessions made room for newer ones.
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
    """Limits apply per address, per subject and in total. Existing connections stay."""
    name = "_".join(filter(None, ["JOBCAST_MAX_CONNECTIONS", limit]))
    served = serve(**{name: "4"})
    allowed = 4 if limit else 3  # the innocent client is another subject at another address
    async with undisturbed(served) as client:
        async with AsyncExitStack() as stack:
            sockets: list[WebSocket] = []
            for _ in range(allowed):
                socket = await stack.enter_async_context(
                    WebSocket(served.url, source=OTHER_ADDRESS)
                )
                sockets.append(await socket.greet(token("mallory")))
            for _ in range(3):
                with pytest.raises(Gone):
                    async with WebSocket(served.url, source=OTHER_ADDRESS) as another:
                        await another.greet(token("mallory"))
            for socket in sockets:
                assert (await socket.ask("leave_job", {"job_id": "any"}))["ok"]
            await wait_for_events(client)
        await wait_until_only_innocent_is_connected(served)
        async with WebSocket(served.url, source=OTHER_ADDRESS) as socket:
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


async def test_forwarded_address_is_accepted_only_from_a_trusted_proxy(
    serve: Serve, token: Token
) -> None:
    async def connect_from(served: Served, forwarded: str, source: str) -> WebSocket:
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
    behind = serve(**limits, JOBCAST_TRUSTED_PROXIES=OTHER_ADDRESS)
    accepted = [await connect_from(behind, f"10.0.0.{n}", OTHER_ADDRESS) for n in range(3)]
    with pytest.raises(Gone):
        await connect_from(behind, "10.0.0.1", OTHER_ADDRESS)
    accepted.append(await connect_from(behind, "10.1.0.1", "127.0.0.3"))
    with pytest.raises(Gone):  # its own address counts, because it is not a trusted proxy
        await connect_from(behind, "10.1.0.2", "127.0.0.3")
    for socket in accepted:
        socket.close()


async def test_established_clients_are_served_without_free_file_descriptors(
    valkey: Valkey, tmp_path: Path, token: Token, undisturbed: Undisturbed
) -> None:
    limited = Served(tmp_path / "server.log", valkey.url, files=MAX_FILES)
    with running(limited) as served:
        await _check_service_without_files(served.ready(), token, undisturbed)


async def _check_service_without_files(
    served: Served, token: Token, undisturbed: Undisturbed
) -> None:
    async with undisturbed(served) as client, WebSocket(served.url) as other:
        await other.greet(token(jobs=["*"]))
        async with silent_connections(served.url, 2 * MAX_FILES):
            await _check_service(client, other)
        async with asyncio.timeout(TIMEOUT):
            while True:  # the server accepts connections again
                try:
                    async with WebSocket(served.url) as late:
                        await late.greet(token())
                    break
                except Gone:
                    await asyncio.sleep(0.1)


async def _check_service(client: Innocent, other: WebSocket) -> None:
    async with asyncio.timeout(TIMEOUT):
        for n in range(20):
            assert (await other.ask("join_job", {"job_id": f"job-{n}"}))["ok"]
    await wait_for_events(client)


async def test_abandoned_long_polling_sessions_cost_little(
    served: Served, target: Target, undisturbed: Undisturbed
) -> None:
    async with undisturbed(served) as client:
        seen = Seen()
        opening = asyncio.create_task(BY_NAME["polling-sessions"].persist(target, seen))
        await eventually(lambda: sum(seen.statuses.values()) >= 3000, "three thousand requests")
        await cancel_attacks(opening)
        await wait_for_events(client)


async def test_many_silent_connections_cost_little(serve: Serve, undisturbed: Undisturbed) -> None:
    served = serve(JOBCAST_HANDSHAKE_TIMEOUT="5")
    async with undisturbed(served) as client, silent_connections(served.url, 300) as wires:
        await wait_for_events(client)
        await eventually(lambda: all(wire.ended for wire in wires), "end of the silent connections")
