"""The soak's client closes all its connections."""

from __future__ import annotations

import asyncio
import gc
import random
from collections import Counter
from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientSession, web

from bench.soak.run import background
from bench.soak.socketio_client import ClosingConnector, SocketIOClient
from tests.support import eventually

OPEN = '0{"sid":"a","upgrades":[],"pingInterval":25000,"pingTimeout":20000}'
CONNECTED = '40{"sid":"b"}'
RELEASED = web.AppKey("released", asyncio.Event)  # set when the handlers may return


async def _never_answer_a_close(request: web.Request) -> web.StreamResponse:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    await socket.send_str(OPEN)
    await socket.send_str(CONNECTED)
    await request.app[RELEASED].wait()
    return socket


@pytest.fixture
async def unresponsive_server() -> AsyncIterator[str]:
    """Start a server that never answers a close, and return its URL."""
    app = web.Application()
    app[RELEASED] = asyncio.Event()
    app.router.add_get("/socket.io/", _never_answer_a_close)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    app[RELEASED].set()
    await runner.cleanup()


async def test_connector_closes_abandoned_connections(
    unresponsive_server: str,
) -> None:
    connector = ClosingConnector()
    async with ClientSession(connector=connector) as http:
        abandoned = await http.ws_connect(f"{unresponsive_server}/socket.io/")
    [connection] = connector._opened
    assert connection.protocol is None
    assert abandoned.get_extra_info("socket") is None


def open_sessions() -> list[ClientSession]:
    return [o for o in gc.get_objects() if type(o) is ClientSession and not o.closed]


async def test_client_cancelled_twice_closes_its_session(
    unresponsive_server: str,
) -> None:
    before = open_sessions()
    counts = Counter[str]()
    client = SocketIOClient("client", "token", [unresponsive_server], random.Random(1), counts)
    async with background([client.run()]):  # cancels the client every second until it ends
        await eventually(lambda: counts["connections"], "connection")
    assert open_sessions() == before
