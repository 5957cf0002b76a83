"""uvicorn's protocols with limits, on both event loops."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
import uvloop
from starlette.types import Message, Receive, Scope, Send

from jobcast.realtime.connection.uvicorn import LimitedHttpProtocol
from tests.support import TIMEOUT, eventually, free_port, wire
from tests.support.wire import Wire, frame, request, upgrade

NONSENSE = b"GET / HTTP/1.1\r\n\r\n"  # no frame: an unknown opcode

Case = Callable[[], Awaitable[None]]


@pytest.fixture(params=[uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
def run(request: pytest.FixtureRequest) -> Callable[[Case], None]:
    """Runs a coroutine, and fails if the event loop has to report an exception."""

    def run_on_loop(case: Case) -> None:
        reports: list[Any] = []
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.get_loop().set_exception_handler(lambda _, report: reports.append(report))

            async def timed() -> None:
                async with asyncio.timeout(TIMEOUT):
                    await case()

            runner.run(timed())
        assert not reports

    return run_on_loop


@asynccontextmanager
async def served(app: Any) -> AsyncIterator[tuple[str, uvicorn.Server]]:
    port = free_port()
    config = uvicorn.Config(
        app, port=port, http=LimitedHttpProtocol, ws="websockets-sansio", lifespan="off",
        log_config=None,
    )  # fmt: skip
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    await eventually(lambda: server.started, "server")
    try:
        yield f"http://127.0.0.1:{port}", server
    finally:
        server.should_exit = True
        await serving


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


def test_frames_wait_until_the_application_accepts(
    run: Callable[[Case], None], caplog: pytest.LogCaptureFixture
) -> None:
    """uvicorn asserts otherwise: it cannot send a close frame before that."""
    received: list[Message] = []

    async def case() -> None:
        asked, sent = asyncio.Event(), asyncio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            assert scope["type"] == "websocket"
            await receive()
            asked.set()
            await sent.wait()
            await send({"type": "websocket.accept"})
            received.append(await receive())

        async with served(app) as (url, server), Wire(url) as client:
            await client.send(upgrade())
            await asked.wait()
            await client.send(NONSENSE)
            for _ in range(100):  # turns of the loop, in which they would be read
                await asyncio.sleep(0)
            sent.set()
            assert " 101 " in await client.read_head()
            assert b"\x03\xea" in await client.read_to_the_end()  # 1002, a protocol error
            await eventually(lambda: not server.server_state.tasks, "end of the application")

    run(case)
    assert [message["type"] for message in received] == ["websocket.disconnect"]
    assert not errors(caplog)


def test_messages_are_read_after_the_application_has_accepted(run: Callable[[Case], None]) -> None:
    received: list[Message] = []

    async def case() -> None:
        async def app(_: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send({"type": "websocket.accept"})
            received.extend([await receive(), await receive()])
            await send({"type": "websocket.send", "text": "answer"})

        async with served(app) as (url, _), Wire(url) as client:
            await client.send(upgrade())
            await client.read_head()
            await client.send(frame(wire.TEXT, b"one") + frame(wire.TEXT, b"two"))
            assert b"answer" in await client.read_to_the_end()

    run(case)
    assert [message.get("text") for message in received] == ["one", "two"]


def test_an_answer_to_a_connection_that_is_lost_is_dropped(
    run: Callable[[Case], None], caplog: pytest.LogCaptureFixture
) -> None:
    """The first of two requests on one connection, which is lost meanwhile."""

    async def case() -> None:
        asked, gone = asyncio.Event(), asyncio.Event()

        async def app(_: Scope, __: Receive, send: Send) -> None:
            asked.set()
            await gone.wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"late"})

        async with served(app) as (url, server):
            client = await Wire(url).open()
            await client.send(request("GET", "/") * 2)
            await asked.wait()
            [protocol] = server.server_state.connections
            protocol.transport.abort()
            await eventually(lambda: not server.server_state.connections, "loss of the connection")
            gone.set()
            await eventually(lambda: not server.server_state.tasks, "end of the application")
            client.close()

    run(case)
    assert not errors(caplog)


def test_an_answer_to_a_websocket_that_is_lost_is_dropped(
    run: Callable[[Case], None], caplog: pytest.LogCaptureFixture
) -> None:
    async def case() -> None:
        asked, gone = asyncio.Event(), asyncio.Event()

        async def app(_: Scope, receive: Receive, send: Send) -> None:
            await receive()
            asked.set()
            await gone.wait()
            await send({"type": "websocket.close"})

        async with served(app) as (url, server):
            client = await Wire(url).open()
            await client.send(upgrade())
            await asked.wait()
            [protocol] = server.server_state.connections
            protocol.transport.abort()
            gone.set()
            await eventually(lambda: not server.server_state.tasks, "end of the application")
            client.close()

    run(case)
    assert not errors(caplog)
