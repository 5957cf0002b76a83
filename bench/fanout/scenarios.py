"""What is measured, and how much of it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from msgspec import Struct

from bench.fanout.peers import Peer, peer, redis_server

CLIENTS: Final = 1000
TEN_TO_A_JOB: Final = [f"job-{n % (CLIENTS // 10)}" for n in range(CLIENTS)]
# Events of a run, the same for all.
WARM_UP: Final = 30
BURST: Final = 300
STEADY: Final = 300  # at 100 a second
MANY: Final = 30  # of each of as many jobs
UNFOLLOWED: Final = 5000
IDLE: Final = 2000  # connections

SETTLE: Final = 0.5  # seconds before the clock is read
IDLE_SETTLE: Final = 6.0  # and before memory is: longer than a client may take to authenticate


class Sample(Struct):
    """One measurement of one server."""

    cost: float  # microseconds of the server's CPU time, or bytes
    rate: float = 0.0  # deliveries or connections a second, by the clock
    latencies: list[float] = []  # milliseconds


def burst(server: Peer, clients: int = CLIENTS) -> Sample:
    """One job, many clients, events as fast as they go."""
    server.connect(["job"] * clients, at_once=min(50, clients))
    _spread(server, ["job"], WARM_UP, clients)
    return _spread(server, ["job"], BURST, clients)


def steady(server: Peer) -> Sample:
    """The same at 100 events a second."""
    server.connect(["job"] * CLIENTS)
    return _spread(server, ["job"], STEADY, CLIENTS, rate=100)


def many(server: Peer, jobs: int = CLIENTS) -> Sample:
    """As many jobs, each with one client."""
    ids = [f"job-{n}" for n in range(jobs)]
    server.connect(ids)
    events = max(2, MANY * CLIENTS // jobs)
    _spread(server, ids, 2, jobs)
    return _spread(server, ids, events, jobs)


def unfollowed(server: Peer) -> Sample:
    """Events of a job that nobody follows here."""
    server.connect(["another"])
    time.sleep(SETTLE)
    began, before = time.monotonic(), server.cpu()
    server.publish(["job"], UNFOLLOWED)
    server.published()
    time.sleep(SETTLE)
    cost = (server.cpu() - before) / UNFOLLOWED * 1e6
    return Sample(cost, UNFOLLOWED / (time.monotonic() - began))


def unheard(server: Peer) -> Sample:
    """Bytes that come to the server of such an event.

    Raises:
        RuntimeError: something came to jobcast.
    """
    server.connect(["another"])
    time.sleep(SETTLE)
    before = server.heard()
    server.publish(["job"], UNFOLLOWED)
    server.published()
    time.sleep(SETTLE)
    heard = server.heard() - before
    if server.name == "jobcast" and heard:
        raise RuntimeError(f"{heard} bytes of what nobody follows were received")
    return Sample(heard / UNFOLLOWED)


def connect(server: Peer) -> Sample:
    """Connect, with a token of one's own, and join; ten clients to a job, fifty at a time."""
    server.connect([f"warm-{n}" for n in range(100)])
    before = server.cpu()
    answer = server.connect(TEN_TO_A_JOB)
    return Sample((server.cpu() - before) / CLIENTS * 1e6, CLIENTS / answer["seconds"])


def storm(server: Peer) -> Sample:
    """All clients lose their connection and come back in the same moment."""
    server.connect(TEN_TO_A_JOB)
    time.sleep(SETTLE)
    before = server.cpu()
    answer = server.reconnect()
    return Sample((server.cpu() - before) / CLIENTS * 1e6, CLIENTS / answer["seconds"])


def peak(server: Peer) -> Sample:
    """Bytes that such a storm takes for each of them, at the most."""
    server.connect(TEN_TO_A_JOB)
    time.sleep(SETTLE)
    before = server.forget_peak()
    server.reconnect()
    return Sample((server.peak() - before) / CLIENTS)


def ping(server: Peer) -> Sample:
    """The first ping of each idle connection."""
    server.connect([None] * IDLE)
    server.expect_pings(1)
    before = server.cpu()
    server.expect_pings(IDLE)
    return Sample((server.cpu() - before) / IDLE * 1e6)


