"""A client that must be unaffected by attacks: its events and their latencies."""

from __future__ import annotations

import asyncio
import json
import statistics
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

from jobcast.testing import log, started
from jobcast.transports import Outgoing, Retention, open_publisher
from tests.support import new_id
from tests.support.wire import Gone, WebSocket, text

INTERVAL: Final = 0.02  # seconds between two events


class Publisher:
    """Publisher of numbered lines of a job, with the time of each, in a thread."""

    def __init__(self, transport: str, job_id: str) -> None:
        self.job_id = job_id
        self.published: list[float] = []  # times, by number
        self._publisher = open_publisher(transport, Retention(ttl=24 * 3600, size=1_000_000))
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)
        self._publisher.publish([Outgoing.of(started(job_id))])

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop publishing."""
        self._stopping.set()
        self._thread.join()
        self._publisher.close()

    def _run(self) -> None:
        while not self._stopping.wait(INTERVAL):
            number, now = len(self.published), time.monotonic()
            self._publisher.publish([Outgoing.of(log(self.job_id, str(number)))])
            self.published.append(now)


@dataclass
class Innocent:
    """A follower of one job on a WebSocket."""

    publisher: Publisher
    received: list[tuple[int, float]] = field(default_factory=list)  # number, time
    lost: str = ""  # the reason why the connection ended, if it did

    def latencies(self, since: float = 0.0) -> list[float]:
        """Return the seconds from publishing to receiving, for events published since a time.

        A missing event counts with its age.
        """
        arrived = dict(self.received)
        now = time.monotonic()
        return [
            arrived.get(number, now) - at
            for number, at in enumerate(list(self.publisher.published))
            if at >= since
        ]

    async def check(self, timeout: float) -> str:
        """Wait for all events published so far.

        Returns:
            The fault of the transcript, or an empty string if it has each event once, in order.
        """
        published = len(self.publisher.published)
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while len(self.received) < published and not self.lost:
                    await asyncio.sleep(0.02)
        if self.lost:
            return f"closed: {self.lost}"
        numbers = [number for number, _ in self.received]
        for expected, number in enumerate(numbers):
            if number != expected:
                return f"{number} instead of {expected}"
        missing = published - len(numbers)
        return f"{missing} missing" if missing > 0 else ""

    async def follow(self, socket: WebSocket) -> None:
        """Read until the connection ends."""
        try:
            while True:
                for packet in await socket.read_packets():
                    if packet == "2":
                        await socket.send(text("3"))
                    elif packet.startswith('42["job_log"'):
                        message = json.loads(packet[2:])[1]["message"]
                        self.received.append((int(message), time.monotonic()))
        except Gone as exc:
            self.lost = str(exc)


@asynccontextmanager
async def innocent(url: str, transport: str, token: str) -> AsyncIterator[Innocent]:
    """Connect a client that follows its own job, which logs a line every 20 ms."""
    publisher = await asyncio.to_thread(Publisher, transport, new_id("innocent"))
    client = Innocent(publisher)
    async with WebSocket(url) as socket:
        socket.keeps = False
        await socket.greet(token)
        await socket.ask("join_job", {"job_id": publisher.job_id})
        reading = asyncio.create_task(client.follow(socket))
        publisher.start()
        try:
            yield client
        finally:
            await asyncio.to_thread(publisher.stop)
            reading.cancel()
            with suppress(asyncio.CancelledError):
                await reading


@dataclass(frozen=True)
class Lateness:
    """Latencies in milliseconds."""

    median: float
    worst: float

    @classmethod
    def of(cls, latencies: list[float]) -> Lateness:
        return cls(statistics.median(latencies) * 1e3, max(latencies) * 1e3)
