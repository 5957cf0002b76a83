"""Concurrent requests, histories, live events and pings, with a client that reads in pieces."""

from __future__ import annotations

import asyncio
import json
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from websockets.frames import Frame, Opcode

from jobcast.events import JobEvent
from jobcast.testing import log, started
from jobcast.transports import Outgoing, Retention, open_publisher
from tests.conftest import Valkey
from tests.e2e.asgi_servers import AsgiServer
from tests.e2e.raw import RawClient
from tests.support import TIMEOUT, eventually, new_id, running

Token = Callable[..., str]
Publish = Callable[..., Awaitable[None]]

SERVERS = ["uvicorn-sansio", "uvicorn-wsproto"]

JOBS = 8
PING_INTERVAL = 1.0
PING_TIMEOUT = 6.0  # long enough for an answering client on a busy machine
SEND_BUFFER = 256 * 1024 * 1024  # characters; slow clients stay connected
CLOSE_TIMEOUT = 10.0  # seconds that uvicorn and jobcast wait for a client's close


class PieceReader(RawClient):
    """A client that reads a limited number of bytes at a time and may ignore pings."""

    def __init__(self, url: str, pieces: Callable[[], int], *, answers_pings: bool = True) -> None:
        super().__init__(url)
        self._pieces = pieces
        self._answers_pings = answers_pings
        self.closed = False

    async def _read_some(self) -> None:
        data = await asyncio.get_running_loop().sock_recv(self._socket, self._pieces())
        if not data:
            self.closed = True
            raise ConnectionError("the server closed the connection")
        self._protocol.receive_data(data)
        assert self._protocol.parser_exc is None, self._protocol.parser_exc
        for event in self._protocol.events_received():
            if not isinstance(event, Frame):
                continue  # the response to the handshake
            if event.opcode is Opcode.CLOSE:
                self.closed = True
                raise ConnectionError("the server closed the connection")
            if event.opcode is Opcode.PING:
                continue  # from the ASGI server; the pong is flushed below
            assert event.opcode is Opcode.TEXT, event
            assert event.fin
            self.packets.append(bytes(event.data).decode())
            if self.packets[-1] == "2" and self._answers_pings:
                await self.send("3")
        await self._flush()


@asynccontextmanager
async def piece_reader(url: str, token: str, **options: Any) -> AsyncIterator[PieceReader]:
    client = PieceReader(url, options.pop("pieces", lambda: 65536), **options)
    try:
        await client.connect(token)
        yield client
    finally:
        client.close()


def serving(
    name: str, factory: pytest.TempPathFactory, valkey: Valkey, ping_timeout: float
) -> Iterator[AsgiServer]:
    log_path: Path = factory.mktemp(name) / "server.log"
    env = {
        "TEST_PING_INTERVAL": str(PING_INTERVAL),
        "TEST_PING_TIMEOUT": str(ping_timeout),
        "JOBCAST_SEND_BUFFER": str(SEND_BUFFER),
        # These tests send hundreds of joins, more than the default rates allow.
        "JOBCAST_HISTORY_RATE": str(1024**3),
        "JOBCAST_MESSAGE_RATE": "1000",
    }
    with running(AsgiServer(log_path, valkey.url, name, env)) as server:
        server.ready()
        yield server
        assert "Traceback" not in server.log


@pytest.fixture(params=SERVERS, scope="module")
def asgi(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, valkey: Valkey
) -> Iterator[AsgiServer]:
    """A server with frequent pings, with and without direct writes to the transport.

    A client that reads in pieces sees its pings late, behind data in the kernel's buffers.
    """
    yield from serving(request.param, tmp_path_factory, valkey, TIMEOUT)


@pytest.fixture(params=SERVERS, scope="module")
def strict_asgi(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, valkey: Valkey
) -> Iterator[AsgiServer]:
    """A server with frequent pings that soon closes clients without pongs."""
    yield from serving(request.param, tmp_path_factory, valkey, PING_TIMEOUT)


@pytest.fixture
async def publish(valkey: Valkey) -> AsyncIterator[Publish]:
    """Publish events as a worker does."""
    publisher = open_publisher(valkey.url, Retention(ttl=60, size=100_000))

    async def publish(*events: JobEvent) -> None:
        await asyncio.to_thread(publisher.publish, [Outgoing.of(event) for event in events])

    yield publish
    publisher.close()


