"""A client that does not read costs a bounded amount of memory, and nobody else anything."""

from __future__ import annotations

import asyncio
import re
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from jobcast.events import JobEvent, JobProgress
from jobcast.testing import log, started
from jobcast.transports import Outgoing, Retention, TransportPublisher, open_publisher
from tests.conftest import Valkey
from tests.e2e.raw import raw_client
from tests.support import Server, eventually, following, running

Token = Callable[..., str]

LIMIT = 256 * 1024  # characters
LINE = "x" * 8000
PIECE = 25  # lines that are said at a time
LINES = 3000  # in all: 24 MB
VALUES = 5000
ROOM = 20 * 1024 * 1024  # bytes that the server may grow by; without a bound it would be LINES


@pytest.fixture
def bounded(valkey: Valkey, tmp_path: Path) -> Iterator[Server]:
    env = {"JOBCAST_SEND_BUFFER": str(LIMIT), "JOBCAST_METRICS": "true"}
    with running(Server(tmp_path / "server.log", valkey.url, env)) as server:
        yield server.ready()


@pytest.fixture
async def publisher(valkey: Valkey) -> AsyncIterator[TransportPublisher]:
    publisher = open_publisher(valkey.url, Retention(ttl=60, size=2 * LINES))
    yield publisher
    publisher.close()


async def metric(server: Server, name: str) -> float:
    """The value of a metric, as Prometheus would read it."""

    def get() -> str:
        with urllib.request.urlopen(f"{server.url}/metrics", timeout=10) as response:
            return str(response.read().decode())

    page = await asyncio.to_thread(get)
    found = re.search(rf"^{name} (\S+)$", page, re.MULTILINE)
    assert found is not None, page
    return float(found[1])


def peak_memory(server: Server) -> int:
    """Bytes that the process has had at most."""
    status = Path(f"/proc/{server.popen.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


async def test_it_is_cut_and_has_lost_nothing_when_it_is_back(
    bounded: Server, publisher: TransportPublisher, job_id: str, token: Token
) -> None:
    async def say(*events: JobEvent) -> None:
        await asyncio.to_thread(publisher.publish, [Outgoing.of(event) for event in events])

    await say(started(job_id))
    async with (
        raw_client(bounded.url, token(jobs=["*"])) as slow,
        following(bounded.url, token(jobs=["*"])) as other,
    ):
        await slow.join(job_id)
        await other.join(job_id)
        before = peak_memory(bounded)
        for begin in range(0, LINES, PIECE):
            await say(*(log(job_id, f"{LINE}{n}") for n in range(begin, begin + PIECE)))
            # The other one has each piece before the next is said.
            await other.transcript.wait_logged(job_id, begin + PIECE)
        assert peak_memory(bounded) - before < ROOM
        assert await metric(bounded, "jobcast_slow_disconnects_total") == 1
        assert "reads too slowly" in bounded.log
        await eventually(lambda: bounded.log.count("disconnected") == 1, "its disconnection")
        assert other.client.connected
        assert await metric(bounded, "jobcast_connections") == 1
        await slow.read_to_the_end()
        seen = [event["message"] for event in slow.events("job_log")]
        assert seen == [f"{LINE}{n}" for n in range(len(seen))]
        assert len(seen) < LINES
        epoch = slow.events("joined")[-1]["epoch"]
        seq = max([0, *(event["seq"] for event in slow.events("job_log"))])

    async with raw_client(bounded.url, token(jobs=["*"])) as back:
        await back.join(job_id, after={"epoch": epoch, "seq": seq})
        missed = [event["message"] for event in back.events("job_log")]
        assert seen + missed == [f"{LINE}{n}" for n in range(LINES)]
        await say(log(job_id, "live again"))
        await back.read_until(lambda packet: "live again" in packet)


async def test_its_progress_is_replaced_and_it_stays(
    bounded: Server, publisher: TransportPublisher, job_id: str, token: Token
) -> None:
    async def say(first: int, last: int) -> None:
        values = (
            JobProgress(job_id=job_id, percentage=n / VALUES, message=LINE)
            for n in range(first, last)
        )
        await asyncio.to_thread(publisher.publish, [Outgoing.of(value) for value in values])

    async with raw_client(bounded.url, token(jobs=["*"])) as slow:
        await slow.join(job_id)
        said = 0
        while not await metric(bounded, "jobcast_conflated_total"):
            await say(said, said + PIECE)
            said += PIECE
            assert said < VALUES
        await say(said, VALUES)
        assert await metric(bounded, "jobcast_slow_disconnects_total") == 0
        await slow.read_until(lambda packet: f'"seq":{VALUES}}}' in packet)
        values = [event["percentage"] for event in slow.events("job_progress")]
        assert values == sorted(set(values))
        assert len(values) < VALUES
        assert values[-1] == (VALUES - 1) / VALUES
