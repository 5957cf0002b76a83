"""Binary packets, which jobcast's protocol does not use."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from typing import Any

import pytest
import socketio

from jobcast.realtime import attach
from jobcast.settings import Settings
from tests.e2e.hostile.conftest import Token, Undisturbed, wait_until_polling_ends
from tests.integration.test_attach import serve_app as in_this_process
from tests.support import SECRET, TIMEOUT, eventually, following, new_id, wire
from tests.support.attacks.attack import Target
from tests.support.attacks.catalogue import BINARY_EVENT, POLLING, polling_sid
from tests.support.attacks.server import Served
from tests.support.wire import Gone, WebSocket, Wire, frame, text

PLACEHOLDER = '{"_placeholder":true,"num":0}'


@pytest.mark.parametrize("authenticated", [True, False])
@pytest.mark.parametrize(
    "payload",
    [
        text(BINARY_EVENT), text(f'451-["join_job",{PLACEHOLDER}]'), text('450-["join_job",{}]'),
        text(f"461-1[{PLACEHOLDER}]"), text("460-1[]"), text('45["x"]'), text("46"),
        frame(wire.BINARY, b"x"), frame(wire.BINARY), frame(wire.BINARY, b"4" + b"x" * 60_000),
        text(f"4b{base64.b64encode(b'x').decode()}"), text(f"b{base64.b64encode(b'x').decode()}"),
    ],
    ids=range(12),
)  # fmt: skip
async def test_binary_packet_closes_its_connection(
    shared: Served,
    shared_target: Target,
    undisturbed: Undisturbed,
    payload: bytes,
    authenticated: bool,
) -> None:
    async with undisturbed(shared), WebSocket(shared.url) as socket:
        if authenticated:
            await socket.greet(shared_target.token)
        else:
            await socket.handshake()
        await socket.send(payload)
        async with asyncio.timeout(TIMEOUT):
            await socket.read_until_closed()


async def test_binary_packet_ends_a_long_polling_session(
    shared: Served, shared_target: Target, undisturbed: Undisturbed
) -> None:
    attachment = base64.b64encode(bytes(6000)).decode()
    for body in (BINARY_EVENT, f"b{attachment}", f"{BINARY_EVENT}\x1eb{attachment}"):
        async with undisturbed(shared), Wire(shared.url) as connection:
            path = f"{POLLING}&sid={await polling_sid(connection)}"
            await connection.send(
                wire.post(path, f'40{{"token":"{shared_target.token}"}}'.encode())
            )
            await connection.read_response()
            await connection.send(wire.post(path, body.encode()))
            await connection.read_response()
            await wait_until_polling_ends(connection, path)


@pytest.fixture
def sio() -> socketio.AsyncServer:
    return socketio.AsyncServer(async_mode="asgi")


async def test_binary_events_of_an_application_work(
    sio: socketio.AsyncServer, token: Token
) -> None:
    settings = Settings(url=f"memory://{new_id()}", jwt_secret=SECRET)
    uploads: list[Any] = []

    @sio.event
    def upload(_: str, *data: Any) -> bytes:
        uploads.append(data)
        return b"thanks"

    gateway = attach(sio, settings)
    async with in_this_process(socketio.ASGIApp(sio)) as url:
        for transports in (("websocket",), ("polling",)):
            async with following(url, token(), transports) as client:
                answer = await client.client.call(
                    "upload", ({"a": bytes(20_000)}, b"b"), timeout=TIMEOUT
                )
                assert answer == b"thanks"
        assert uploads == [({"a": bytes(20_000)}, b"b")] * 2
        await gateway.aclose()


@pytest.mark.parametrize("announced", [1000, 459_999])
async def test_attachments_to_an_application_are_bounded(
    sio: socketio.AsyncServer, token: Token, announced: int
) -> None:
    """A connection that announces or sends too many attachments is closed."""
    settings = Settings(url=f"memory://{new_id()}", jwt_secret=SECRET)
    gateway = attach(sio, settings)
    async with in_this_process(socketio.ASGIApp(sio)) as url:
        async with WebSocket(url) as socket:
            await socket.greet(token())
            with pytest.raises(Gone):
                await socket.send(text(f'45{announced}-["upload",{PLACEHOLDER}]'))
                async with asyncio.timeout(TIMEOUT):
                    while True:
                        await socket.send(frame(wire.BINARY, bytes(60_000)))
        await eventually(lambda: gateway.connections == 0, "end of the connection")
        assert not sio._binary_packet
        await gateway.aclose()


async def test_clients_cannot_call_reserved_handlers_of_an_application(
    sio: socketio.AsyncServer, token: Token
) -> None:
    calls: list[str] = []
    reserved: dict[str, Callable[..., None]] = {
        "connect": lambda _sid, _environ: calls.append("connect"),
        "disconnect": lambda _sid: calls.append("disconnect"),
    }
    for name, handler in reserved.items():
        sio.on(name, handler)
    gateway = attach(sio, Settings(url=f"memory://{new_id()}", jwt_secret=SECRET))
    async with in_this_process(socketio.ASGIApp(sio)) as url:
        for name in reserved:
            calls.clear()
            async with WebSocket(url) as socket:
                await socket.greet(token())
                await socket.send(wire.event(name, {"forged": True}))
                async with asyncio.timeout(TIMEOUT):
                    await socket.read_until_closed()
            await eventually(lambda: gateway.connections == 0, "end of the connection")
            assert calls == ["connect", "disconnect"]
        await gateway.aclose()
