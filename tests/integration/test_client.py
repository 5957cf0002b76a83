"""The asyncio client against the real server."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import socketio
from aiohttp import web
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from jobcast.aio import RANDOM
from jobcast.client import ConnectionState, JobClient
from jobcast.client.followed import MEMORY
from jobcast.errors import ConnectionRefused, InvalidJobId, JobFailed, JoinRefused
from jobcast.events import JobEvent, JobGap, JobLog
from jobcast.realtime import attach, client_manager
from jobcast.transports import Retention, TransportPublisher, open_publisher
from tests.conftest import Valkey
from tests.support import (
    SHORT_LIVED,
    TIMEOUT,
    Server,
    eventually,
    free_port,
    new_id,
    next_event,
    running,
)

Token = Callable[..., str]


class Job:
    """A job whose events the test publishes."""

    def __init__(self, publisher: TransportPublisher) -> None:
        self.id = new_id()
        self._publisher = publisher

    def log(self, message: str) -> None:
        self.emit("job_log", level="info", message=message)

    def emit(self, event: str, **data: object) -> None:
        self._publisher.emit(event, data, room=f"job_{self.id}")


@pytest.fixture
def job(valkey: Valkey) -> Iterator[Job]:
    publisher = open_publisher(valkey.url)
    yield Job(publisher)
    publisher.close()


class Reader:
    """Collects a job's events in a background task."""

    def __init__(self, client: JobClient, job_id: str) -> None:
        self.events: list[JobEvent] = []
        self.gaps: list[JobGap] = []
        self.task = asyncio.create_task(self._read(client, job_id))

    async def _read(self, client: JobClient, job_id: str) -> None:
        async for event in client.follow(job_id):
            if isinstance(event, JobGap):
                self.gaps.append(event)
            else:
                self.events.append(event)

    @property
    def lines(self) -> list[str]:
        return [event.message for event in self.events if isinstance(event, JobLog)]


async def test_follow_yields_history_and_live_events_to_the_end(
    server: Server, job: Job, token: Token
) -> None:
    job.log("early")
    async with JobClient(server.url, token(jobs=[job.id])) as client:
        reader = Reader(client, job.id)
        await eventually(lambda: reader.lines == ["early"], "history")
        job.log("late")
        job.emit("job_complete", result={"rows": 3})
        await reader.task
        assert reader.lines == ["early", "late"]
        assert reader.events[-1].name == "job_complete"
        assert await client.result(job.id) == {"rows": 3}


async def test_result_raises_the_failure_of_a_job(server: Server, job: Job, token: Token) -> None:
    job.emit("job_error", error="KeyError", message="no such row", reason="failure")
    async with JobClient(server.url, token(jobs=["*"])) as client:
        with pytest.raises(JobFailed, match="no such row") as caught:
            await client.result(job.id)
        assert (caught.value.error, caught.value.reason) == ("KeyError", "failure")


async def test_followers_of_one_job_share_a_join_until_the_last_one_leaves(
    server: Server, valkey: Valkey, job: Job, token: Token
) -> None:
    def subscribers() -> int:
        return int(valkey.command("PUBSUB", "NUMSUB", f"jobcast:{{{job.id}}}:live")[1])

    async with JobClient(server.url, token(jobs=["*"])) as client:
        job.log("one")
        first = Reader(client, job.id)
        await eventually(lambda: first.lines == ["one"], "line")
        async with aclosing(client.follow(job.id)) as events:
            assert (await next_event(events)).seq == 1
            job.log("two")
            assert (await next_event(events)).seq == 2
        await eventually(lambda: server.log.count(f"joined {job.id}") == 1, "log line of the join")
        assert subscribers() == 1
        first.task.cancel()
        await eventually(lambda: subscribers() == 0, "end of the subscription")
        await eventually(lambda: f"left {job.id}" in server.log, "log line of the leave")


@pytest.fixture
def long_job(valkey: Valkey) -> Iterator[Job]:
    """A job whose stored history is longer than a client's memory."""
    publisher = open_publisher(valkey.url, Retention(size=5 * MEMORY))
    yield Job(publisher)
    publisher.close()