def memory(server: Peer) -> Sample:
    """Bytes of an idle connection that has authenticated."""
    server.connect([None] * 200)
    time.sleep(IDLE_SETTLE)
    before = server.resident()
    server.connect([None] * IDLE)
    time.sleep(IDLE_SETTLE)
    return Sample((server.resident() - before) / IDLE)


def caller() -> dict[str, float]:
    """What a task pays for a call, and what the publisher makes of it; see ``caller.py``."""
    with redis_server() as url:
        argv = [sys.executable, "-m", "bench.fanout.caller", url]
        output = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    costs: dict[str, float] = json.loads(output.splitlines()[-1])
    return costs


class Row(Struct):
    """A line of the table: what is done, with whom, and what should come of it."""

    name: str
    title: str
    unit: str
    run: Callable[[Peer], Sample]
    peers: tuple[str, ...]
    targets: dict[str, float]  # peer: how many times jobcast's cost its own should be, at least


ROWS: Final = (
    Row(
        "burst", "1 job, 1,000 clients, burst of 300 events", "us a delivery", burst,
        ("jobcast", "stock", "node", "floor"), {"stock": 50, "node": 5, "floor": 1 / 3},
    ),
    Row(
        "steady", "1 job, 1,000 clients, 100 events/s", "us a delivery", steady,
        ("jobcast", "node", "floor"), {"node": 2.5, "floor": 1 / 2},
    ),
    Row(
        "many", "1,000 jobs, one client each, unthrottled", "us an event", many,
        ("jobcast", "stock", "node"), {"stock": 15, "node": 3},
    ),
    Row(
        "unfollowed", "events of a job that nobody here follows", "us an event", unfollowed,
        ("jobcast", "stock", "node"), {},
    ),
    Row(
        "unheard", "what the server receives of these", "bytes an event", unheard,
        ("jobcast", "stock", "node"), {},
    ),
    Row(
        "connect", "connect and join with a verified token", "us a client", connect,
        ("jobcast", "stock", "node"), {"stock": 1.5, "node": 1.2},
    ),
    Row(
        "storm", "1,000 clients reconnect at once", "us a client", storm,
        ("jobcast", "stock", "node"), {},
    ),
    Row(
        "peak", "memory that this takes at its peak", "bytes a client", peak,
        ("jobcast", "stock", "node"), {},
    ),
    Row(
        "ping", "a ping of an idle connection, answered", "us a ping", ping,
        ("jobcast", "stock", "node"), {},
    ),
    Row(
        "memory", "an idle connection", "bytes", memory,
        ("jobcast", "stock", "node"), {"stock": 1.25, "node": 1},
    ),
)  # fmt: skip

GROWTH: Final[tuple[tuple[str, Callable[[Peer, int], Sample], tuple[int, ...]], ...]] = (
    ("clients of one job", burst, (10, 100, 1000, 10_000)),
    ("jobs", many, (100, 1000, 10_000)),
)


def samples(row: Row, runs: int) -> Iterator[tuple[str, Sample]]:
    """The peers take turns, so that what the machine does meanwhile befalls all of them."""
    for _ in range(runs):
        for name in row.peers:
            with peer(name) as server:
                yield name, row.run(server)


def growth(runs: int) -> dict[str, dict[str, float]]:
    """Cost for each size, of jobcast alone: the median of several runs."""
    found: dict[str, dict[str, float]] = {}
    for title, run, sizes in GROWTH:
        of_size: dict[int, list[float]] = {size: [] for size in sizes}
        for _ in range(runs):
            for size in sizes:
                with peer("jobcast") as server:
                    of_size[size].append(run(server, size).cost)
        found[title] = {
            str(size): sorted(costs)[len(costs) // 2] for size, costs in of_size.items()
        }
    return found


def _spread(server: Peer, jobs: list[str], events: int, clients: int, rate: float = 0) -> Sample:
    time.sleep(SETTLE)
    began, before = time.monotonic(), server.cpu()
    server.publish(jobs, events, rate)
    answer: dict[str, Any] = server.expect(events)
    seconds = time.monotonic() - began
    server.published()
    time.sleep(SETTLE)
    deliveries = clients * events
    cost = (server.cpu() - before) / deliveries * 1e6
    return Sample(cost, deliveries / seconds, answer["latencies"])
