"""Nonsense for a server, of every kind that has a structure: does it hold?

python -m bench.fuzz --seconds 60 --seed 7 [--only 123] [--keep]

Sessions of WebSocket, of long-polling, of both, and of plain HTTP send valid structures that are
mutated at every level. Each session follows from the seed and its number, so that one can be
repeated alone (``--only``). Meanwhile an innocent client follows a job.

The exit code is 0 if the server has logged no traceback and answered nothing with 5xx, has not
grown after it was warm, has no connection left in the end, and the innocent client got every event
once and in order.
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

AT_ONCE: Final = 12  # sessions
STEPS: Final = 12  # that a session has at most
PATIENCE: Final = 0.3  # seconds to wait for an answer that may never come
SESSION_TIMEOUT: Final = 20.0  # seconds
WARM: Final = 0.35  # part of the time after which the server should not grow any more
FLAT: Final = 24 * 1024 * 1024  # bytes of growth that garbage may explain
GRACE: Final = 120.0  # seconds for the last events to come and connections to go
CHECK: Final = 1.0  # seconds between two looks at the server
SHOWN: Final = 12  # lines of a traceback
LINES: Final = 500  # of each job that sessions may join

# So many connections from one address are no attack here.
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
    keep: bool = False  # the log, also if all is well


@dataclass
class Report:
    """What the server did."""

    folder: Path
    counts: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    warm: int = 0  # bytes of memory when it was warm
    peak: int = 0  # bytes of memory at most after that

    @property
    def ok(self) -> bool:
        return not self.problems

    def table(self) -> str:
        rows = [
            *sorted(self.counts.items()),
            *((f"HTTP {status}", count) for status, count in sorted(self.statuses.items())),
            ("memory when warm, KiB", self.warm // 1024),
            ("memory at most after that, KiB", self.peak // 1024),
        ]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {number:>9}" for name, number in rows)


class Session:
    """One client, whose steps follow from the seed and its number."""

    def __init__(self, fuzz: Fuzz, number: int) -> None:
        self._fuzz = fuzz
        self._report = fuzz.report
        self._rng = Random(f"{fuzz.seed} {number}")
        self._mutations = Mutations(self._rng, fuzz.token, fuzz.jobs)

    async def run(self) -> None:
        kinds: tuple[Callable[[], Awaitable[None]], ...] = (
            self._websocket, self._websocket, self._polling, self._upgrade, self._http,
            self._handshake,
        )  # fmt: skip
        live = self._rng.choice(kinds)
        self._report.counts[live.__name__.removeprefix("_")] += 1
        with suppress(Gone):
            await live()

    @property
    def _steps(self) -> range:
        return range(self._rng.randrange(1, STEPS))

    def _leave(self, connection: Wire) -> None:
        """End a connection in one of the ways there are."""
        if self._mutations.rarely(0.3):
            connection.reset()

    async def _websocket(self) -> None:
        async with WebSocket(self._fuzz.url, window=self._window()) as socket:
            socket.keeps = False
            await socket.handshake()
            if self._mutations.rarely(0.7):
                await socket.send(text(f"40{json.dumps({'token': self._fuzz.token})}"))
            await self._talk(socket)
            self._leave(socket)

    def _window(self) -> int:
        return self._rng.choice((0, 0, 0, wire.SMALL_WINDOW))

    async def _talk(self, socket: WebSocket) -> None:
        for _ in self._steps:
            burst = b"".join(
                self._mutations.frames() for _ in range(self._rng.choice((1, 1, 3, 50)))
            )
            await socket.send(burst)
            if self._mutations.rarely(0.5):
                await self._hear(socket)
        if self._mutations.rarely(0.3):
            await self._hear(socket)

    async def _hear(self, socket: WebSocket) -> None:
        """Read what comes soon, and answer pings."""
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE * self._rng.random()):
                while True:
                    if "2" in await socket.read_packets():
                        await socket.send(text("3"))

    async def _polling(self) -> None:
        async with Wire(self._fuzz.url) as connection, AsyncExitStack() as stack:
            sid = await polling_sid(connection)
            self._fuzz.remember(sid)
            path = f"{POLLING}&sid={sid}"
            if self._mutations.rarely(0.7):
                hello = f"40{json.dumps({'token': self._fuzz.token})}".encode()
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
                await self._answer(poller)
                self._leave(poller)

    async def _upgrade(self) -> None:
        """From long-polling to a WebSocket, with things in between."""
        async with Wire(self._fuzz.url) as connection, WebSocket(self._fuzz.url) as socket:
            sid = await polling_sid(connection)
            self._fuzz.remember(sid)
            path = f"{POLLING}&sid={sid}"
            if self._mutations.rarely(0.5):
                hello = f"40{json.dumps({'token': self._fuzz.token})}".encode()
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
                    await self._hear(socket)
                if self._mutations.rarely(0.2):
                    other = wire.post(path, self._mutations.payload())
                    async with Wire(self._fuzz.url) as late:
                        await self._exchange(late, other)
            await self._talk(socket)
            self._leave(socket)

    async def _http(self) -> None:
        for _ in self._steps:
            async with Wire(self._fuzz.url) as connection:
                await connection.send(self._mutations.http(self._some_sid("")))
                await self._answer(connection)
                self._leave(connection)

    async def _handshake(self) -> None:
        """An upgrade request with something wrong, and frames behind it at once."""
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
            await self._answer(connection)
            self._leave(connection)

    def _some_sid(self, own: str) -> str:
        """The session's own, another one's, one that has been, or none."""
        return self._rng.choice((own, own, own, "", "x" * 20, *self._fuzz.sids[-3:]))

    async def _exchange(self, connection: Wire, data: bytes) -> None:
        await connection.send(data)
        await self._answer(connection)

    async def _answer(self, connection: Wire) -> None:
        """Read the answer, if one comes soon."""
        with suppress(TimeoutError, ValueError, IndexError):
            async with asyncio.timeout(PATIENCE):
                status, _ = await connection.read_response()
                self._report.statuses[status] += 1


class Fuzz:
    """A run: sessions, and what is looked at meanwhile."""

    def __init__(self, options: Options, report: Report, server: Served, transport: str) -> None:
        self.report = report
        self.seed = options.seed
        self.url = server.url
        self.token = mint(SECRET, "fuzz", jobs=["*"], ttl=24 * 3600)
        self.jobs = _jobs(transport)
        self.sids: list[str] = []
        self._options = options
        self._server = server
        self._transport = transport
        self._under_way: set[int] = set()
        self._read = 0  # characters of the log
        self._faults: list[str] = []

    def remember(self, sid: str) -> None:
        """Keep the id of a session, for others to misuse."""
        self.sids.append(sid)
        del self.sids[:-20]

    async def run(self) -> None:
        token = mint(SECRET, "innocent", jobs=["*"], ttl=24 * 3600)
        async with innocent(self.url, self._transport, token) as client:
            numbers = (
                itertools.count() if self._options.only is None else iter([self._options.only])
            )
            deadline = time.monotonic() + self._options.seconds
            workers = [asyncio.create_task(self._work(numbers, deadline)) for _ in range(AT_ONCE)]
            await self._watch(workers)
            await asyncio.gather(*workers)
            if (grown := self.report.peak - self.report.warm) > FLAT:
                self.report.problems.append(
                    f"it has grown by {grown // 2**20} MiB since it was warm"
                )
            if problem := await client.check(GRACE):
                self.report.problems.append(f"the innocent client: {problem}")
            self.report.counts["events of the innocent client"] = len(client.received)
        await self._check_gauges()

    async def _work(self, numbers: Iterator[int], deadline: float) -> None:
        for number in numbers:
            if time.monotonic() >= deadline or self._ended:
                return
            self._under_way.add(number)
            self.report.counts["sessions"] += 1
            try:
                async with asyncio.timeout(SESSION_TIMEOUT):
                    await Session(self, number).run()
            except TimeoutError:
                self.report.counts["sessions that took too long"] += 1
            finally:
                self._under_way.discard(number)

    @property
    def _ended(self) -> bool:
        return self._server.popen.poll() is not None

    async def _watch(self, workers: list[asyncio.Task[None]]) -> None:
        """Look at the server until the sessions have ended."""
        began = time.monotonic()
        while not all(worker.done() for worker in workers):
            before = sorted(self._under_way)
            await asyncio.wait(workers, timeout=CHECK)
            some = f"sessions {before} to {sorted(self._under_way)}, seed {self.seed}"
            for fault in await asyncio.to_thread(self._new_faults):
                self.report.problems.append(f"{fault}\nduring {some}")
            self._weigh(time.monotonic() - began)

    def _new_faults(self) -> list[str]:
        """What is wrong with the server since it was looked at last, each kind once."""
        log = self._server.log
        new, self._read = log[self._read :], len(log)
        faults = [*tracebacks(new), *server_errors(new)[:1]]
        if self._ended:
            faults.append(f"the server ended with {self._server.popen.returncode}")
        known = {kind_of(fault) for fault in self._faults}
        fresh = {kind_of(fault): fault for fault in faults if kind_of(fault) not in known}
        self._faults += fresh.values()
        return list(fresh.values())

    def _weigh(self, elapsed: float) -> None:
        if self._ended:
            return
        memory = self._server.memory()
        if elapsed < WARM * self._options.seconds:
            self.report.warm = max(self.report.warm, memory)
            return
        self.report.peak = max(self.report.peak, memory)

    async def _check_gauges(self) -> None:
        """Nothing should be left of the connections."""
        if self._ended:
            return
        deadline, left = time.monotonic() + GRACE, dict[str, float]()
        while time.monotonic() < deadline:
            left = await asyncio.to_thread(self._server.gauges)
            if not any(left.values()):
                return
            await asyncio.sleep(0.2)
        self.report.problems.append(f"left in the end: {left}")


def tracebacks(log: str) -> list[str]:
    """Return the ends of the tracebacks in a log, and what each was about."""
    lines = log.splitlines()
    starts = [n for n, line in enumerate(lines) if "Traceback (most recent call last)" in line]
    found: list[str] = []
    for start in starts:
        end = start + 1
        while end < len(lines) and lines[end].startswith(" "):
            end += 1
        # The error itself is indented in the server's own log, and not in others.
        last = min(end + 1, len(lines)) if lines[start].startswith("Traceback") else end
        found.append(
            "\n".join([*lines[max(0, start - 1) : start], *lines[start + 1 : last][-SHOWN:]])
        )
    return found


def kind_of(fault: str) -> str:
    """What faults of one kind have in common."""
    return re.sub(r"0x\w+|\d+|[\w-]{20}", "#", "\n".join(fault.splitlines()[-3:]))


def _jobs(transport: str) -> list[str]:
    """Jobs that sessions may follow, one of which does not exist."""
    publisher = open_publisher(transport)
    job_ids = [new_id("fuzz") for _ in range(3)]
    for job_id in job_ids[:2]:
        lines = (log(job_id, f"line {n} {'x' * 200}") for n in range(LINES))
        publisher.publish([Outgoing.of(event) for event in (started(job_id), *lines)])
    publisher.close()
    return job_ids


def fuzz(options: Options) -> Report:
    """Run it. The report's folder is there only if there is something to look for in it."""
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
    parser.add_argument("--only", type=int, help="the number of one session")
    parser.add_argument("--keep", action="store_true", help="the log, also if all is well")
    report = fuzz(Options(**vars(parser.parse_args())))
    print(report.table())
    for problem in report.problems:
        print(f"\n{problem}")
    if report.folder.exists():
        print(f"\nthe log is in {report.folder}")
    sys.exit(0 if report.ok else 1)


if __name__ == "__main__":
    main()
