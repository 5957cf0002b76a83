"""Measure the effect of hostile clients on an innocent client and on the server.

python -m bench.hostile [--seconds 6] [--only pongs,binary] [--runs 1,10]

Each attack runs in a separate process against a new server, first with one connection, then with
several. Meanwhile an innocent client follows a job with 50 events a second, and another client
connects repeatedly. The table shows the latency of the events, the time to connect, and the growth
of the server's memory and log, its tracebacks and its HTTP errors.

The program uses only the protocol, so that it can measure older servers, too.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from jobcast.tokens import mint
from tests.support import SECRET, running
from tests.support.attacks.attack import Attack
from tests.support.attacks.catalogue import ATTACKS
from tests.support.attacks.history import publish_long_history
from tests.support.attacks.innocent_client import Innocent, Lateness, innocent
from tests.support.attacks.server import Served
from tests.support.redis_family import RedisProcess
from tests.support.wire import Gone, WebSocket

CALM: Final = 1.0  # seconds between the start of the innocent client and the attack
GRACE: Final = 20.0  # seconds after the attack for late events
CONNECT_TIMEOUT: Final = 30.0  # seconds
CONNECT_PAUSE: Final = 0.25  # seconds between two connections of the reconnecting client
CROWD: Final = 1000  # connections
# Attacks with a thousand connections: those without a token, and those that occupy memory.
CROWDED: Final = (
    "pongs", "unauthenticated", "silent", "unread-pings", "unread-history", "streams",
    "unread-streams",
)  # fmt: skip
SEVERAL: Final = 10  # connections


@dataclass(frozen=True)
class Result:
    """A row of the table."""

    attack: Attack
    connections: int
    lateness: Lateness
    connect: float  # seconds of the slowest connection
    memory: int  # peak growth of the process, in bytes
    log: int  # bytes
    tracebacks: int
    server_errors: int
    transcript: str  # the fault of the transcript, or empty
    attackers: dict[str, Any]  # the counts of the attackers

    def row(self) -> str:
        cells = [
            f"{self.attack.row}: {self.attack.title}", f"{self.connections:,}",
            f"{self.lateness.median:,.1f}", f"{self.lateness.worst:,.0f}",
            f"{self.connect * 1e3:,.0f}", f"{self.memory / 2**20:,.0f}",
            f"{self.log / 2**10:,.0f}", f"{self.tracebacks:,}", f"{self.server_errors:,}",
            f"{self.attackers['closed']:,} of {self.attackers['opened']:,}",
            self.transcript or "complete",
        ]  # fmt: skip
        return f"| {' | '.join(cells)} |"


HEADER: Final = (
    "| attack | connections | median, ms | worst, ms | connect, ms | memory, MiB | log, KiB "
    "| tracebacks | 5xx | closed | transcript |\n"
    "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|---|"
)


class ReconnectingClient:
    """A client that connects repeatedly."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._began: float | None = None
        self._slowest = 0.0

    @property
    def slowest(self) -> float:
        """The seconds of the slowest connection, including the pending one."""
        pending = 0.0 if self._began is None else time.monotonic() - self._began
        return max(self._slowest, pending)

    async def run(self) -> None:
        while True:
            self._began = time.monotonic()
            with suppress(Gone, TimeoutError):
                async with asyncio.timeout(CONNECT_TIMEOUT), WebSocket(self._url) as socket:
                    await socket.greet(client_token())
            self._slowest, self._began = self.slowest, None
            await asyncio.sleep(CONNECT_PAUSE)


async def _run_attackers(
    attack: Attack, server: Served, job_id: str, connections: int, seconds: float
) -> dict[str, Any]:
    token = mint(SECRET, "mallory", jobs=["*"])
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.attackers", attack.name, "--url", server.url,
        "--connections", str(connections), "--seconds", str(seconds),
        env={**os.environ, "ATTACK_TOKEN": token, "ATTACK_JOB": job_id},
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"the attackers of {attack.name} ended with {process.returncode}")
    counts: dict[str, Any] = json.loads(output)
    return counts


async def _observe(
    attack: Attack, server: Served, client: Innocent, job_id: str, connections: int, seconds: float
) -> Result:
    await asyncio.sleep(CALM)
    before, log_size = server.forget_peak(), len(server.log)
    reconnecting = ReconnectingClient(server.url)
    reconnects = asyncio.create_task(reconnecting.run())
    began = time.monotonic()
    counts = await _run_attackers(attack, server, job_id, connections, seconds)
    slowest = reconnecting.slowest
    reconnects.cancel()
    transcript = await client.check(GRACE)
    return Result(
        attack, connections, Lateness.of(client.latencies(began)), slowest,
        server.peak_memory() - before, len(server.log) - log_size,
        server.tracebacks, len(server.server_errors), transcript, counts,
    )  # fmt: skip


def client_token() -> str:
    return mint(SECRET, "innocent", jobs=["*"])


def measure(
    attack: Attack, transport: str, job_id: str, connections: int, seconds: float
) -> Result:
    """Run an attack against a new server."""
    with (
        tempfile.TemporaryDirectory() as folder,
        running(Served(Path(folder) / "server.log", transport)) as server,
    ):
        server.ready()

        async def run() -> Result:
            async with innocent(server.url, transport, client_token()) as client:
                return await _observe(attack, server, client, job_id, connections, seconds)

        return asyncio.run(run())


def connection_counts(attack: Attack, runs: Sequence[int]) -> list[int]:
    """Return the numbers of connections to run an attack with.

    An attack with a token runs without ``SEVERAL``: several connections share one token's limits.
    """
    return [
        count
        for count in runs
        if count == 1
        or (count < CROWD and not attack.needs_token)
        or (count >= CROWD and attack.name in CROWDED)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.hostile")
    parser.add_argument("--seconds", type=float, default=6.0, help="duration of each attack")
    parser.add_argument("--only", default="", help="comma-separated names of attacks")
    parser.add_argument(
        "--runs", default=f"1,{SEVERAL},{CROWD}", help="comma-separated numbers of connections"
    )
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    runs = [int(count) for count in options.runs.split(",")]
    wanted = [name for name in options.only.split(",") if name]
    attacks = [attack for attack in ATTACKS if not wanted or attack.name in wanted]
    with tempfile.TemporaryDirectory() as folder, running(RedisProcess(Path(folder))) as valkey:
        valkey.ready()
        job_id = publish_long_history(valkey.url)
        print(HEADER, flush=True)
        for attack in attacks:
            for count in connection_counts(attack, runs):
                print(measure(attack, valkey.url, job_id, count, options.seconds).row(), flush=True)


if __name__ == "__main__":
    main()
