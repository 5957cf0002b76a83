"""Requests, histories, live events and pings at the same time, to one that reads bit by bit."""

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
Say = Callable[..., Awaitable[None]]

WAYS = ["uvicorn-sansio", "uvicorn-wsproto"]

JOBS = 8
PING_INTERVAL = 1.0
PING_TIMEOUT = 3.0  # for who answers, too, on a machine that is busy
SEND_BUFFER = 256 * 1024 * 1024  # characters: slow clients are meant to stay
CLOSE_TIMEOUT = 10.0  # that uvicorn and jobcast give a client to close what was closed


class PieceReader(RawClient):
    """Reads so many bytes at a time, and answers pings if it is told to."""

    def __init__(self, url: str, pieces: Callable[[], int], *, answers_pings: bool = True) -> None:
        super().__init__(url)
        self._pieces = pieces
        self._answers_pings = answers_pings
        self.closed = False

    async def _read_some(self) -> None:
        data = await asyncio.get_running_loop().sock_recv(self._socket, self._pieces())
        if not data:
            self.closed = True
            raise ConnectionError("the server has closed the connection")
        self._protocol.receive_data(data)
        assert self._protocol.parser_exc is None, self._protocol.parser_exc
        for event in self._protocol.events_received():
            if not isinstance(event, Frame):
                continue  # the answer to the handshake
            if event.opcode is Opcode.CLOSE:
                self.closed = True
                raise ConnectionError("the server has closed the connection")
            if event.opcode is Opcode.PING:
                continue  # the ASGI server's own, after a while; the answer is flushed below
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
    way: str, factory: pytest.TempPathFactory, valkey: Valkey, ping_timeout: float
) -> Iterator[AsgiServer]:
    log_path: Path = factory.mktemp(way) / "server.log"
    env = {
        "TEST_PING_INTERVAL": str(PING_INTERVAL),
        "TEST_PING_TIMEOUT": str(ping_timeout),
        "JOBCAST_SEND_BUFFER": str(SEND_BUFFER),
        # Hundreds of joins of three jobs are what these tests are about.
        "JOBCAST_HISTORY_RATE": str(1024**3),
        "JOBCAST_MESSAGE_RATE": "1000",
    }
    with running(AsgiServer(log_path, valkey.url, way, env)) as server:
        server.ready()
        yield server
        assert "Traceback" not in server.log


@pytest.fixture(params=WAYS, scope="module")
def asgi(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, valkey: Valkey
) -> Iterator[AsgiServer]:
    """Straight to the transport, and in the ordinary way; with pings that come often.

    Whoever reads bit by bit has its pings late, behind what the kernel holds for it.
    """
    yield from serving(request.param, tmp_path_factory, valkey, TIMEOUT)


@pytest.fixture(params=WAYS, scope="module")
def impatient(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, valkey: Valkey
) -> Iterator[AsgiServer]:
    """Such a server, which soon closes who does not answer."""
    yield from serving(request.param, tmp_path_factory, valkey, PING_TIMEOUT)


@pytest.fixture
async def say(valkey: Valkey) -> AsyncIterator[Say]:
    """Publishes events, as a worker does."""
    publisher = open_publisher(valkey.url, Retention(ttl=60, size=100_000))

    async def say(*events: JobEvent) -> None:
        await asyncio.to_thread(publisher.publish, [Outgoing.of(event) for event in events])

    yield say
    publisher.close()


@asynccontextmanager
async def talking(say: Say, jobs: list[str], longest: int = 400) -> AsyncIterator[dict[str, int]]:
    """Says lines of all jobs, as fast as it goes. Gives how many there were of each."""
    said = dict.fromkeys(jobs, 0)
    enough = asyncio.Event()

    async def talk() -> None:
        while not enough.is_set():
            events = []
            for job_id in jobs:
                for _ in range(random.randint(0, 3)):
                    # A frame's header depends on it, and what waits for a slow client.
                    length = random.choice([random.randint(0, 400), random.randint(0, longest)])
                    events.append(log(job_id, f"{said[job_id]} {'x' * length}"))
                    said[job_id] += 1
            await say(*events)
            await asyncio.sleep(0.002)

    task = asyncio.create_task(talk())
    try:
        yield said
    finally:
        enough.set()
        await task


