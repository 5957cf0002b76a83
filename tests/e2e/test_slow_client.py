"""A client that does not read costs bounded memory and does not affect other clients."""

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
BATCH = 25  # lines published at a time
LINES = 3000  # in total: 24 MB
VALUES = 5000
MAX_GROWTH = 20 * 1024 * 1024  # bytes; without a bound the server grows by all LINES


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
    """Return the value of a metric from ``/metrics``."""

    def get() -> str:
        with urllib.request.urlopen(f"{server.url}/metrics", timeout=10) as response:
            return str(response.read().decode())

    page = await asyncio.to_thread(get)
    found = re.search(rf"^{name} (\S+)$", page, re.MULTILINE)
    assert found is not None, page
    return float(found[1])


def peak_memory(server: Server) -> int:
    """Return the peak memory of the process in bytes."""
    status = Path(f"/proc/{server.popen.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


async def test_slow_client_is_cut_and_resumes_without_loss(
    bounded: Server, publisher: TransportPublisher, job_id: str, token: Token
) -> None:
    async def publish(*events: JobEvent) -> None:
        await asyncio.to_thread(publisher.publish, [Outgoing.of(event) for event in events])

    await publish(started(job_id))
    async with (
        raw_client(bounded.url, token(jobs=["*"])) as slow,
        following(bounded.url, token(jobs=["*"])) as other,
    ):
        await slow.join(job_id)
        await other.join(job_id)
        before = peak_memory(bounded)
        for begin in range(0, LINES, BATCH):
            await publish(*(log(job_id, f"{LINE}{n}") for n in range(begin, begin + BATCH)))
            # The other client receives each batch before the next is published.
            await other.transcript.wait_logged(job_id, begin + BATCH)
        assert peak_memory(bounded) - before < MAX_GROWTH
        assert await metric(bounded, "jobcast_slow_disconnects_total") == 1
        await eventually(lambda: "reads too slowly" in bounded.log, "warning")
        await eventually(
            lambda: bounded.log.count("disconnected") == 1, "disconnection of the slow client"
        )
        assert other.client.connected
        assert await metric(bounded, "jobcast_connections") == 1
        await slow.read_to_the_end()
        seen = [event["message"] for event in slow.events("job_log")]
        assert seen == [f"{LINE}{n}" for n in range(len(seen))]
        assert len(seen) < LINES
        epoch = slow.events("joined")[-1]["epoch"]
        seq = max([0, *(event["seq"] for event in slow.events("job_log"))])

    async with raw_client(bounded.url, token(jobs=["*"])) as resumed:
        await resumed.join(job_id, after={"epoch": epoch, "seq": seq})
        missed = [event["message"] for event in resumed.events("job_log")]
        assert seen + missed == [f"{LINE}{n}" for n in range(LINES)]
        await publish(log(job_id, "live again"))
        await resumed.read_until(lambda packet: "live again" in packet)


async def test_progress_of_a_slow_client_is_conflated_without_a_disconnect(
    bounded: Server, publisher: TransportPublisher, job_id: str, token: Token
) -> None:
    async def publish(first: int, last: int) -> None:
        values = (
            JobProgress(job_id=job_id, percentage=n / VALUES, message=LINE)
            for n in range(first, last)
        )
        await asyncio.to_thread(publisher.publish, [Outgoing.of(value) for value in values])

    async with raw_client(bounded.url, token(jobs=["*"])) as slow:
        await slow.join(job_id)
        published = 0
        while not await metric(bounded, "jobcast_conflated_total"):
            await publish(published, published + BATCH)
            published += BATCH
            assert published < VALUES
        await publish(published, VALUES)
        assert await metric(bounded, "jobcast_slow_disconnects_total") == 0
        await slow.read_until(lambda packet: f'"seq":{VALUES}}}' in packet)
        values = [event["percentage"] for event in slow.events("job_progress")]
        assert values == sorted(set(values))
        assert len(values) < VALUES
        assert values[-1] == (VALUES - 1) / VALUES
