"""The parts of the soak that its short runs do not cover."""

from __future__ import annotations

import asyncio
import gc
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Event

import psutil
import pytest
import redis
from aiohttp import ClientSession, web
from redis.backoff import NoBackoff
from redis.connection import Connection
from redis.retry import Retry

from bench.chaos import Valkey
from bench.soak.client import Client, ClosingConnector
from bench.soak.failover import Failovers
from bench.soak.redis_writes import PublishedJobs, writes_held
from bench.soak.run import background
from jobcast.events import JobLog
from jobcast.transports import Outgoing, open_publisher
from jobcast.transports.base import TransportPublisher
from jobcast.transports.redis.names import Keys
from tests.support import TIMEOUT, eventually, wait_for
from tests.support.redis_family import Sentinels

OPEN = '0{"sid":"a","upgrades":[],"pingInterval":25000,"pingTimeout":20000}'
CONNECTED = '40{"sid":"b"}'
GONE = web.AppKey("gone", asyncio.Event)  # set when the client is gone


@pytest.fixture
def publisher(own_valkey: Valkey) -> Iterator[TransportPublisher]:
    publisher = open_publisher(own_valkey.url)
    yield publisher
    publisher.close()


def line_of(job_id: str) -> Outgoing:
    return Outgoing.of(JobLog(job_id=job_id, level="info", message="line"))


def test_published_jobs_are_recorded(own_valkey: Valkey, publisher: TransportPublisher) -> None:
    publisher.publish([line_of("before")])
    with PublishedJobs(own_valkey) as published:
        publisher.publish([line_of("one"), line_of("two")])
        publisher.publish([line_of("one")])
        assert published.so_far() == {"one", "two"}
    publisher.publish([line_of("after")])


def test_held_writes_run_afterwards(own_valkey: Valkey, publisher: TransportPublisher) -> None:
    with PublishedJobs(own_valkey) as published, ThreadPoolExecutor(1) as pool:
        with writes_held(own_valkey):
            publishing = pool.submit(publisher.publish, [line_of("one")])
            wait_for(lambda: blocked_clients(own_valkey), "blocked write")
            assert published.so_far() == set()
        publishing.result(TIMEOUT)
        assert published.so_far() == {"one"}


def blocked_clients(server: Valkey) -> int:
    number: int = server.command("INFO", "clients")["blocked_clients"]
    return number


@pytest.fixture
def failovers(tmp_path: Path) -> Iterator[Failovers]:
    servers = Sentinels(tmp_path / "sentinels")
    try:
        failovers = Failovers(servers)
        failovers.ready()
        yield failovers
    finally:
        servers.kill()


def test_confirmed_writes_of_a_killed_master_are_on_its_successor(failovers: Failovers) -> None:
    former, ended, confirmed = failovers.master, Event(), 0

    def write() -> int:
        written = 0
        # The former master may restart as a replica before this client notices.
        gone = suppress(redis.ConnectionError, redis.ReadOnlyError)
        client = redis.Redis(port=former.port, socket_timeout=TIMEOUT, retry=Retry(NoBackoff(), 0))
        with client, gone:
            while not ended.is_set():
                client.incr("written")
                written += 1
        return written

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        try:
            wait_for(lambda: former.command("GET", "written"), "first write")
            failovers.kill_master()
        finally:
            ended.set()
        confirmed = writing.result(TIMEOUT)
    assert failovers.master is not former
    assert int(failovers.master.command("GET", "written")) == confirmed


def test_jobs_of_events_confirmed_by_a_resumed_master_are_recorded(failovers: Failovers) -> None:
    former = failovers.master
    process = psutil.Process(former.popen.pid)
    connection = Connection(port=former.port)
    connection.connect()
    with ThreadPoolExecutor(1) as pool:
        stopping = pool.submit(failovers.stop_master, 0)
        wait_for(lambda: process.status() == psutil.STATUS_STOPPED, "stopped master")
        connection.send_command("PUBLISH", Keys.of("one").channel, "an event")
        assert stopping.result(TIMEOUT) == {"one"}
    connection.disconnect()
    assert failovers.master is not former


async def _never_answer_a_close(request: web.Request) -> web.StreamResponse:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    await socket.send_str(OPEN)
    await socket.send_str(CONNECTED)
    await request.app[GONE].wait()
    return socket


@pytest.fixture
async def unresponsive_server() -> AsyncIterator[str]:
    """The URL of a server that never answers a client that closes its connection."""
    app = web.Application()
    app[GONE] = asyncio.Event()
    app.router.add_get("/socket.io/", _never_answer_a_close)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    app[GONE].set()
    await runner.cleanup()


async def test_abandoned_connection_is_closed_with_its_session(
    unresponsive_server: str,
) -> None:
    connector = ClosingConnector()
    async with ClientSession(connector=connector) as http:
        abandoned = await http.ws_connect(f"{unresponsive_server}/socket.io/")
    [connection] = connector._made
    assert connection.protocol is None
    assert abandoned.get_extra_info("socket") is None


def open_sessions() -> list[ClientSession]:
    return [o for o in gc.get_objects() if type(o) is ClientSession and not o.closed]


async def test_client_cancelled_twice_closes_its_session(
    unresponsive_server: str,
) -> None:
    before = open_sessions()
    counts = Counter[str]()
    client = Client("client", "token", [unresponsive_server], random.Random(1), counts)
    async with background([client.run()]):  # cancels it every second until it ends
        await eventually(lambda: counts["connections"], "connection")
    assert open_sessions() == before
