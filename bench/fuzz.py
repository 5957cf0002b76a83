"""Send mutated input to a server, and check that it stays healthy.

python -m bench.fuzz --seconds 60 --seed 7 [--only 123] [--keep]

Sessions with WebSocket, long-polling, an upgrade between them, event streams and plain HTTP send
valid structures with mutations at every level. A session depends only on the seed and its number,
so that ``--only`` can repeat it alone. Meanwhile an innocent client follows a job.

The exit code is 0 if the server logged no traceback, answered nothing with 5xx, did not grow after
its warm-up, has no connection left at the end, and the innocent client received every event once
and in order.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final

from bench.mutations import Mutations
from jobcast.testing import log, started
from jobcast.tokens import mint
from jobcast.transports import Outgoing, open_publisher
from tests.support import SECRET, new_id, running, wire
from tests.support.attacks.catalogue import POLLING, polling_sid
from tests.support.attacks.innocent_client import innocent
from tests.support.attacks.server import Served, server_errors
from tests.support.redis_family import RedisProcess
from tests.support.wire import ENGINE_PATH, Gone, WebSocket, Wire, text

CONCURRENCY: Final = 12  # sessions
SUBJECTS: Final = 100  # each has a budget of HTTP requests
STEPS: Final = 12  # maximum per session
ANSWER_TIMEOUT: Final = 0.3  # seconds; many requests get no answer
SESSION_TIMEOUT: Final = 20.0  # seconds
WARM_UP: Final = 0.35  # share of the run after which the server should no longer grow
MAX_GROWTH: Final = 24 * 1024 * 1024  # bytes of garbage that the server may not have collected yet
GRACE: Final = 120.0  # seconds for the last events to arrive and connections to close
CHECK_INTERVAL: Final = 1.0  # seconds between two checks of the server
TRACEBACK_LINES: Final = 12  # printed of each traceback
LINES: Final = 500  # of each job that sessions join

# All sessions come from one address.
ENVIRONMENT: Final = {
    "JOBCAST_MAX_CONNECTIONS_PER_ADDRESS": "10000",
    "JOBCAST_MAX_CONNECTIONS_PER_SUBJECT": "10000",
    "JOBCAST_MAX_UNAUTHENTICATED": "10000",
    "JOBCAST_HANDSHAKE_TIMEOUT": "5",
    "JOBCAST_SEND_TIMEOUT": "5",
}


@dataclass(frozen=True)
class Options:
    seconds: float = 60.0
    seed: int = 7
    only: int | None = None  # the number of one session
    keep: bool = False  # keep the log of a successful run


@dataclass
class Report:
    """The counts and the problems of a run."""

    folder: Path
    counts: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    warm: int = 0  # bytes of memory after the warm-up
    peak: int = 0  # maximum bytes of memory after that

    @property
    def ok(self) -> bool:
        return not self.problems

    def table(self) -> str:
        rows = [
            *sorted(self.counts.items()),
            *((f"HTTP {status}", count) for status, count in sorted(self.statuses.items())),
            ("memory after warm-up, KiB", self.warm // 1024),
            ("peak memory after that, KiB", self.peak // 1024),
        ]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {number:>9}" for name, number in rows)


class Session:
    """One client, whose steps depend only on the seed and its number."""

    def __init__(self, fuzz: Fuzz, number: int) -> None:
        self._fuzz = fuzz
        self._report = fuzz.report
        self._rng = Random(f"{fuzz.seed} {number}")
        self._token = fuzz.tokens[number % SUBJECTS]
        self._mutations = Mutations(self._rng, self._token, fuzz.jobs)

    async def run(self) -> None:
        kinds: tuple[Callable[[], Awaitable[None]], ...] = (
            self._websocket, self._websocket, self._polling, self._upgrade, self._http,
            self._handshake, self._stream,
        )  # fmt: skip
        session = self._rng.choice(kinds)
        self._report.counts[session.__name__.removeprefix("_")] += 1
        with suppress(Gone):
            await session()

    @property
    def _steps(self) -> range:
        return range(self._rng.randrange(1, STEPS))

    def _disconnect(self, connection: Wire) -> None:
        """Close a connection, some with RST."""
        if self._mutations.rarely(0.3):
            connection.reset()

    async def _websocket(self) -> None:
        async with WebSocket(self._fuzz.url, window=self._window()) as socket:
            socket.keeps = False
            await socket.handshake()
            if self._mutations.rarely(0.7):
                await socket.send(text(f"40{json.dumps({'token': self._token})}"))
            await self._talk(socket)
            self._disconnect(socket)

    def _window(self) -> int:
        return self._rng.choice((0, 0, 0, wire.SMALL_WINDOW))

    async def _talk(self, socket: WebSocket) -> None:
        for _ in self._steps:
            burst = b"".join(
                self._mutations.frames() for _ in range(self._rng.choice((1, 1, 3, 50)))
            )
            await socket.send(burst)
            if self._mutations.rarely(0.5):
                await self._read_soon(socket)
        if self._mutations.rarely(0.3):
            await self._read_soon(socket)

    async def _read_soon(self, socket: WebSocket) -> None:
        """Read packets for a short time, and answer pings."""
        with suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_TIMEOUT * self._rng.random()):
                while True:
                    if "2" in await socket.read_packets():
                        await socket.send(text("3"))

    async def _polling(self) -> None:
        async with Wire(self._fuzz.url) as connection, AsyncExitStack() as stack:
            sid = await polling_sid(connection)
            self._fuzz.remember(sid)
            path = f"{POLLING}&sid={sid}"
            if self._mutations.rarely(0.7):
                hello = f"40{json.dumps({'token': self._token})}".encode()
                await self._exchange(connection, wire.post(path, hello))
            pollers: list[Wire] = []
            for _ in self._steps:
                if self._mutations.rarely(0.3):  # polls race with posts, and with each other
                    poller = await stack.enter_async_context(Wire(self._fuzz.url))
                    await poller.send(wire.request("GET", path))
                    pollers.append(poller)
                elif self._mutations.rarely(0.6):
                    await self._exchange(connection, wire.post(path, self._mutations.payload()))
                else:
                    await self._exchange(connection, self._mutations.http(self._some_sid(sid)))
            for poller in pollers:
                await self._read_answer(poller)
                self._disconnect(poller)

    async def _upgrade(self) -> None:
        """Upgrade from long-polling to a WebSocket, with mutated frames in between."""
        async with Wire(self._fuzz.url) as connection, WebSocket(self._fuzz.url) as socket:
            sid = await polling_sid(connection)
            self._fuzz.remember(sid)
            path = f"{POLLING}&sid={sid}"
            if self._mutations.rarely(0.5):
                hello = f"40{json.dumps({'token': self._token})}".encode()
                await self._exchange(connection, wire.post(path, hello))
            if self._mutations.rarely(0.5):
                await connection.send(wire.request("GET", path))
            await socket.handshake(f"{ENGINE_PATH}&sid={self._some_sid(sid)}")
            probe, upgrade = text("2probe"), text("5")
            steps = [probe, upgrade]
            for _ in range(self._rng.randrange(3)):
                steps.insert(self._rng.randrange(len(steps) + 1), self._mutations.frames())
            if self._mutations.rarely(0.2):
                steps.reverse()
            for step in steps:
                await socket.send(step)
                if self._mutations.rarely(0.5):
                    await self._read_soon(socket)
                if self._mutations.rarely(0.2):
                    other = wire.post(path, self._mutations.payload())
                    async with Wire(self._fuzz.url) as late:
                        await self._exchange(late, other)
            await self._talk(socket)
            self._disconnect(socket)

    async def _http(self) -> None:
        for _ in self._steps:
            async with Wire(self._fuzz.url) as connection:
                await connection.send(self._mutations.http(self._some_sid("")))
                await self._read_answer(connection)
                self._disconnect(connection)

    async def _stream(self) -> None:
        """Read streams and states for a short time, or not at all."""
        for _ in self._steps:
            async with Wire(self._fuzz.url, window=self._window()) as connection:
                await connection.send(self._mutations.stream_request())
                if self._mutations.rarely(0.7):
                    await self._read_answer(connection)
                self._disconnect(connection)

    async def _handshake(self) -> None:
        """Send a mutated upgrade request together with frames."""
        replaced: tuple[tuple[bytes, bytes], ...] = (
            (b"", b""), (b"Version: 13", b"Version: 8"), (b"dGhlIHNhbXBsZSBub25jZQ==", b"x"),
            (b"GET", b"POST"), (b"HTTP/1.1", b"HTTP/1.0"), (b"Upgrade: websocket", b"Upgrade: x"),
            (b"EIO=4", b"EIO=3"), (b"/socket.io/", b"/else/"),
            (b"websocket\r\n", b"websocket, x\r\n"),
        )  # fmt: skip
        query = self._mutations.query(self._some_sid("")) if self._mutations.rarely(0.4) else ""
        path = f"/socket.io/?{query}" if query else ENGINE_PATH
        data = wire.upgrade(path).replace(*self._rng.choice(replaced), 1)
        async with Wire(self._fuzz.url) as connection:
            frames = b"".join(self._mutations.frames() for _ in self._steps)
            await connection.send(data + frames)
            await self._read_answer(connection)
            self._disconnect(connection)

    def _some_sid(self, own: str) -> str:
        """Return the session's own id, a recent or unknown one, or none."""
        return self._rng.choice((own, own, own, "", "x" * 20, *self._fuzz.sids[-3:]))

    async def _exchange(self, connection: Wire, data: bytes) -> None:
        await connection.send(data)
        await self._read_answer(connection)

    async def _read_answer(self, connection: Wire) -> None:
        """Read the answer if one arrives in time."""
        with suppress(TimeoutError, ValueError, IndexError):
            async with asyncio.timeout(ANSWER_TIMEOUT):
                status, _ = await connection.read_response()
                self._report.statuses[status] += 1