async def test_later_follower_receives_the_whole_history_of_the_server(
    server: Server, long_job: Job, token: Token
) -> None:
    lines = [str(n) for n in range(MEMORY + 200)]
    for line in lines:
        long_job.log(line)
    async with JobClient(server.url, token(jobs=["*"])) as client:
        first = Reader(client, long_job.id)
        await eventually(lambda: len(first.lines) == len(lines), "lines")
        others = [Reader(client, long_job.id) for _ in range(2)]
        long_job.log("live")
        await eventually(lambda: all(len(o.lines) > len(lines) for o in others), "lines again")
        long_job.emit("job_complete", result=None)
        for reader in (first, *others):
            await reader.task
            assert reader.lines == [*lines, "live"]
            assert [event.seq for event in reader.events] == list(range(1, len(lines) + 3))


async def test_follower_that_starts_during_an_outage_receives_the_whole_history(
    valkey: Valkey, long_job: Job, token: Token, tmp_path: Path
) -> None:
    lines = [str(n) for n in range(MEMORY + 200)]
    for line in lines:
        long_job.log(line)
    with running(Server(tmp_path / "log", valkey.url)) as server:
        server.ready()
        async with JobClient(server.url, token(jobs=["*"])) as client:
            first = Reader(client, long_job.id)
            await eventually(lambda: len(first.lines) == len(lines), "lines")
            server.kill()
            second = Reader(client, long_job.id)
            server.start()
            await eventually(lambda: second.lines, "lines again")
            long_job.emit("job_complete", result=None)
            for reader in (first, second):
                await reader.task
                assert reader.lines == lines


async def test_statuses_and_a_gap_precede_the_lines_of_a_trimmed_history(
    server: Server, valkey: Valkey, token: Token
) -> None:
    publisher = open_publisher(valkey.url, Retention(size=10))
    job = Job(publisher)
    job.emit("job_status", status="started")
    for n in range(500):  # a store may keep more than the retention
        job.log(str(n))
    async with JobClient(server.url, token(jobs=["*"])) as client:
        assert client.status(job.id) is None
        reader = Reader(client, job.id)
        await eventually(lambda: "499" in reader.lines, "remaining lines")
        names = [event.name for event in reader.events]
        assert names == ["job_status", *["job_log"] * len(reader.lines)]
        assert [(gap.after, gap.before) for gap in reader.gaps] == [(0, reader.events[1].seq)]
        assert client.status(job.id) == "started"
        job.emit("job_status", status="retrying")
        await eventually(lambda: reader.events[-1].name == "job_status", "status")
        assert client.status(job.id) == "retrying"
        job.emit("job_complete", result=None)
        await reader.task
        assert client.status(job.id) is None
    publisher.close()


async def test_large_result_arrives(server: Server, job: Job, token: Token) -> None:
    result = "x" * 5 * 1024 * 1024
    job.emit("job_complete", result=result)
    async with JobClient(server.url, token(jobs=["*"])) as client, asyncio.timeout(TIMEOUT):
        assert await client.result(job.id) == result


@asynccontextmanager
async def plain_server(join: Callable[..., Any], path: str = "socket.io") -> AsyncIterator[str]:
    """Run a Socket.IO server whose join handler is the test's."""
    sio = socketio.AsyncServer(async_mode="aiohttp")
    sio.on("join_job", join)
    app = web.Application()
    sio.attach(app, socketio_path=path)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await sio.shutdown()
        await runner.cleanup()