@asynccontextmanager
async def publishing_lines(
    publish: Publish, jobs: list[str], longest: int = 400
) -> AsyncIterator[dict[str, int]]:
    """Publish lines of all jobs as fast as possible. Yield the number of lines of each job."""
    published = dict.fromkeys(jobs, 0)
    stop = asyncio.Event()

    async def publish_lines() -> None:
        while not stop.is_set():
            events = []
            for job_id in jobs:
                for _ in range(random.randint(0, 3)):
                    # The length affects the frame's header and the data queued for a slow client.
                    length = random.choice([random.randint(0, 400), random.randint(0, longest)])
                    events.append(log(job_id, f"{published[job_id]} {'x' * length}"))
                    published[job_id] += 1
            await publish(*events)
            await asyncio.sleep(0.002)

    task = asyncio.create_task(publish_lines())
    try:
        yield published
    finally:
        stop.set()
        await task


def event_of(packet: str) -> tuple[str, dict[str, Any]] | None:
    if not packet.startswith("42["):
        return None
    name, payload = json.loads(packet[2:])
    return name, payload


def answer_of(packet: str) -> tuple[int, dict[str, Any]] | None:
    """Return the number and the payload of an acknowledgement."""
    if not packet.startswith("43"):
        return None
    number, bracket, rest = packet[2:].partition("[")
    [payload] = json.loads(bracket + rest)
    return int(number), payload


def check_packets(packets: list[str], requests: list[tuple[str, str]]) -> None:
    """Check the content and the order of the packets that follow from the requests."""
    answers = [answer for packet in packets if (answer := answer_of(packet)) is not None]
    assert [number for number, _ in answers] == list(range(len(requests)))
    assert all(payload["ok"] for _, payload in answers)

    joined: dict[str, dict[str, Any]] = {}  # the payload of the last `joined` of a job
    last: dict[str, int] = defaultdict(int)
    following: set[str] = set()  # jobs whose join is acknowledged
    for packet in packets:
        if (answer := answer_of(packet)) is not None:
            number, payload = answer
            kind, job_id = requests[number]
            if kind == "leave_job":
                following.discard(job_id)
                joined.pop(job_id, None)
                continue
            # The whole history precedes the acknowledgement.
            assert joined[job_id]["seq"] == payload["seq"]
            assert last[job_id] >= payload["seq"]
            following.add(job_id)
        elif (event := event_of(packet)) is not None:
            name, payload = event
            if name == "hello":
                assert not joined
                continue
            job_id = payload["job_id"]
            if name == "joined":
                joined[job_id] = payload
                last[job_id] = 0
            else:
                assert job_id in joined, f"{name} of a job that is not joined"
                assert payload["seq"] == last[job_id] + 1, packet
                last[job_id] = payload["seq"]
        else:
            assert packet == "2" or packet[:1] == "0" or packet[:2] == "40", packet


# Reads of single bytes are slow, so these cases have fewer requests.
@pytest.mark.parametrize(("largest", "count"), [(1, 20), (7, 100), (1000, 300)])
async def test_concurrent_requests_and_events_arrive_in_order_and_complete(
    asgi: AsgiServer, publish: Publish, token: Token, largest: int, count: int
) -> None:
    jobs = [new_id() for _ in range(JOBS)]
    await publish(*(started(job_id) for job_id in jobs))
    choices = random.Random(largest)
    requests = [
        (choices.choice(["join_job", "join_job", "leave_job"]), choices.choice(jobs))
        for _ in range(count)
    ]
    pieces = random.Random(largest)
    async with piece_reader(
        asgi.url, token(jobs=["*"]), pieces=lambda: pieces.randint(1, largest)
    ) as client:
        paths = await asgi.paths()
        assert (paths["direct"], paths["ordinary"]) == ((1, 0) if asgi.direct else (0, 1))

        async def send_requests(published: dict[str, int]) -> None:
            for number, (kind, job_id) in enumerate(requests):
                # Requests keep pace with the events; otherwise nothing is interleaved.
                has_published_more = partial(lambda least: sum(published.values()) > least, number)
                await eventually(has_published_more, "event before the next request")
                await client.send(f"42{number}{json.dumps([kind, {'job_id': job_id}])}")

        last = f"43{count - 1}["
        async with asyncio.timeout(TIMEOUT), publishing_lines(publish, jobs) as published:
            sending = asyncio.create_task(send_requests(published))
            await client.read_until(lambda packet: packet.startswith(last))
            await sending
        # From here on the client follows every job to its end.
        final_joins = [("join_job", job_id) for job_id in jobs]
        for number, (kind, job_id) in enumerate(final_joins, start=count):
            await client.send(f"42{number}{json.dumps([kind, {'job_id': job_id}])}")
        last = f"43{count + len(final_joins) - 1}["
        client._pieces = lambda: 65536
        async with asyncio.timeout(TIMEOUT):
            await client.read_until(lambda packet: packet.startswith(last))
    check_packets(client.packets, requests + final_joins)
    assert len(client.events("job_log")) > count
    await asgi.wait_until_empty()


