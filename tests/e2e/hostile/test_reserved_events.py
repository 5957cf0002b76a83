"""Events with names that Socket.IO reserves."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.e2e.hostile.conftest import Token, Undisturbed, wait_until_polling_ends
from tests.support import SHORT_LIVED, TIMEOUT, wire
from tests.support.attacks.attack import Target
from tests.support.attacks.catalogue import POLLING, polling_sid
from tests.support.attacks.server import Served
from tests.support.wire import Gone, WebSocket, Wire, event, text

RESERVED = (
    "connect", "disconnect", "connect_error", "disconnecting", "newListener", "removeListener",
)  # fmt: skip


@pytest.mark.parametrize("name", RESERVED)
async def test_reserved_event_closes_its_connection(
    shared: Served, shared_target: Target, undisturbed: Undisturbed, name: str
) -> None:
    async with undisturbed(shared), WebSocket(shared.url) as socket:
        await socket.greet(shared_target.token)
        assert (await socket.ask("join_job", {"job_id": "another"}))["ok"]
        await socket.send(event(name, {}, {"token": shared_target.token}))
        async with asyncio.timeout(TIMEOUT):
            await socket.read_until_closed()


@pytest.mark.parametrize("name", ["connect", "disconnect"])
@pytest.mark.parametrize(
    "spelling",
    [
        '42["{name}"]', '421["{name}",{{}}]', '42/,["{name}"]', '42 ["{name}"]', '42[ "{name}" ]',
        '42["{escaped}"]', '451-["{name}",{{"_placeholder":true,"num":0}}]',
    ],
)  # fmt: skip
@pytest.mark.parametrize("authenticated", [True, False])
async def test_reserved_event_closes_its_connection_however_it_is_spelled(
    shared: Served, shared_target: Target, name: str, spelling: str, authenticated: bool
) -> None:
    packet = spelling.format(name=name, escaped="".join(f"\\u{ord(c):04x}" for c in name))
    async with WebSocket(shared.url) as socket:
        if authenticated:
            await socket.greet(shared_target.token)
        else:
            await socket.handshake()
        await socket.send(text(packet))
        async with asyncio.timeout(TIMEOUT):
            await socket.read_until_closed()
    assert shared.tracebacks == 0, shared.log


@pytest.mark.parametrize("name", ["connect", "disconnect"])
async def test_reserved_event_ends_a_long_polling_session(
    shared: Served, shared_target: Target, undisturbed: Undisturbed, name: str
) -> None:
    async with undisturbed(shared), Wire(shared.url) as connection:
        sid = await polling_sid(connection)
        path = f"{POLLING}&sid={sid}"
        hello = f"40{json.dumps({'token': shared_target.token})}"
        for packet in (hello, f'42["{name}",{{}},{{"token":"x"}}]'):
            await connection.send(wire.post(path, packet.encode()))
            await connection.read_response()
        await wait_until_polling_ends(connection, path)


async def test_connection_ends_when_its_token_expires_whatever_it_sends(
    shared: Served, token: Token, undisturbed: Undisturbed
) -> None:
    async with undisturbed(shared), WebSocket(shared.url) as socket:
        await socket.greet(token("mallory", jobs=["*"], ttl=SHORT_LIVED))
        assert (await socket.ask("join_job", {"job_id": "another"}))["ok"]
        try:
            await socket.send(event("disconnect", "x"))
            await socket.send(event("connect", {}, {"token": token("another", ttl=3600)}))
        except Gone:
            return
        async with asyncio.timeout(TIMEOUT):
            await socket.read_until_closed()