class Fuzz:
    """A run: its sessions and the checks of the server."""

    def __init__(self, options: Options, report: Report, server: Served, transport: str) -> None:
        self.report = report
        self.seed = options.seed
        self.url = server.url
        self.tokens = [
            mint(SECRET, f"fuzz-{n}", jobs=["*"], ttl=24 * 3600) for n in range(SUBJECTS)
        ]
        self.jobs = _jobs(transport)
        self.sids: list[str] = []
        self._options = options
        self._server = server
        self._transport = transport
        self._active: set[int] = set()
        self._checked = 0  # characters of the log
        self._faults: list[str] = []

    def remember(self, sid: str) -> None:
        """Store the id of a session for use in other sessions."""
        self.sids.append(sid)
        del self.sids[:-20]

    async def run(self) -> None:
        token = mint(SECRET, "innocent", jobs=["*"], ttl=24 * 3600)
        async with innocent(self.url, self._transport, token) as client:
            numbers = (
                itertools.count() if self._options.only is None else iter([self._options.only])
            )
            deadline = time.monotonic() + self._options.seconds
            workers = [
                asyncio.create_task(self._work(numbers, deadline)) for _ in range(CONCURRENCY)
            ]
            await self._monitor(workers)
            await asyncio.gather(*workers)
            if (growth := self.report.peak - self.report.warm) > MAX_GROWTH:
                self.report.problems.append(
                    f"the server grew by {growth // 2**20} MiB after the warm-up"
                )
            if problem := await client.check(GRACE):
                self.report.problems.append(f"the innocent client: {problem}")
            self.report.counts["events of the innocent client"] = len(client.received)
        await self._check_gauges()

    async def _work(self, numbers: Iterator[int], deadline: float) -> None:
        for number in numbers:
            if time.monotonic() >= deadline or self._ended:
                return
            self._active.add(number)
            self.report.counts["sessions"] += 1
            try:
                async with asyncio.timeout(SESSION_TIMEOUT):
                    await Session(self, number).run()
            except TimeoutError:
                self.report.counts["sessions that timed out"] += 1
            finally:
                self._active.discard(number)

    @property
    def _ended(self) -> bool:
        return self._server.popen.poll() is not None

    async def _monitor(self, workers: list[asyncio.Task[None]]) -> None:
        """Check the server until the sessions have ended."""
        began = time.monotonic()
        while not all(worker.done() for worker in workers):
            before = sorted(self._active)
            await asyncio.wait(workers, timeout=CHECK_INTERVAL)
            sessions = f"sessions {before} to {sorted(self._active)}, seed {self.seed}"
            for fault in await asyncio.to_thread(self._new_faults):
                self.report.problems.append(f"{fault}\nduring {sessions}")
            self._sample_memory(time.monotonic() - began)

    def _new_faults(self) -> list[str]:
        """Return the server's faults since the last check, each kind once per run."""
        log = self._server.log
        new, self._checked = log[self._checked :], len(log)
        faults = [*tracebacks(new), *server_errors(new)[:1]]
        if self._ended:
            faults.append(f"the server ended with {self._server.popen.returncode}")
        known = {kind_of(fault) for fault in self._faults}
        unseen = {kind_of(fault): fault for fault in faults if kind_of(fault) not in known}
        self._faults += unseen.values()
        return list(unseen.values())

    def _sample_memory(self, elapsed: float) -> None:
        if self._ended:
            return
        memory = self._server.memory()
        if elapsed < WARM_UP * self._options.seconds:
            self.report.warm = max(self.report.warm, memory)
            return
        self.report.peak = max(self.report.peak, memory)

    async def _check_gauges(self) -> None:
        """Check that all connections close."""
        if self._ended:
            return
        deadline, remaining = time.monotonic() + GRACE, dict[str, float]()
        while time.monotonic() < deadline:
            remaining = await asyncio.to_thread(self._server.gauges)
            if not any(remaining.values()):
                return
            await asyncio.sleep(0.2)
        self.report.problems.append(f"open at the end: {remaining}")


