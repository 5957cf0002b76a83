"""The server's main loop: it ends at once on a signal, and keeps the ``Date`` header current."""

from __future__ import annotations

import asyncio
import signal

import pytest
import uvicorn
from starlette.applications import Starlette

from jobcast.server import uvicorn_server
from jobcast.server.uvicorn_server import Server
from tests.support import TIMEOUT, eventually


@pytest.fixture
def server() -> Server:
    return Server(uvicorn.Config(Starlette()))


async def test_signal_ends_the_main_loop_without_a_tick(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uvicorn_server, "TICK", 10 * TIMEOUT)
    running = asyncio.create_task(server.main_loop())
    await eventually(lambda: server.server_state.default_headers, "the first tick")
    server.handle_exit(signal.SIGTERM, None)
    async with asyncio.timeout(TIMEOUT):
        await running


async def test_signal_before_the_main_loop_ends_it(server: Server) -> None:
    server.handle_exit(signal.SIGTERM, None)
    async with asyncio.timeout(TIMEOUT):
        await server.main_loop()


async def test_each_tick_updates_the_date_header(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uvicorn_server, "TICK", 0.001)
    running = asyncio.create_task(server.main_loop())
    await eventually(lambda: server.server_state.default_headers, "the first tick")
    server.server_state.default_headers = []
    await eventually(lambda: server.server_state.default_headers, "another tick")
    assert server.server_state.default_headers[0][0] == b"date"
    server.handle_exit(signal.SIGTERM, None)
    await running
