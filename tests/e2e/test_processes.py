"""Several Socket.IO processes: each serves every job, and each may stop at any time."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import urlencode

import aiohttp
import httpx
import psutil
import pytest
import socketio.exceptions

from jobcast.client import JobClient
from jobcast.errors import ConnectionRefused
from jobcast.server.supervisor import WORKER_TIMEOUT
from tests import jobs
from tests.conftest import Valkey
from tests.e2e.reconnecting import ReconnectingClient, reconnecting
from tests.e2e.stock import stock_client
from tests.support import (
    SECRET,
    SLOW_DRAIN,
    TIMEOUT,
    Process,
    Server,
    Worker,
    answers,
    eventually,
    following,
    free_port,
    running,
    wait_for,
)

Send = Callable[..., str]
Token = Callable[..., str]

ORDERLY_EXIT = (0, -signal.SIGTERM)  # uvicorn raises the signal again after its shutdown
STEPS = 40
LINES = [f"step {n}" for n in range(STEPS)]


class Served(Process):
    """A ``jobcast serve`` process."""

    def __init__(self, log_path: Path, url: str, *arguments: str, **env: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        super().__init__(
            [sys.executable, "-m", "jobcast.cli", "serve", "--port", str(self.port), *arguments],
            log_path,
            {"JOBCAST_URL": url, "JOBCAST_JWT_SECRET": SECRET, **env},
        )

    def ready(self) -> Served:
        self.expect(lambda: answers(f"{self.url}/readyz"), "answer of /readyz")
        return self

    @property
    def workers(self) -> list[int]:
        """The ids of the worker processes under the supervisor."""
        children = psutil.Process(self.popen.pid).children()
        return [child.pid for child in children if _is_worker(child)]


def _is_worker(child: psutil.Process) -> bool:
    try:
        return any("spawn_main" in word for word in child.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return False


def post(url: str, **query: str) -> None:
    request = urllib.request.Request(f"{url}?{urlencode(query)}", method="POST")
    with urllib.request.urlopen(request, timeout=30) as response:
        assert response.status == 204


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """The path of a file that a job waits for half-way."""
    return tmp_path / "gate"


@pytest.fixture
def pair(valkey: Valkey, tmp_path: Path) -> Iterator[tuple[Server, Server]]:
    """Two processes, each with its own port."""
    app = "tests.emitting_app:create_app"
    with (
        running(Server(tmp_path / "one.log", valkey.url, app=app)) as one,
        running(Server(tmp_path / "two.log", valkey.url, app=app)) as two,
    ):
        yield one.ready(), two.ready()


@pytest.fixture
def two_workers(valkey: Valkey, tmp_path: Path) -> Iterator[Served]:
    """Two processes on one port."""
    env = {"JOBCAST_METRICS": "true"}
    with running(Served(tmp_path / "log", valkey.url, "--workers", "2", **env)) as served:
        served.ready()
        wait_for(lambda: served.log.count("Application startup complete") == 2, "two workers")
        assert len(served.workers) == 2
        yield served


async def test_job_is_followed_on_two_processes(
    pair: tuple[Server, Server], worker: Worker, send: Send, token: Token, gate: Path
) -> None:
    one, two = pair
    job_id = send(worker, jobs.count, STEPS, str(gate))
    async with (
        following(one.url, token()) as alice,
        following(two.url, token()) as bob,
    ):
        await alice.join(job_id)
        await bob.join(job_id)
        gate.touch()
        for follower in (alice, bob):
            await follower.transcript.end(job_id)
            lines = [e["message"] for e in follower.transcript.of(job_id, "job_log")]
            assert lines == LINES
        assert alice.transcript.of(job_id, "job_log") == bob.transcript.of(job_id, "job_log")


async def test_emit_and_disconnect_reach_clients_of_another_process(
    pair: tuple[Server, Server], token: Token
) -> None:
    one, two = pair
    async with (
        following(one.url, token()) as alice,
        following(two.url, token("bob")) as bob,
    ):
        post(f"{two.url}/say", to=str(alice.client.get_sid()), text="from the other one")
        await eventually(lambda: alice.transcript.events, "note")
        assert alice.transcript.events == [("note", {"text": "from the other one"})]
        post(f"{two.url}/disconnect", sid=str(alice.client.get_sid()))
        await eventually(lambda: not alice.client.connected, "disconnection")
        assert bob.client.connected
        assert bob.transcript.events == []
    await eventually(lambda: "disconnected" in one.log, "line in the log")


async def test_two_workers_share_a_port_and_both_follow_a_job(
    two_workers: Served, worker: Worker, send: Send, token: Token, gate: Path
) -> None:
    job_id = send(worker, jobs.count, STEPS, str(gate))
    async with AsyncExitStack() as stack:
        followers = []
        for stopped in two_workers.workers:
            # A stopped process accepts no connection, so the next ones go to the other process.
            os.kill(stopped, signal.SIGSTOP)
            try:
                for _ in range(2):
                    client = following(two_workers.url, token())
                    follower = await stack.enter_async_context(client)
                    followers.append(follower)
                    assert (await follower.join(job_id))["ok"]
            finally:
                os.kill(stopped, signal.SIGCONT)
        gate.touch()
        for follower in followers:
            await follower.transcript.end(job_id)
            lines = [e["message"] for e in follower.transcript.of(job_id, "job_log")]
            assert lines == LINES
        with urllib.request.urlopen(f"{two_workers.url}/metrics", timeout=30) as response:
            page = response.read().decode()
        assert "jobcast_connections 4.0" in page
        assert "jobcast_jobs_followed 2.0" in page


async def test_workers_on_a_shared_port_refuse_long_polling(
    two_workers: Served, token: Token
) -> None:
    """The next request of a session could reach another process."""
    assert answers(f"{two_workers.url}/socket.io/?EIO=4&transport=polling", 400)
    async with following(two_workers.url, token()) as alice:
        assert alice.client.connected


def servers_of(served: Served) -> set[str]:
    """Return the ids of two workers, each with the class of its server."""
    answers: set[str] = set()

    def both() -> bool:
        with urllib.request.urlopen(f"{served.url}/server-class", timeout=30) as response:
            answers.add(response.read().decode())
        return len(answers) == 2

    wait_for(both, "answers of two workers")
    return answers


def test_each_worker_has_the_server_that_waits_for_signals(valkey: Valkey, tmp_path: Path) -> None:
    app = "tests.server_class_app:create_app"
    arguments = (app, "--factory", "--workers", "2")
    with running(Served(tmp_path / "log", valkey.url, *arguments)) as served:
        served.ready()
        wait_for(lambda: served.log.count("Application startup complete") == 2, "two workers")
        own = "jobcast.server.uvicorn_server.Server"
        assert servers_of(served) == {f"{pid} {own}" for pid in served.workers}
        killed, kept = served.workers
        os.kill(killed, signal.SIGKILL)
        wait_for(lambda: served.log.count("Application startup complete") == 3, "another worker")
        assert kept in served.workers
        assert servers_of(served) == {f"{pid} {own}" for pid in served.workers}


async def test_killed_worker_is_replaced_and_its_clients_reconnect(
    two_workers: Served, worker: Worker, send: Send, token: Token, gate: Path
) -> None:
    job_id = send(worker, jobs.count, STEPS, str(gate))
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(reconnecting(two_workers.url, token(), job_id))
            for _ in range(4)
        ]
        former = two_workers.workers
        for pid in former:
            os.kill(pid, signal.SIGKILL)
        gate.touch()
        for client in clients:
            await client.wait_for_end()
            assert client.log_messages == LINES
            assert len(client.payloads("connect")) >= 2
        assert not set(two_workers.workers) & set(former)


async def test_worker_killed_while_the_supervisor_awaits_its_answer_is_replaced_at_once(
    two_workers: Served,
) -> None:
    former = set(two_workers.workers)
    for pid in former:
        os.kill(pid, signal.SIGSTOP)
    await eventually(lambda: is_blocked(two_workers.popen.pid), "supervisor that awaits an answer")
    for pid in former:
        os.kill(pid, signal.SIGKILL)
    await eventually(
        lambda: len(two_workers.workers) == 2 and not former & set(two_workers.workers),
        "two other workers",
        timeout=WORKER_TIMEOUT * 2 / 3,
    )


def is_blocked(pid: int) -> bool:
    """Return whether a process does not run for several check intervals of the supervisor."""
    before = psutil.Process(pid).num_ctx_switches()
    time.sleep(2)
    return psutil.Process(pid).num_ctx_switches() == before


async def test_rolling_restart_moves_clients_and_loses_nothing(
    two_workers: Served, worker: Worker, send: Send, token: Token, gate: Path
) -> None:
    # A slow tick keeps missed events within the history, even on a busy machine.
    job_id = send(worker, jobs.tick, str(gate), 0.1)
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(reconnecting(two_workers.url, token(), job_id))
            for _ in range(6)
        ]
        former = set(two_workers.workers)
        two_workers.popen.send_signal(signal.SIGHUP)
        await eventually(
            lambda: len(two_workers.workers) == 2 and not former & set(two_workers.workers),
            "two other workers",
        )
        gate.touch()
        for client in clients:
            end = await client.wait_for_end()
            assert client.log_messages == [f"tick {n}" for n in range(end["result"])]
            assert_was_drained(client)
    assert "Traceback" not in two_workers.log
    assert two_workers.stop() == 0


def assert_was_drained(client: ReconnectingClient) -> None:
    """Check that the client was warned, closed and reconnected, perhaps more than once."""
    warnings, disconnects = client.payloads("draining"), client.payloads("disconnect")
    assert warnings
    assert len(warnings) == len(disconnects) == len(client.payloads("connect")) - 1
    # The server closes the transport without a Socket.IO disconnect, after which clients reconnect.
    assert set(disconnects) <= {"transport close", "transport error"}
    assert all(data["closes_in"] >= 0 for data in warnings)


async def test_shutdown_drains_clients_of_every_kind(
    package: None, valkey: Valkey, worker: Worker, send: Send, token: Token, gate: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    job_id = send(worker, jobs.count, STEPS, str(gate))
    with running(Server(tmp_path / "server.log", valkey.url)) as server:
        server.ready()
        async with (
            reconnecting(server.url, token(), job_id) as on_websocket,
            reconnecting(server.url, token(), job_id, ("polling",)) as on_polling,
        ):
            with stock_client(
                server.url, token(), job_id, tmp_path, "reconnect.mjs"
            ) as on_javascript:
                await eventually(
                    lambda: "step 20" in on_websocket.log_messages, "half of the lines"
                )
                await eventually(
                    lambda: "step 20" in on_polling.log_messages, "half of the lines by polling"
                )
                await eventually(
                    lambda: any("step 20" in str(data) for _, data in on_javascript.events),
                    "half of the lines in JavaScript",
                )
                assert server.stop() in ORDERLY_EXIT
                server.start()
                server.ready()
                gate.touch()
                for client in (on_websocket, on_polling):
                    await client.wait_for_end()
                    assert client.log_messages == LINES
                    assert_was_drained(client)
                events = on_javascript.finish()
    assert [data["message"] for name, data in events if name == "job_log"] == LINES
    names = [name for name, _ in events]
    assert names.count("draining") == 1
    assert next(d["reason"] for n, d in events if n == "disconnect") == "transport close"
    assert "Traceback" not in server.log


async def test_stopping_process_is_unready_and_refuses_connections(
    valkey: Valkey, token: Token, tmp_path: Path
) -> None:
    with running(Server(tmp_path / "log", valkey.url, app=SLOW_DRAIN)) as server:
        server.ready()
        server.drain()
        assert answers(f"{server.url}/healthz")
        with pytest.raises(socketio.exceptions.ConnectionError):
            async with following(server.url, token()):
                raise AssertionError("the connection was accepted")
        with pytest.raises(ConnectionRefused, match=r"answered 503.* about to exit") as refused:
            async with JobClient(server.url, token()):
                raise AssertionError("the connection was accepted")
        assert refused.value.code == "unavailable"
        for transport in ("websocket", "polling"):
            # A page sends the POST because browsers hide the status of a WebSocket's handshake.
            for method in ("GET", "POST"):
                address = f"{server.url}/socket.io/?EIO=4&transport={transport}"
                response = await asyncio.to_thread(httpx.request, method, address, timeout=TIMEOUT)
                assert (response.status_code, response.headers["retry-after"]) == (503, "1")
                assert "about to exit" in response.json()["message"]
        assert server.stop() in ORDERLY_EXIT


async def test_stopping_process_serves_its_sessions_and_closes_those_without_a_client(
    valkey: Valkey, token: Token, tmp_path: Path
) -> None:
    server = Server(
        tmp_path / "log", valkey.url, {"JOBCAST_HANDSHAKE_TIMEOUT": "300"},
        app=SLOW_DRAIN,
    )  # fmt: skip
    with running(server):
        server.ready()
        engine = f"{server.url}/socket.io/?EIO=4&transport="
        timeout = aiohttp.ClientTimeout(TIMEOUT)
        async with aiohttp.ClientSession(timeout=timeout, raise_for_status=True) as http:
            silent = await http.ws_connect(f"{engine}websocket")
            assert (await silent.receive_str()).startswith("0")
            async with http.get(f"{engine}polling") as opened:
                session = json.loads((await opened.text())[1:])["sid"]
            polling = f"{engine}polling&sid={session}"
            async with http.post(polling, data=f"40{json.dumps({'token': token()})}"):
                pass
            received = await poll(http, polling, until='"hello"')
            assert received.startswith("40")

            server.drain()
            assert (await silent.receive(TIMEOUT)).type is aiohttp.WSMsgType.CLOSE
            async with http.post(polling, data='420["join_job",{"job_id":"any"}]'):
                pass
            await poll(http, polling, until="430[")
            async with http.ws_connect(f"{engine}websocket&sid={session}") as upgraded:
                await upgraded.send_str("2probe")
                assert await upgraded.receive_str(timeout=TIMEOUT) == "3probe"
        assert server.stop() in ORDERLY_EXIT


async def poll(http: aiohttp.ClientSession, address: str, *, until: str) -> str:
    """Poll until a text arrives. Return all answers."""
    received = ""
    while until not in received:
        async with http.get(address) as answer:
            received += await answer.text()
    return received
