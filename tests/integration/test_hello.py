"""``hello`` is the first event of every accepted connection."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import aiohttp
import pytest
import socketio

from jobcast.client import JobClient
from jobcast.realtime import attach, client_manager
from jobcast.settings import Settings
from tests.e2e.raw import raw_client
from tests.integration.test_attach import serve_app
from tests.support import SECRET, TIMEOUT, Server, eventually, following, new_id
from tests.support.scripted_server import scripted_server

Token = Callable[..., str]

REQUESTS = [
    "join_job", "leave_job", "cancel_job", "refresh_token", "join_feed", "leave_feed",
]  # fmt: skip
ATTACHED_HELLO = {
    "protocol": 1,
    "server": f"jobcast/{version('jobcast')}",
    "features": REQUESTS,
}
HELLO = ATTACHED_HELLO | {"features": [*REQUESTS, "http"]}  # of `jobcast serve`


def is_hello(packet: str) -> bool:
    return packet.startswith("42") and json.loads(packet[2:]) == ["hello", HELLO]


async def test_hello_directly_follows_the_connect_packet_on_a_websocket(
    server: Server, token: Token, job_id: str
) -> None:
    async with raw_client(server.url, token(jobs=[job_id])) as client:
        await client.join(job_id)
        _, connected, hello, joined, *_ = client.packets
        assert connected.startswith("40")
        assert is_hello(hello)
        assert joined.startswith('42["joined"')
        assert len(client.events("hello")) == 1


async def test_hello_directly_follows_the_connect_packet_in_a_poll(
    server: Server, token: Token
) -> None:
    url = f"{server.url}/socket.io/?EIO=4&transport=polling"
    timeout = aiohttp.ClientTimeout(TIMEOUT)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        async with session.get(url) as answer:
            sid = json.loads((await answer.text())[1:])["sid"]
        auth = json.dumps({"token": token()})
        async with session.post(f"{url}&sid={sid}", data=f"40{auth}") as answer:
            assert answer.status == 200
        async with session.get(f"{url}&sid={sid}") as answer:
            connected, hello, *_ = (await answer.text()).split("\x1e")
    assert connected.startswith("40")
    assert is_hello(hello)


@pytest.mark.parametrize("transport", ["websocket", "polling"])
async def test_pythons_stock_client_receives_hello_first(
    server: Server, token: Token, transport: str, job_id: str
) -> None:
    async with following(server.url, token(jobs=[job_id]), (transport,)) as follower:
        await follower.join(job_id)
        assert follower.transcript.hello == HELLO
        assert [name for name, _ in follower.transcript.events] == ["joined"]


@pytest.mark.parametrize("namespace", ["/", "/jobs"])
@pytest.mark.parametrize("always_connect", [False, True])
@pytest.mark.parametrize("managed", [False, True])
async def test_hello_precedes_what_an_attached_application_emits(
    token: Token, namespace: str, always_connect: bool, managed: bool
) -> None:
    settings = Settings(url=f"memory://{new_id()}", jwt_secret=SECRET)
    manager = client_manager(settings) if managed else None
    sio = socketio.AsyncServer(
        async_mode="asgi", client_manager=manager, always_connect=always_connect
    )
    emits: set[asyncio.Task[None]] = set()

    @sio.event(namespace=namespace)
    def connect(sid: str) -> None:
        emits.add(asyncio.create_task(sio.emit("note", {}, to=sid, namespace=namespace)))

    gateway = attach(sio, settings, namespace=namespace)
    client = socketio.AsyncClient(reconnection=False, handle_sigint=False)
    events: list[tuple[str, Any]] = []

    def record(name: str, payload: Any) -> None:
        events.append((name, payload))

    client.on("*", record, namespace=namespace)
    async with serve_app(socketio.ASGIApp(sio)) as url:
        await client.connect(
            url, auth={"token": token()}, transports=["websocket"], namespaces=[namespace]
        )
        await eventually(lambda: len(events) == 2, "both events")
        assert events == [("hello", ATTACHED_HELLO), ("note", {})]
        await client.disconnect()
        await gateway.aclose()


async def test_every_namespace_that_a_client_connects_to_sends_its_hello(token: Token) -> None:
    settings = Settings(url=f"memory://{new_id()}", jwt_secret=SECRET)
    sio = socketio.AsyncServer(async_mode="asgi")
    sio.on("connect", lambda *_: None, namespace="/chat")
    gateway = attach(sio, settings, namespace="/jobs")
    client = socketio.AsyncClient(reconnection=False, handle_sigint=False)
    events: list[tuple[str, str]] = []
    for namespace in ("/jobs", "/chat"):
        client.on(
            "*", lambda name, *_, at=namespace: events.append((at, name)), namespace=namespace
        )
    async with serve_app(socketio.ASGIApp(sio)) as url:
        await client.connect(
            url, auth={"token": token()}, transports=["websocket"], namespaces=["/chat", "/jobs"]
        )
        await sio.emit("note", namespace="/chat")
        await eventually(lambda: len(events) == 2, "both events")
        assert set(events) == {("/jobs", "hello"), ("/chat", "note")}
        await client.disconnect()
        await gateway.aclose()


async def test_refused_connection_receives_no_hello(server: Server) -> None:
    events: list[str] = []
    client = socketio.AsyncClient(reconnection=False, handle_sigint=False)
    client.on("*", lambda name, *_: events.append(name))
    refused = asyncio.Event()
    client.on("connect_error", lambda _: refused.set())
    with pytest.raises(socketio.exceptions.ConnectionError):
        await client.connect(server.url, auth={"token": "garbage"}, transports=["websocket"])
    assert refused.is_set()
    assert events == []
    await client.disconnect()


async def test_client_knows_the_features_of_the_server(server: Server, token: Token) -> None:
    async with JobClient(server.url, token()) as client:
        await eventually(lambda: client.features is not None, "hello")
        assert client.features == frozenset([*REQUESTS, "http"])


async def test_client_follows_jobs_of_a_server_without_hello() -> None:
    async with scripted_server() as server, JobClient(server.url, "token") as client:
        event = await anext(client.follow("a"))
        assert event.job_id == "a"
        assert client.features is None