def event_of(packet: str) -> tuple[str, dict[str, Any]] | None:
    if not packet.startswith("42["):
        return None
    name, payload = json.loads(packet[2:])
    return name, payload


def answer_of(packet: str) -> tuple[int, dict[str, Any]] | None:
    """The number of an acknowledgement and what it says."""
    if not packet.startswith("43"):
        return None
    number, bracket, rest = packet[2:].partition("[")
    [payload] = json.loads(bracket + rest)
    return int(number), payload


def check(packets: list[str], requests: list[tuple[str, str]]) -> None:
    """What a client of any of these requests has to have been sent, and in which order."""
    answers = [answer for packet in packets if (answer := answer_of(packet)) is not None]
    assert [number for number, _ in answers] == list(range(len(requests)))
    assert all(payload["ok"] for _, payload in answers)

    joined: dict[str, dict[str, Any]] = {}  # since the last `joined` of a job: what it said
    last: dict[str, int] = defaultdict(int)
    following: set[str] = set()  # jobs whose join is answered
    for packet in packets:
        if (answer := answer_of(packet)) is not None:
            number, payload = answer
            kind, job_id = requests[number]
            if kind == "leave_job":
                following.discard(job_id)
                joined.pop(job_id, None)
                continue
            # The history was there before, all of it.
            assert joined[job_id]["seq"] == payload["seq"]
            assert last[job_id] >= payload["seq"]
            following.add(job_id)
        elif (event := event_of(packet)) is not None:
            name, payload = event
            job_id = payload["job_id"]
            if name == "joined":
                joined[job_id] = payload
                last[job_id] = 0
            else:
                assert job_id in joined, f"{name} of a job that was left"
                assert payload["seq"] == last[job_id] + 1, packet
                last[job_id] = payload["seq"]
        else:
            assert packet == "2" or packet[:1] == "0" or packet[:2] == "40", packet


# Byte by byte takes its time; there are as many requests as that allows.
@pytest.mark.parametrize(("largest", "count"), [(1, 20), (7, 100), (1000, 300)])
async def test_requests_and_events_at_the_same_time_are_in_order_and_whole(
    asgi: AsgiServer, say: Say, token: Token, largest: int, count: int
) -> None:
    jobs = [new_id() for _ in range(JOBS)]
    await say(*(started(job_id) for job_id in jobs))
    chosen = random.Random(largest)
    requests = [
        (chosen.choice(["join_job", "join_job", "leave_job"]), chosen.choice(jobs))
        for _ in range(count)
    ]
    pieces = random.Random(largest)
    async with piece_reader(
        asgi.url, token(jobs=["*"]), pieces=lambda: pieces.randint(1, largest)
    ) as client:
        paths = await asgi.paths()
        assert (paths["direct"], paths["ordinary"]) == ((1, 0) if asgi.direct else (0, 1))

        async def ask(said: dict[str, int]) -> None:
            for number, (kind, job_id) in enumerate(requests):
                # A machine that publishes slowly has to be asked slowly, or nothing is interleaved.
                beside = partial(lambda least: sum(said.values()) > least, number)
                await eventually(beside, "event to be asked beside")
                await client.send(f"42{number}{json.dumps([kind, {'job_id': job_id}])}")

        last = f"43{count - 1}["
        async with asyncio.timeout(TIMEOUT), talking(say, jobs) as said:
            asking = asyncio.create_task(ask(said))
            await client.read_until(lambda packet: packet.startswith(last))
            await asking
        # From here on every job is followed to its end.
        more = [("join_job", job_id) for job_id in jobs]
        for number, (kind, job_id) in enumerate(more, start=count):
            await client.send(f"42{number}{json.dumps([kind, {'job_id': job_id}])}")
        last = f"43{count + len(more) - 1}["
        client._pieces = lambda: 65536
        async with asyncio.timeout(TIMEOUT):
            await client.read_until(lambda packet: packet.startswith(last))
    check(client.packets, requests + more)
    assert len(client.events("job_log")) > count
    await asgi.becomes_empty()