def tracebacks(log: str) -> list[str]:
    """Return the last lines of each traceback in a log, after the line before it."""
    lines = log.splitlines()
    starts = [n for n, line in enumerate(lines) if "Traceback (most recent call last)" in line]
    found: list[str] = []
    for start in starts:
        end = start + 1
        while end < len(lines) and lines[end].startswith(" "):
            end += 1
        # The error is indented in the log of `jobcast serve`, but not in other logs.
        last = min(end + 1, len(lines)) if lines[start].startswith("Traceback") else end
        found.append(
            "\n".join(
                [*lines[max(0, start - 1) : start], *lines[start + 1 : last][-TRACEBACK_LINES:]]
            )
        )
    return found


def kind_of(fault: str) -> str:
    """Return a key that is equal for faults of one kind."""
    return re.sub(r"0x\w+|\d+|[\w-]{20}", "#", "\n".join(fault.splitlines()[-3:]))


def _jobs(transport: str) -> list[str]:
    """Publish two jobs, and return their ids and an unknown id."""
    publisher = open_publisher(transport)
    job_ids = [new_id("fuzz") for _ in range(3)]
    for job_id in job_ids[:2]:
        lines = (log(job_id, f"line {n} {'x' * 200}") for n in range(LINES))
        publisher.publish([Outgoing.of(event) for event in (started(job_id), *lines)])
    publisher.close()
    return job_ids


def fuzz(options: Options) -> Report:
    """Fuzz a new server. The report's folder exists only after a failure or with ``keep``."""
    folder = Path(tempfile.mkdtemp(prefix="jobcast-fuzz-"))
    report = Report(folder)
    with ExitStack() as stack:
        valkey = stack.enter_context(running(RedisProcess(folder / "valkey")))
        valkey.ready()
        server = Served(folder / "server.log", valkey.url, ENVIRONMENT)
        stack.enter_context(running(server))
        server.ready()
        asyncio.run(Fuzz(options, report, server, valkey.url).run())
    if report.ok and not options.keep:
        shutil.rmtree(folder)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.fuzz")
    parser.add_argument("--seconds", type=float, default=Options.seconds)
    parser.add_argument("--seed", type=int, default=Options.seed)
    parser.add_argument("--only", type=int, help="run only the session with this number")
    parser.add_argument("--keep", action="store_true", help="keep the log of a successful run")
    report = fuzz(Options(**vars(parser.parse_args())))
    print(report.table())
    for problem in report.problems:
        print(f"\n{problem}")
    if report.folder.exists():
        print(f"\nlog: {report.folder}")
    sys.exit(0 if report.ok else 1)


if __name__ == "__main__":
    main()
