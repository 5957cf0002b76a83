"""jobcast's uvicorn protocols with limits, on both event loops."""

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

INVALID_FRAME = b"GET / HTTP/1.1\r\n\r\n"  # its first byte has an unknown opcode

Case = Callable[[], Awaitable[None]]


@pytest.fixture(params=[uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
def run(request: pytest.FixtureRequest) -> Callable[[Case], None]:
    """Return a function that runs a coroutine and fails if the loop reports an exception."""

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
async def serve_app(app: Any) -> AsyncIterator[tuple[str, uvicorn.Server]]:
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
    """uvicorn cannot send a close frame before that and fails an assertion."""
    received: list[Message] = []

    async def case() -> None:
        called, sent = asyncio.Event(), asyncio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            assert scope["type"] == "websocket"
            await receive()
            called.set()
            await sent.wait()
            await send({"type": "websocket.accept"})
            received.append(await receive())

        async with serve_app(app) as (url, server), Wire(url) as client:
            await client.send(upgrade())
            await called.wait()
            await client.send(INVALID_FRAME)
            for _ in range(100):  # iterations of the loop, in which frames would be read
                await asyncio.sleep(0)
            sent.set()
            assert " 101 " in await client.read_head()
            assert b"\x03\xea" in await client.read_to_the_end()  # 1002, a protocol error
            await eventually(lambda: not server.server_state.tasks, "end of the application")

    run(case)
    assert [message["type"] for message in received] == ["websocket.disconnect"]
    assert not errors(caplog)


def test_connection_keeps_only_the_headers_of_its_scope(run: Callable[[Case], None]) -> None:
    kept: list[int] = []

    async def case() -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            protocol: Any = receive.__self__  # type: ignore[attr-defined]

            def count_headers() -> list[int]:
                handshake = protocol.request.headers, protocol.response.headers
                return [len([*headers.raw_items()]) for headers in handshake]

            await receive()
            before = count_headers()
            await send({"type": "websocket.accept"})
            kept.extend([min(before), *count_headers(), len(scope["headers"]) - before[0]])
            await send({"type": "websocket.close"})

        async with serve_app(app) as (url, _), Wire(url) as client:
            await client.send(upgrade())
            assert "sec-websocket-accept" in (await client.read_head()).lower()
            await client.read_to_the_end()

    run(case)
    assert kept[0] > 0
    assert kept[1:] == [0, 0, 0]


def test_messages_are_read_after_the_application_has_accepted(run: Callable[[Case], None]) -> None:
    received: list[Message] = []

    async def case() -> None:
        async def app(_: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send({"type": "websocket.accept"})
            received.extend([await receive(), await receive()])
            await send({"type": "websocket.send", "text": "answer"})

        async with serve_app(app) as (url, _), Wire(url) as client:
            await client.send(upgrade())
            await client.read_head()
            await client.send(frame(wire.TEXT, b"one") + frame(wire.TEXT, b"two"))
            assert b"answer" in await client.read_to_the_end()

    run(case)
    assert [message.get("text") for message in received] == ["one", "two"]


def test_response_to_a_lost_connection_is_dropped(
    run: Callable[[Case], None], caplog: pytest.LogCaptureFixture
) -> None:
    """The connection of two pipelined requests is lost during the first one."""

    async def case() -> None:
        called, lost = asyncio.Event(), asyncio.Event()

        async def app(_: Scope, __: Receive, send: Send) -> None:
            called.set()
            await lost.wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"late"})

        async with serve_app(app) as (url, server):
            client = await Wire(url).open()
            await client.send(request("GET", "/") * 2)
            await called.wait()
            [protocol] = server.server_state.connections
            protocol.transport.abort()
            await eventually(lambda: not server.server_state.connections, "loss of the connection")
            lost.set()
            await eventually(lambda: not server.server_state.tasks, "end of the application")
            client.close()

    run(case)
    assert not errors(caplog)


def test_rejection_of_a_lost_websocket_is_dropped(
    run: Callable[[Case], None], caplog: pytest.LogCaptureFixture
) -> None:
    async def case() -> None:
        called, lost = asyncio.Event(), asyncio.Event()

        async def app(_: Scope, receive: Receive, send: Send) -> None:
            await receive()
            called.set()
            await lost.wait()
            await send({"type": "websocket.close"})

        async with serve_app(app) as (url, server):
            client = await Wire(url).open()
            await client.send(upgrade())
            await called.wait()
            [protocol] = server.server_state.connections
            protocol.transport.abort()
            lost.set()
            await eventually(lambda: not server.server_state.tasks, "end of the application")
            client.close()

    run(case)
    assert not errors(caplog)