async def test_live_events_of_many_jobs_are_consecutive_and_none_is_missing(
    asgi: AsgiServer, say: Say, token: Token
) -> None:
    jobs = [new_id() for _ in range(JOBS)]
    await say(*(started(job_id) for job_id in jobs))
    pieces = random.Random(1)
    async with piece_reader(
        asgi.url, token(jobs=["*"]), pieces=lambda: pieces.randint(1, 600)
    ) as client:
        for number, job_id in enumerate(jobs):
            await client.send(f"42{number}{json.dumps(['join_job', {'job_id': job_id}])}")
        async with asyncio.timeout(TIMEOUT):
            last = f"43{len(jobs) - 1}["
            await client.read_until(lambda packet: packet.startswith(last))
            async with talking(say, jobs, longest=70_000) as said:
                # So long that pings come between the events.
                while client.packets.count("2") < 2:
                    await client.read_until(lambda _: True)
            await say(*(log(job_id, "end") for job_id in jobs))
            missing = set(jobs)
            client._pieces = lambda: 65536
            while missing:
                packet = await client.read_until(lambda packet: '"message":"end"' in packet)
                missing -= {job_id for job_id in jobs if any(
                    event["message"] == "end" and event["job_id"] == job_id
                    for event in client.events("job_log"))}  # fmt: skip
                assert packet
        check(client.packets, [("join_job", job_id) for job_id in jobs])
        for job_id in jobs:
            lines = [e["message"].split()[0] for e in client.events("job_log")
                     if e["job_id"] == job_id]  # fmt: skip
            assert lines == [*map(str, range(said[job_id])), "end"]
        # Not one by one: a client would have noticed that it was not answered in time.
        assert asgi.popen.poll() is None
        assert await asgi.metric("jobcast_connections") == 1
    await asgi.becomes_empty()


async def test_pings_come_at_their_interval_and_who_answers_stays(
    impatient: AsgiServer, token: Token
) -> None:
    loop = asyncio.get_running_loop()
    before = loop.time()
    async with piece_reader(impatient.url, token()) as client:
        times: list[float] = []
        async with asyncio.timeout(TIMEOUT):
            # Longer than both together, and still there: the answers were heard.
            while not times or times[-1] - times[0] <= PING_INTERVAL + PING_TIMEOUT:
                await client.read_until(lambda packet: packet == "2")
                times.append(loop.time() - before)
        # A ping may be read late, and the next one soon after it, but none is sent early.
        assert all(time > 0.95 * PING_INTERVAL * n for n, time in enumerate(times, 1)), times
        assert await impatient.metric("jobcast_connections") == 1
    await impatient.becomes_empty()


async def test_who_answers_no_ping_is_closed_and_forgotten_while_events_go_on(
    impatient: AsgiServer, say: Say, job_id: str, token: Token
) -> None:
    await say(started(job_id))
    async with (
        piece_reader(impatient.url, token(jobs=["*"]), answers_pings=False) as silent,
        talking(say, [job_id]),
    ):
        await silent.join(job_id)
        reading = asyncio.create_task(silent.read_to_the_end())
        await impatient.becomes("jobcast_connections", 0)
        assert await impatient.metric("jobcast_jobs_followed") == 0
        assert silent.packets.count("2") == 1
        # It was told that it is closed, and has some time to close; it does not.
        async with asyncio.timeout(CLOSE_TIMEOUT + TIMEOUT):
            await reading
        assert silent.closed
    await impatient.becomes_empty()


async def test_who_neither_reads_nor_answers_is_closed_and_forgotten(
    impatient: AsgiServer, say: Say, job_id: str, token: Token
) -> None:
    await say(started(job_id))
    async with piece_reader(impatient.url, token(jobs=["*"]), answers_pings=False) as silent:
        await silent.join(job_id)
        # More than the kernel takes, and less than what would have it cut for that.
        await say(*(log(job_id, "x" * 8000) for _ in range(1000)))
        await impatient.becomes_empty()
        assert await impatient.metric("jobcast_slow_disconnects_total") == 0