async def test_connections_without_an_answer_back_off(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[float] = []

    def uniform(low: float, high: float) -> float:
        limits.append(high)
        return low

    monkeypatch.setattr(RANDOM, "uniform", uniform)
    sids: list[str] = []

    async def join(sid: str, request: dict[str, Any]) -> dict[str, Any]:
        sids.append(sid)
        if len(sids) < 5:
            asyncio.get_running_loop().call_soon(client._connection.reconnect)
            await asyncio.Event().wait()  # no answer
        return {
            "ok": True, "job_id": request["job_id"], "status": "pending", "epoch": "", "seq": 0,
            "recovered": False,
        }  # fmt: skip

    async with plain_server(join) as url, JobClient(url, "t") as client:
        reader = Reader(client, job.id)
        await eventually(lambda: len(sids) == 5, "answered join")
        assert limits == [0.1, 0.2, 0.4, 0.8]
        await eventually(lambda: client._connection._backoff.failures == 0, "answer")
        client._connection.reconnect()
        await eventually(lambda: len(sids) == 6, "next connection")
        assert limits[4:] == [0.1]
        reader.task.cancel()


async def test_path_in_the_url_precedes_the_socketio_path(job: Job) -> None:
    def join(*_: Any) -> dict[str, Any]:
        return {"ok": False, "code": "job_not_found", "message": "of the test"}

    async with plain_server(join, "x/y/socket.io") as url:
        for base_url in (f"{url}/x/y", f"{url}/x/y/"):
            async with JobClient(base_url, "t") as client:
                with pytest.raises(JoinRefused, match="of the test"):
                    await client.result(job.id)


async def test_follower_of_a_second_run_does_not_receive_the_end_of_the_first(
    server: Server, job: Job, token: Token
) -> None:
    async with JobClient(server.url, token(jobs=["*"])) as client:
        job.emit("job_progress", percentage=50, message="of the first run")
        slow = client.follow(job.id)  # an open follower keeps the job's events in the client
        assert (await anext(slow)).name == "job_progress"
        job.emit("job_error", error="KeyError", message="no such row", reason="failure")
        job.emit("job_status", status="started")
        job.log("again")
        await eventually(lambda: client._jobs._followed[job.id].seq == 4, "second run")
        reader = Reader(client, job.id)
        await eventually(lambda: reader.lines == ["again"], "line of the second run")
        assert [event.name for event in reader.events] == ["job_status", "job_log"]
        job.emit("job_complete", result="at last")
        await reader.task
        assert reader.events[-1].name == "job_complete"
        assert await client.result(job.id) == "at last"
        assert [event.name async for event in slow] == ["job_error"]  # it followed the first run


async def test_refusals_are_raised(server: Server, job: Job, token: Token) -> None:
    for bad, code in (("garbage", "token_invalid"), (token(ttl=-60), "token_expired")):
        with pytest.raises(ConnectionRefused) as refused:
            async with JobClient(server.url, bad):
                pass
        assert refused.value.code == code
    states: list[ConnectionState] = []
    with pytest.raises(ConnectionRefused) as unreachable:
        async with JobClient(f"http://127.0.0.1:{free_port()}", token(), on_state=states.append):
            pass
    assert unreachable.value.code == "unreachable"
    assert states == ["connecting", "closed"]
    job.log("not yours")
    async with JobClient(server.url, token()) as client:
        with pytest.raises(JoinRefused) as join:
            await client.result(job.id)
        assert (join.value.job_id, join.value.code) == (job.id, "job_not_found")
        with pytest.raises(InvalidJobId):
            await client.result("not an id")


async def test_client_resumes_after_the_server_was_killed(
    valkey: Valkey, job: Job, token: Token, tmp_path: Path
) -> None:
    states: list[ConnectionState] = []
    with running(Server(tmp_path / "log", valkey.url)) as server:
        server.ready()
        tokens: list[str] = []

        async def make_token() -> str:
            tokens.append(token(jobs=["*"]))
            return tokens[-1]

        async with JobClient(server.url, make_token, on_state=states.append) as client:
            reader = Reader(client, job.id)
            for n in range(5):
                job.log(str(n))
            await eventually(lambda: len(reader.lines) == 5, "lines")
            server.kill()
            await eventually(lambda: states[-1] == "reconnecting", "lost connection")
            for n in range(5, 10):
                job.log(str(n))
            server.start()
            await eventually(lambda: len(reader.lines) == 10, "lines of the outage")
            job.emit("job_complete", result=None)
            await reader.task
        assert reader.lines == [str(n) for n in range(10)]
        seqs = [event.seq for event in reader.events]
        assert seqs == list(range(1, 12))
        assert states == ["connecting", "connected", "reconnecting", "connected", "closed"]
        assert len(tokens) >= 2


async def test_rejected_token_on_reconnect_ends_the_client(
    valkey: Valkey, job: Job, token: Token, tmp_path: Path
) -> None:
    with running(Server(tmp_path / "log", valkey.url)) as server:
        server.ready()
        tokens = iter([token(jobs=["*"])])
        async with JobClient(server.url, lambda: next(tokens, "garbage")) as client:
            job.log("x")
            reader = Reader(client, job.id)
            await eventually(lambda: reader.lines, "line")
            server.kill()
            server.start()
            with pytest.raises(ConnectionRefused) as caught:
                await reader.task
            assert caught.value.code == "token_invalid"


async def test_token_is_renewed_before_it_expires(server: Server, job: Job, token: Token) -> None:
    lifetime = 2 * SHORT_LIVED  # the client renews the token in the second half of it
    seconds = iter([lifetime])
    states: list[ConnectionState] = []

    def make_token() -> str:
        return token(jobs=["*"], ttl=next(seconds, 60))

    async with JobClient(server.url, make_token, on_state=states.append) as client:
        reader = Reader(client, job.id)
        await eventually(lambda: "refreshed" in server.log, "renewal")
        expiry = time.monotonic() + lifetime
        await eventually(lambda: time.monotonic() > expiry, "expiry of the first token")
        job.emit("job_complete", result=1)
        await reader.task
        assert states == ["connecting", "connected"]


async def test_leaving_early_leaves_no_task(server: Server, job: Job, token: Token) -> None:
    job.log("x")
    async with JobClient(server.url, token(jobs=["*"])) as client:
        for _ in range(3):
            async with aclosing(client.follow(job.id)) as events:
                async for _event in events:
                    break
        await eventually(lambda: server.log.count(f"left {job.id}") == 3, "three leaves")
    before = asyncio.all_tasks()
    assert {task.get_name() for task in before} == {asyncio.current_task().get_name()}  # type: ignore[union-attr]


async def test_closed_client_raises_for_every_caller(
    server: Server, job: Job, token: Token
) -> None:
    client = JobClient(server.url, token(jobs=["*"]))
    with pytest.raises(ConnectionRefused) as early:
        await client.result(job.id)
    job.log("x")
    async with client:
        reader = Reader(client, job.id)
        await eventually(lambda: reader.lines, "line")
    for waiting in (reader.task, client.result(job.id)):
        with pytest.raises(ConnectionRefused) as late:
            await waiting
        assert early.value.code == late.value.code == "closed"
    async with client:  # a closed client can be opened again
        job.emit("job_complete", result=1)
        assert await client.result(job.id) == 1


async def test_new_join_ignores_events_of_the_former_join(
    server: Server, job: Job, token: Token
) -> None:
    """Events of the former join still arrive when the job is followed again."""
    for n in range(900):
        job.log(str(n))
    async with JobClient(server.url, token(jobs=["*"])) as client:
        for _ in range(5):
            async with aclosing(client.follow(job.id)) as events:
                await anext(events)
            async with aclosing(client.follow(job.id)) as events:
                seqs = [(await next_event(events)).seq for _ in range(900)]
            assert seqs == list(range(1, 901))


async def test_follower_after_a_refused_rejoin_is_refused_too(
    valkey: Valkey, job: Job, token: Token, tmp_path: Path
) -> None:
    tokens = iter([token(jobs=["*"])])
    with running(Server(tmp_path / "log", valkey.url)) as server:
        server.ready()
        async with JobClient(server.url, lambda: next(tokens, token())) as client:
            job.log("x")
            slow = client.follow(job.id)
            await anext(slow)
            quick = Reader(client, job.id)
            server.kill()
            server.start()
            async with asyncio.timeout(TIMEOUT):
                with pytest.raises(JoinRefused):
                    await quick.task
                with pytest.raises(JoinRefused):
                    await client.result(job.id)
                with pytest.raises(JoinRefused):
                    await anext(slow)


async def test_failing_token_function_refuses_the_first_connection() -> None:
    states: list[ConnectionState] = []

    def make_token() -> str:
        raise OSError("the login service is down")

    with pytest.raises(ConnectionRefused, match="the login service is down") as caught:
        async with JobClient("http://127.0.0.1:1", make_token, on_state=states.append):
            pass
    assert caught.value.code == "token_unavailable"
    assert isinstance(caught.value.__cause__, OSError)
    assert states == ["connecting", "closed"]


async def test_failing_token_function_delays_a_reconnect(
    valkey: Valkey, job: Job, token: Token, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    calls = 0

    async def make_token() -> str:
        nonlocal calls
        calls += 1
        if calls in {2, 3}:
            raise OSError("the login service is down")
        return token(jobs=["*"])

    with running(Server(tmp_path / "log", valkey.url)) as server:
        server.ready()
        async with JobClient(server.url, make_token) as client:
            job.log("x")
            reader = Reader(client, job.id)
            await eventually(lambda: reader.lines, "line")
            server.kill()
            server.start()
            job.emit("job_complete", result=1)
            async with asyncio.timeout(TIMEOUT):
                await reader.task
            assert await client.result(job.id) == 1
    assert "could not reconnect: the token function failed (OSError" in caplog.text


async def test_expired_token_is_requested_once_more(server: Server, job: Job, token: Token) -> None:
    seconds = iter([-60, SHORT_LIVED, -60, -60, 60])
    states: list[ConnectionState] = []

    def make_token() -> str:
        return token(jobs=["*"], ttl=next(seconds))

    async with JobClient(server.url, make_token, on_state=states.append) as client:
        reader = Reader(client, job.id)
        await eventually(lambda: len(states) == 4, "next connection")
        job.emit("job_complete", result=1)
        await reader.task
    assert list(seconds) == []
    assert states == ["connecting", "connected", "reconnecting", "connected", "closed"]


async def test_client_gives_up_after_two_expired_tokens(server: Server, token: Token) -> None:
    expired = token(ttl=-60)
    tokens = iter([expired] * 3)
    with pytest.raises(ConnectionRefused) as caught:
        async with JobClient(server.url, lambda: next(tokens)):
            pass
    assert caught.value.code == "token_expired"
    assert list(tokens) == [expired]


async def test_failed_renewal_is_retried(
    server: Server, job: Job, token: Token, caplog: pytest.LogCaptureFixture
) -> None:
    calls = 0
    states: list[ConnectionState] = []

    def make_token() -> str:
        nonlocal calls
        calls += 1
        if calls in {2, 3}:
            raise OSError("the login service is down")
        return token(jobs=["*"], ttl=2 * SHORT_LIVED if calls == 1 else 60)

    async with JobClient(server.url, make_token, on_state=states.append) as client:
        reader = Reader(client, job.id)
        refreshed = server.log.count("refreshed")
        await eventually(lambda: server.log.count("refreshed") > refreshed, "renewal")
        job.emit("job_complete", result=1)
        await reader.task
        assert (calls, states) == (4, ["connecting", "connected"])
    assert caplog.text.count("could not renew the token: the token function failed (OSError") == 2


async def test_reconnect_follows_renewals_that_never_succeed(
    server: Server, job: Job, token: Token, caplog: pytest.LogCaptureFixture
) -> None:
    states: list[ConnectionState] = []

    def make_token() -> str:
        if states == ["connecting", "connected"]:
            raise OSError("the login service is down")
        return token(jobs=["*"], ttl=SHORT_LIVED if states == ["connecting"] else 60)

    async with JobClient(server.url, make_token, on_state=states.append) as client:
        reader = Reader(client, job.id)
        await eventually(lambda: len(states) == 4, "next connection")
        job.emit("job_complete", result=1)
        await reader.task
        assert states == ["connecting", "connected", "reconnecting", "connected"]
    assert "could not renew the token: the token function failed (OSError" in caplog.text


async def test_join_is_retried_after_an_internal_error(
    valkey: Valkey, job: Job, token: Token, tmp_path: Path
) -> None:
    env = {
        "JOBCAST_AUTHORIZE": "tests.integration.test_client:fails_at_first",
        "TEST_MARK": str(tmp_path / "mark"),
    }
    with running(Server(tmp_path / "log", valkey.url, env)) as server:
        server.ready()
        job.emit("job_complete", result=1)
        async with JobClient(server.url, token()) as client:
            assert await client.result(job.id) == 1
    assert "deliberate failure" in server.log


def fails_at_first(*_: object) -> bool:
    mark = Path(os.environ["TEST_MARK"])
    if not mark.exists():
        mark.touch()
        raise RuntimeError("deliberate failure")
    return True


async def test_connection_that_is_closed_at_once_is_retried(
    valkey: Valkey, job: Job, token: Token, tmp_path: Path
) -> None:
    """A proxy closes connections while the server behind it restarts."""
    refused_count = 0

    async def refuse(request: web.Request) -> web.WebSocketResponse:
        nonlocal refused_count
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.close(code=1012)
        refused_count += 1
        return socket

    with running(Server(tmp_path / "log", valkey.url)) as server:
        server.ready()
        async with JobClient(server.url, token(jobs=["*"])) as client:
            job.log("x")
            reader = Reader(client, job.id)
            await eventually(lambda: reader.lines, "line")
            server.kill()
            app = web.Application()
            app.router.add_get("/socket.io/", refuse)
            runner = web.AppRunner(app)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", server.port).start()
            await eventually(lambda: refused_count >= 2, "second attempt")
            await runner.cleanup()
            server.start()
            job.emit("job_complete", result=None)
            async with asyncio.timeout(TIMEOUT):
                await reader.task


async def test_slow_connect_handler_delays_the_connection(
    valkey: Valkey, job: Job, token: Token, tmp_path: Path
) -> None:
    app = "tests.integration.test_client:create_slow_app"
    with running(Server(tmp_path / "log", valkey.url, app=app)) as server:
        server.ready()
        job.emit("job_complete", result=1)
        async with JobClient(server.url, token(jobs=["*"])) as client:
            assert await client.result(job.id) == 1


def create_slow_app() -> socketio.ASGIApp:
    sio = socketio.AsyncServer(async_mode="asgi", client_manager=client_manager())

    @sio.event
    async def connect(*_: object) -> None:
        await asyncio.sleep(1.5)  # a handler may fetch keys to verify a token

    attach(sio)
    ready = Starlette(routes=[Route("/readyz", lambda _: PlainTextResponse("ready"))])
    return socketio.ASGIApp(sio, ready)


async def test_failing_state_listener_is_logged_and_ignored(
    valkey: Valkey, job: Job, token: Token, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fail_on_reconnect(state: ConnectionState) -> None:
        if state == "reconnecting":
            raise RuntimeError("error of the listener")

    with running(Server(tmp_path / "log", valkey.url)) as server:
        server.ready()
        async with JobClient(server.url, token(jobs=["*"]), on_state=fail_on_reconnect) as client:
            job.log("x")
            reader = Reader(client, job.id)
            await eventually(lambda: reader.lines, "line")
            server.kill()
            server.start()
            job.emit("job_complete", result=None)
            async with asyncio.timeout(TIMEOUT):
                await reader.task
    assert "error of the listener" in caplog.text


@pytest.mark.parametrize(
    ("status", "code", "hint"),
    [
        (429, "too_many_connections", "too many connections"),
        (503, "unavailable", "it is full or about to exit"),
    ],
)
async def test_full_server_is_reported(status: int, code: str, hint: str, token: Token) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 %d Refused\r\nContent-Length: 0\r\n\r\n" % status)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(ConnectionRefused, match=f"answered {status} .*{hint}") as caught:
            async with JobClient(f"http://127.0.0.1:{port}", token()):
                pass
    assert caught.value.code == code