async def test_live_events_of_many_jobs_arrive_without_gaps(
    asgi: AsgiServer, publish: Publish, token: Token
) -> None:
    jobs = [new_id() for _ in range(JOBS)]
    await publish(*(started(job_id) for job_id in jobs))
    pieces = random.Random(1)
    async with piece_reader(
        asgi.url, token(jobs=["*"]), pieces=lambda: pieces.randint(1, 600)
    ) as client:
        for number, job_id in enumerate(jobs):
            await client.send(f"42{number}{json.dumps(['join_job', {'job_id': job_id}])}")
        async with asyncio.timeout(TIMEOUT):
            last = f"43{len(jobs) - 1}["
            await client.read_until(lambda packet: packet.startswith(last))
            async with publishing_lines(publish, jobs, longest=70_000) as published:
                # Long enough for pings to arrive between the events.
                while client.packets.count("2") < 2:
                    await client.read_until(lambda _: True)
            await publish(*(log(job_id, "end") for job_id in jobs))
            missing = set(jobs)
            client._pieces = lambda: 65536
            while missing:
                packet = await client.read_until(lambda packet: '"message":"end"' in packet)
                missing -= {job_id for job_id in jobs if any(
                    event["message"] == "end" and event["job_id"] == job_id
                    for event in client.events("job_log"))}  # fmt: skip
                assert packet
        check_packets(client.packets, [("join_job", job_id) for job_id in jobs])
        for job_id in jobs:
            lines = [e["message"].split()[0] for e in client.events("job_log")
                     if e["job_id"] == job_id]  # fmt: skip
            assert lines == [*map(str, range(published[job_id])), "end"]
        # The server has not closed the connection for a late pong.
        assert asgi.popen.poll() is None
        assert await asgi.metric("jobcast_connections") == 1
    await asgi.wait_until_empty()


async def test_pings_keep_their_interval_and_an_answering_client_stays_connected(
    strict_asgi: AsgiServer, token: Token
) -> None:
    loop = asyncio.get_running_loop()
    before = loop.time()
    async with piece_reader(strict_asgi.url, token()) as client:
        times: list[float] = []
        async with asyncio.timeout(TIMEOUT):
            # If the server did not read the pongs, the connection would end before that.
            while not times or times[-1] - times[0] <= PING_INTERVAL + PING_TIMEOUT:
                await client.read_until(lambda packet: packet == "2")
                times.append(loop.time() - before)
        # A ping may be read late and the next one soon after it, but no ping is sent early.
        assert all(time > 0.95 * PING_INTERVAL * n for n, time in enumerate(times, 1)), times
        assert await strict_asgi.metric("jobcast_connections") == 1
    await strict_asgi.wait_until_empty()


async def test_client_without_pongs_is_closed_and_released_while_events_continue(
    strict_asgi: AsgiServer, publish: Publish, job_id: str, token: Token
) -> None:
    await publish(started(job_id))
    async with (
        piece_reader(strict_asgi.url, token(jobs=["*"]), answers_pings=False) as silent,
        publishing_lines(publish, [job_id]),
    ):
        await silent.join(job_id)
        reading = asyncio.create_task(silent.read_to_the_end())
        await strict_asgi.wait_for_metric("jobcast_connections", 0)
        assert await strict_asgi.metric("jobcast_jobs_followed") == 0
        assert silent.packets.count("2") == 1
        # The server has sent its close and waits for the client's, which never comes.
        async with asyncio.timeout(CLOSE_TIMEOUT + TIMEOUT):
            await reading
        assert silent.closed
    await strict_asgi.wait_until_empty()


async def test_client_that_neither_reads_nor_answers_is_closed_and_released(
    strict_asgi: AsgiServer, publish: Publish, job_id: str, token: Token
) -> None:
    await publish(started(job_id))
    slow = await strict_asgi.metric("jobcast_slow_disconnects_total")
    async with piece_reader(strict_asgi.url, token(jobs=["*"]), answers_pings=False) as silent:
        await silent.join(job_id)
        # More than the kernel buffers, but less than the limit for slow clients.
        await publish(*(log(job_id, "x" * 8000) for _ in range(1000)))
        await strict_asgi.wait_until_empty()
        assert await strict_asgi.metric("jobcast_slow_disconnects_total") == slow
