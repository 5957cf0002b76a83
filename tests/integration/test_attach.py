"""jobcast attached to an application's own Socket.IO server, beside its handlers."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec
import pytest
import socketio
import uvicorn
from socketio.packet import Packet

from jobcast import JobTarget
from jobcast.client import JobClient
from jobcast.errors import CancelRefused, ConnectionRefused, SettingsError
from jobcast.events import JobStatus
from jobcast.realtime import Gateway, attach, client_manager, create_app, revocations
from jobcast.settings import Settings
from jobcast.tokens import Subject
from jobcast.transports import Origin, Outgoing, open_publisher
from jobcast.transports.redis.names import Names as RedisNames
from jobcast.transports.revocations import Revocation
from tests.conftest import Valkey
from tests.support import SECRET, TIMEOUT, eventually, following, free_port, new_id

Token = Callable[..., str]


@asynccontextmanager
async def serve_app(app: Any) -> AsyncIterator[str]:
    port = free_port()
    server = uvicorn.Server(
        uvicorn.Config(app, port=port, log_config=None, ws="websockets-sansio", lifespan="auto")
    )
    task = asyncio.create_task(server.serve())
    await eventually(lambda: server.started, "server")
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await task


@pytest.fixture(params=["memory", "redis"])
def settings(request: pytest.FixtureRequest, valkey: Valkey) -> Settings:
    url = valkey.url if request.param == "redis" else f"memory://{new_id()}"
    return Settings(url=url, jwt_secret=SECRET)


async def publish_and_follow(
    url: str, settings: Settings, token: Token, namespace: str = "/"
) -> None:
    job_id = new_id()
    client = socketio.AsyncClient(reconnection=False, handle_sigint=False)
    received: list[Any] = []
    client.on("job_complete", received.append, namespace=namespace)
    await client.connect(
        url, auth={"token": token(jobs=[job_id])}, transports=["websocket"], namespaces=[namespace]
    )
    answer = await client.call("join_job", {"job_id": job_id}, namespace=namespace)
    assert answer["ok"]
    publisher = open_publisher(settings.url)
    publisher.emit("job_complete", {"result": 42}, room=f"job_{job_id}")
    await eventually(lambda: received, "end of the job")
    assert received[0]["result"] == 42
    publisher.close()
    await client.disconnect()
    async with JobClient(url, token(jobs=[job_id]), namespace=namespace) as own:
        assert await own.result(job_id) == 42


@pytest.mark.parametrize("namespace", ["/", "/jobs"])
@pytest.mark.parametrize("managed", [True, False])
async def test_attached_server_serves_jobs_beside_its_own_handlers(
    settings: Settings, token: Token, namespace: str, managed: bool
) -> None:
    manager = client_manager(settings) if managed else None
    sio = socketio.AsyncServer(async_mode="asgi", client_manager=manager)
    calls: list[tuple[Any, ...]] = []

    @sio.event(namespace=namespace)
    async def connect(sid: str, environ: dict[str, Any], auth: Any) -> None:
        calls.append(("connect", sid))

    @sio.event(namespace=namespace)
    def disconnect(sid: str) -> None:
        calls.append(("disconnect", sid))

    gateway = attach(sio, settings, namespace=namespace)
    async with serve_app(socketio.ASGIApp(sio)) as url:
        await publish_and_follow(url, settings, token, namespace)
        await eventually(lambda: len(calls) == 4, "both handlers of the application, twice")
        assert [name for name, _ in calls] == ["connect", "disconnect"] * 2
        await eventually(lambda: gateway.connections == 0, "end of the connection")
        assert gateway.relay.followed == 0
        await gateway.aclose()


async def test_attached_server_sends_pings_at_an_interval_that_is_set_later(
    settings: Settings, token: Token
) -> None:
    sio = socketio.AsyncServer(async_mode="asgi", ping_interval=3600)
    gateway = attach(sio, settings)
    sio.eio.ping_interval = 0.1
    async with (
        serve_app(socketio.ASGIApp(sio)) as url,
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{url}/socket.io/?EIO=4&transport=websocket") as socket,
        asyncio.timeout(TIMEOUT),
    ):
        await socket.send_str(f"40{json.dumps({'token': token()})}")
        while await socket.receive_str() != "2":
            continue
    await gateway.aclose()


@pytest.mark.parametrize("namespace", ["/", "/jobs"])
async def test_attached_server_cancels_jobs(
    settings: Settings, token: Token, namespace: str
) -> None:
    sio = socketio.AsyncServer(async_mode="asgi")
    gateway = attach(sio, settings, namespace=namespace)
    publisher = open_publisher(settings.url)
    waiting, running = new_id(), new_id()
    for job_id, status in ((waiting, "queued"), (running, "started")):
        event = JobStatus(job_id=job_id, status=status)
        publisher.publish([Outgoing.of(event, Origin("alice"))])
    client = socketio.AsyncClient(reconnection=False, handle_sigint=False)
    received: list[Any] = []
    client.on("job_error", received.append, namespace=namespace)
    client.on("job_status", received.append, namespace=namespace)

    async def cancel(job_id: str) -> Any:
        assert (await client.call("join_job", {"job_id": job_id}, namespace=namespace))["ok"]
        return await client.call(
            "cancel_job", {"job_id": job_id, "message": "wrong file"}, namespace=namespace
        )

    def of(job_id: str) -> list[Any]:
        return [event for event in received if event["job_id"] == job_id]

    async with serve_app(socketio.ASGIApp(sio)) as url:
        auth = {"token": token()}
        await client.connect(url, auth=auth, transports=["websocket"], namespaces=[namespace])
        assert await cancel(waiting) == {"ok": True, "job_id": waiting, "outcome": "cancelled"}
        await eventually(lambda: len(of(waiting)) == 2, "end of the waiting job")
        end = of(waiting)[-1]
        assert (end["reason"], end["by"], end["message"]) == ("cancelled", "alice", "wrong file")
        assert await cancel(running) == {
            "ok": True, "job_id": running, "outcome": "requested", "terminates": False,
        }  # fmt: skip
        await eventually(lambda: len(of(running)) == 2, "event of the request")
        assert (of(running)[-1]["status"], of(running)[-1]["by"]) == ("cancelling", "alice")
        await client.disconnect()
        async with JobClient(url, token(), namespace=namespace) as own:
            assert (await own.cancel(waiting)).outcome == "already_ended"
            assert (await own.cancel(running)).outcome == "requested"
        async with JobClient(url, token("bob", jobs=["*"]), namespace=namespace) as other:
            with pytest.raises(CancelRefused, match="may not cancel"):
                await other.cancel(running)
        await gateway.aclose()
    publisher.close()


async def test_attach_keeps_the_handlers_of_a_namespace_class(
    settings: Settings, token: Token
) -> None:
    calls: list[str] = []

    class Chat(socketio.AsyncNamespace):
        async def on_connect(self, sid: str, environ: dict[str, Any]) -> bool:
            calls.append("connect")
            return "chat" not in environ["QUERY_STRING"]

        async def on_say(self, sid: str, text: str) -> str:
            return text.upper()

    sio = socketio.AsyncServer(async_mode="asgi")
    sio.register_namespace(Chat("/"))
    gateway = attach(sio, settings)
    async with serve_app(socketio.ASGIApp(sio)) as url:
        async with following(url, token()) as alice:
            assert await alice.client.call("say", "hello") == "HELLO"
        with pytest.raises(socketio.exceptions.ConnectionError):
            async with following(f"{url}?chat=no", token()):
                pass
        assert calls == ["connect", "connect"]
        assert gateway.connections == 0
        await gateway.aclose()


async def test_pending_connections_count_towards_the_limit(
    token: Token,
) -> None:
    sio = socketio.AsyncServer(async_mode="asgi")
    called: list[str] = []
    decided = asyncio.Event()
    verdicts = [True, False, True]

    @sio.event
    async def connect(sid: str) -> bool:
        called.append(sid)
        await decided.wait()
        return verdicts.pop(0)

    settings = Settings(
        url=f"memory://{new_id()}", jwt_secret=SECRET, max_connections_per_subject=1
    )
    gateway = attach(sio, settings)

    async def connect_and_close() -> None:
        async with JobClient(url, token()):
            assert gateway.connections == 1

    async with serve_app(socketio.ASGIApp(sio)) as url:
        first = asyncio.create_task(connect_and_close())
        await eventually(lambda: called, "call of the connect handler")
        second = asyncio.create_task(connect_and_close())
        await eventually(
            lambda: second.done() or len(called) == 2, "outcome of the second connection"
        )
        decided.set()
        await first
        with pytest.raises(ConnectionRefused, match="a subject may have 1 connections") as caught:
            await second
        assert caught.value.code == "too_many_connections"
        await eventually(lambda: gateway.connections == 0, "end of the connection")
        # A connection that the application refuses no longer counts.
        with pytest.raises(ConnectionRefused):
            await connect_and_close()
        await connect_and_close()
        await gateway.aclose()


async def test_revocation_lost_in_an_interruption_is_read_after_it(
    own_valkey: Valkey, token: Token, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Only the interruption causes another read.
    monkeypatch.setattr(revocations, "RELOAD_INTERVAL", 24 * 3600)
    settings = Settings(url=own_valkey.url, jwt_secret=SECRET)
    sio = socketio.AsyncServer(async_mode="asgi", client_manager=client_manager(settings))
    gateway = attach(sio, settings)
    name = new_id("alice")
    async with serve_app(socketio.ASGIApp(sio)) as url:
        async with following(url, token(name)) as alice:
            assert (await alice.join(new_id()))["code"] == "job_not_found"  # the first read is done
            revocation = Revocation(sub=name, before=time.time() + 60, until=time.time() + 3600)
            key = RedisNames("jobcast").revoked
            own_valkey.command("ZADD", key, str(revocation.until), revocation.encode().decode())
            own_valkey.command("CLIENT", "KILL", "TYPE", "pubsub")
            await eventually(lambda: not alice.client.connected, "end of the connection")
            assert alice.transcript.events[-1][1]["code"] == "token_revoked"
        await gateway.aclose()


async def test_clients_of_the_application_outlive_the_gateway() -> None:
    sio = socketio.AsyncServer(async_mode="asgi")
    sio.on("echo", lambda _, text: text)
    settings = Settings(url=f"memory://{new_id()}", jwt_secret=SECRET)
    gateway = attach(sio, settings, namespace="/jobs")
    async with serve_app(socketio.ASGIApp(sio)) as url, aiohttp.ClientSession() as http:
        client = socketio.AsyncClient(reconnection=False, http_session=http)
        await client.connect(url, transports=["websocket"])
        gateway.start()
        await gateway.aclose()
        assert await client.call("echo", "hello", timeout=TIMEOUT) == "hello"
        await client.disconnect()


async def test_unauthenticated_connection_never_reaches_the_application(
    settings: Settings,
) -> None:
    sio = socketio.AsyncServer(async_mode="asgi")
    calls: list[str] = []
    sio.on("connect", lambda sid, _environ: calls.append(sid))
    gateway = attach(sio, settings)
    async with serve_app(socketio.ASGIApp(sio)) as url:
        with pytest.raises(socketio.exceptions.ConnectionError):
            async with following(url, "garbage"):
                pass
        await gateway.aclose()
    assert calls == []


async def test_rooms_emit_and_disconnect_work_across_processes(
    valkey: Valkey, token: Token
) -> None:
    settings = Settings(url=valkey.url, jwt_secret=SECRET)
    apps = [create_app(settings), create_app(settings)]
    job_id = new_id()
    async with serve_app(apps[0]) as here, serve_app(apps[1]) as there:
        async with (
            following(here, token(jobs=["*"])) as one,
            following(there, token(jobs=["*"])) as two,
        ):
            for client in (one, two):
                await client.join(job_id)
            sio = apps[0].state.sio
            await sio.emit("news", {"for": "all"})
            await sio.emit("news", {"for": "the room"}, room=f"job_{job_id}")
            # A jobcast event gets a seq and is stored in the history.
            await sio.emit("job_log", {"level": "info", "message": "x"}, room=f"job_{job_id}")
            for client in (one, two):
                await client.transcript.wait_logged(job_id, 1)
                assert [name for name, _ in client.transcript.events][1:3] == ["news", "news"]
                assert client.transcript.of(job_id, "job_log")[0]["seq"] == 1
            await sio.disconnect(two.client.get_sid())
            await eventually(lambda: not two.client.connected, "disconnection")
            assert one.client.connected


def allow_listed_jobs(subject: Subject, action: str, target: JobTarget) -> bool:
    """Allow the jobs that the token lists: a rule for JOBCAST_AUTHORIZE."""
    assert (action, target.owner) == ("follow", None)
    return target.id in subject.jobs


@pytest.fixture(params=["memory", "redis", "rabbitmq"])
def any_settings(request: pytest.FixtureRequest) -> Settings:
    if request.param == "memory":
        return Settings(url=f"memory://{new_id()}", jwt_secret=SECRET)
    server = request.getfixturevalue("valkey" if request.param == "redis" else "rabbitmq")
    return Settings(url=server.url, jwt_secret=SECRET)


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("managed", [True, False])
def test_attached_server_serves_several_event_loops_in_turn(
    any_settings: Settings, token: Token, managed: bool, closed: bool
) -> None:
    manager = client_manager(any_settings) if managed else None
    sio = socketio.AsyncServer(async_mode="asgi", client_manager=manager)
    gateway = attach(sio, any_settings)

    async def serve() -> None:
        async with serve_app(socketio.ASGIApp(sio)) as url:
            await publish_and_follow(url, any_settings, token)
            await eventually(lambda: gateway.connections == 0, "end of the connection")
            assert gateway.relay.followed == 0
            if closed:
                await gateway.aclose()

    for _ in range(3):
        asyncio.run(serve())
    asyncio.run(gateway.aclose())


def test_application_serves_several_event_loops_in_turn(
    any_settings: Settings, token: Token
) -> None:
    # A synchronous rule runs in threads that stop with the application.
    settings = msgspec.structs.replace(
        any_settings, authorize=f"{__name__}:{allow_listed_jobs.__name__}"
    )
    app = create_app(settings)

    async def serve() -> None:
        async with serve_app(app) as url:
            await publish_and_follow(url, any_settings, token)

    for _ in range(3):
        asyncio.run(serve())


async def open_and_leave_open(app: Any, *packets: str) -> None:
    """Open a WebSocket of an ASGI application in process, and leave it open.

    The last packet must be a request; wait for its answer.
    """
    sent: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    received: list[str] = []
    for message in ("websocket.connect", *packets):
        is_packet = message in packets
        text = {"text": message} if is_packet else {}
        sent.put_nowait({"type": "websocket.receive" if is_packet else message, **text})

    async def send(message: dict[str, Any]) -> None:
        received.append(message.get("text", ""))

    scope = {
        "type": "websocket", "path": "/socket.io/", "query_string": b"EIO=4&transport=websocket",
        "headers": [(b"connection", b"upgrade"), (b"upgrade", b"websocket")],
        "client": ("testclient", 50000), "asgi": {"version": "3.0"},
    }  # fmt: skip
    task = asyncio.create_task(app(scope, sent.get, send))
    await eventually(lambda: any(text.startswith("430") for text in received), "answer")
    assert not task.done()


@pytest.mark.parametrize("closes_loop", [True, False])
@pytest.mark.parametrize("managed", [True, False])
def test_connections_of_a_former_event_loop_are_dropped(
    any_settings: Settings, token: Token, managed: bool, closes_loop: bool
) -> None:
    manager = client_manager(any_settings) if managed else None
    sio = socketio.AsyncServer(async_mode="asgi", client_manager=manager)
    disconnected: list[str] = []
    sio.on("disconnect", lambda sid: disconnected.append(sid))
    gateway = attach(sio, any_settings)

    async def connect_in_former_loop() -> None:
        """Open a connection that outlives the loop."""
        await open_and_leave_open(
            socketio.ASGIApp(sio),
            f"40{json.dumps({'token': token(jobs=['*'])})}",
            f"420{json.dumps(['join_job', {'job_id': new_id()}])}",
        )
        assert gateway.connections == gateway.relay.followed == 1

    async def serve() -> None:
        async with serve_app(socketio.ASGIApp(sio)) as url:
            await publish_and_follow(url, any_settings, token)
            await eventually(lambda: len(disconnected) == 3, "end of all connections")
            assert gateway.connections == gateway.relay.followed == gateway.guard.waiting == 0
            await eventually(lambda: not sio.eio.sockets, "end of the sockets")
            assert sio.manager.rooms.get("/", {}) == {}
            await gateway.aclose()

    with asyncio.Runner() as former:
        former.run(connect_in_former_loop())
        if closes_loop:  # a session-scoped test loop is only suspended
            former.close()
        asyncio.run(serve())


@pytest.mark.parametrize("closed", [True, False])
def test_emit_reaches_other_processes_in_several_event_loops_in_turn(
    any_settings: Settings, token: Token, closed: bool
) -> None:
    here, there = (
        socketio.AsyncServer(async_mode="asgi", client_manager=client_manager(any_settings))
        for _ in range(2)
    )
    gateways = [attach(sio, any_settings) for sio in (here, there)]

    async def serve() -> None:
        async with serve_app(socketio.ASGIApp(there)) as url, following(url, token()) as alice:
            gateways[0].start()
            await eventually(lambda: all(gateway.ready for gateway in gateways), "transport")
            await here.emit("news", {"for": "all"})
            await eventually(lambda: alice.transcript.events, "news")
        if closed:
            for gateway, sio in zip(gateways, (here, there), strict=True):
                await gateway.aclose()
                await sio.manager.aclose()

    for _ in range(3):
        asyncio.run(serve())


async def test_application_serves_again_after_a_shutdown(
    any_settings: Settings, token: Token
) -> None:
    app = create_app(any_settings)
    for _ in range(3):
        async with serve_app(app) as url:
            await publish_and_follow(url, any_settings, token)


@pytest.mark.parametrize("changes", [{}, {"jwt_secret": None}])
def test_server_without_authentication_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="JOBCAST_JWT_SECRET"):
        create_app(Settings(url="memory://", **changes))
    with pytest.raises(SettingsError, match="JOBCAST_JWT_SECRET"):
        attach(socketio.AsyncServer(async_mode="asgi"), Settings(url="memory://", **changes))


def test_attach_refuses_another_serializer() -> None:
    class OtherPacket(Packet):  # the "msgpack" serializer is another packet class
        pass

    sio = socketio.AsyncServer(async_mode="asgi", serializer=OtherPacket)
    with pytest.raises(SettingsError, match="serializer"):
        attach(sio, Settings(url="memory://", jwt_secret=SECRET))


async def test_closed_connections_leave_no_state(token: Token) -> None:
    app = create_app(Settings(url=f"memory://{new_id()}", jwt_secret=SECRET))
    gateway: Gateway = app.state.gateway
    sio = app.state.sio
    async with serve_app(app) as url:
        for _ in range(5):
            async with following(url, token(jobs=["*"])) as alice:
                for _ in range(5):
                    await alice.join(new_id())
                assert gateway.relay.followed == 5
                assert gateway.connections == 1
            await eventually(lambda: gateway.connections == 0, "end of the connection")
        assert gateway.relay.followed == 0
        assert sio.manager.rooms.get("/", {}) == {}
        assert gateway.guard.waiting == 0
        await eventually(lambda: not sio.eio.sockets, "end of the sockets")
