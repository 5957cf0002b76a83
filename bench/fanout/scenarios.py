"""The measurements: their rows, sizes and targets."""

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
# Events per run, equal for all peers.
WARM_UP: Final = 30
BURST: Final = 300
STEADY: Final = 300  # at 100 per second
MANY: Final = 30  # per job, with as many jobs as clients
UNFOLLOWED: Final = 5000
IDLE: Final = 2000  # connections
POLLERS: Final = 100
POLLS: Final = 20  # requests of each

SETTLE: Final = 0.5  # seconds before a reading of the CPU time
IDLE_SETTLE: Final = (
    6.0  # seconds before a reading of memory: longer than the limit for authentication
)


class Sample(Struct):
    """One measurement of one server."""

    cost: float  # microseconds of the server's CPU time, or bytes
    rate: float = 0.0  # deliveries or connections per second of wall time
    latencies: list[float] = []  # milliseconds


def burst(server: Peer, clients: int = CLIENTS) -> Sample:
    """One job, many clients, events without pauses."""
    server.connect(["job"] * clients, at_once=min(50, clients))
    _deliver(server, ["job"], WARM_UP, clients)
    return _deliver(server, ["job"], BURST, clients)


def steady(server: Peer) -> Sample:
    """One job, many clients, 100 events per second."""
    server.connect(["job"] * CLIENTS)
    return _deliver(server, ["job"], STEADY, CLIENTS, rate=100)


def many(server: Peer, jobs: int = CLIENTS) -> Sample:
    """Many jobs, each with one client."""
    ids = [f"job-{n}" for n in range(jobs)]
    server.connect(ids)
    events = max(2, MANY * CLIENTS // jobs)
    _deliver(server, ids, 2, jobs)
    return _deliver(server, ids, events, jobs)


def unfollowed(server: Peer) -> Sample:
    """Events of a job without followers on this server."""
    server.connect(["another"])
    time.sleep(SETTLE)
    began, before = time.monotonic(), server.cpu()
    server.publish(["job"], UNFOLLOWED)
    server.wait_published()
    time.sleep(SETTLE)
    cost = (server.cpu() - before) / UNFOLLOWED * 1e6
    return Sample(cost, UNFOLLOWED / (time.monotonic() - began))


def unfollowed_bytes(server: Peer) -> Sample:
    """Bytes that the server receives per event of a job without followers.

    Its own canaries, one a second, are far less than a byte per event.

    Raises:
        RuntimeError: jobcast received the events.
    """
    server.connect(["another"])
    time.sleep(SETTLE)
    before = server.subscribed_bytes()
    server.publish(["job"], UNFOLLOWED)
    server.wait_published()
    time.sleep(SETTLE)
    received = server.subscribed_bytes() - before
    if server.name == "jobcast" and received >= UNFOLLOWED:
        raise RuntimeError(f"jobcast received {received} bytes for a job without followers")
    return Sample(received / UNFOLLOWED)


def connect(server: Peer) -> Sample:
    """Connect with a token per job and join; ten clients per job, fifty at a time."""
    server.connect([f"warm-{n}" for n in range(100)])
    before = server.cpu()
    answer = server.connect(TEN_TO_A_JOB)
    return Sample((server.cpu() - before) / CLIENTS * 1e6, CLIENTS / answer["seconds"])


def storm(server: Peer) -> Sample:
    """All clients lose their connections and reconnect at once."""
    server.connect(TEN_TO_A_JOB)
    time.sleep(SETTLE)
    before = server.cpu()
    answer = server.reconnect()
    return Sample((server.cpu() - before) / CLIENTS * 1e6, CLIENTS / answer["seconds"])


def peak(server: Peer) -> Sample:
    """Peak memory of such a storm per client."""
    server.connect(TEN_TO_A_JOB)
    time.sleep(SETTLE)
    before = server.reset_peak()
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
    """Memory of an idle, authenticated connection."""
    server.connect([None] * 200)
    time.sleep(IDLE_SETTLE)
    before = server.resident()
    server.connect([None] * IDLE)
    time.sleep(IDLE_SETTLE)
    return Sample((server.resident() - before) / IDLE)


def idle_follower(server: Peer) -> Sample:
    """Memory of a connection that follows a job without events."""
    server.connect(["job"] * 200)
    time.sleep(IDLE_SETTLE)
    before = server.resident()
    server.connect(["job"] * IDLE)
    time.sleep(IDLE_SETTLE)
    return Sample((server.resident() - before) / IDLE)


def poll(server: Peer) -> Sample:
    """Requests for the state of a job."""
    server.publish(["job"], WARM_UP)
    server.wait_published()
    server.poll(["job"] * POLLERS, 1)
    before = server.cpu()
    answer = server.poll(["job"] * POLLERS, POLLS)
    requests = POLLERS * POLLS
    return Sample((server.cpu() - before) / requests * 1e6, requests / answer["seconds"])


def caller() -> dict[str, float]:
    """Return the costs of a task's calls and of the publisher; see ``caller.py``."""
    with redis_server() as url:
        argv = [sys.executable, "-m", "bench.fanout.caller", url]
        output = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    costs: dict[str, float] = json.loads(output.splitlines()[-1])
    return costs


class Row(Struct):
    """A line of the table: a measurement, its peers and its targets."""

    name: str
    title: str
    unit: str
    run: Callable[[Peer], Sample]
    peers: tuple[str, ...]
    targets: dict[str, float]  # minimum ratios of the peers' costs to jobcast's


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
        "unfollowed", "events of a job without followers", "us an event", unfollowed,
        ("jobcast", "stock", "node"), {},
    ),
    Row(
        "unfollowed-bytes", "bytes received for these events", "bytes an event", unfollowed_bytes,
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
        "relaxed-gc", "1,000 clients reconnect at once, relaxed_gc", "us a client", storm,
        ("jobcast", "default-gc"), {},
    ),
    Row(
        "log-batching", "1,000 clients reconnect at once, BatchingHandler", "us a client", storm,
        ("jobcast", "unbatched-log"), {},
    ),
    Row(
        "peak", "peak memory of this", "bytes a client", peak,
        ("jobcast", "stock", "node"), {},
    ),
    Row(
        "ping", "a ping of an idle connection and its answer", "us a ping", ping,
        ("jobcast", "stock", "node"), {},
    ),
    Row(
        "memory", "an idle connection", "bytes", memory,
        ("jobcast", "stock", "node"), {"stock": 1.25, "node": 1},
    ),
)  # fmt: skip

# jobcast is Socket.IO here, sse its event streams, and starlette a bare StreamingResponse.
INTERFACE_ROWS: Final = (
    Row(
        "interface-burst", "1 job, 1,000 clients, burst of 300 events", "us a delivery", burst,
        ("jobcast", "sse", "starlette"), {},
    ),
    Row(
        "interface-steady", "1 job, 1,000 clients, 100 events/s", "us a delivery", steady,
        ("jobcast", "sse", "starlette"), {},
    ),
    Row(
        "interface-connect", "connect and join with a verified token", "us a client", connect,
        ("jobcast", "sse", "starlette"), {},
    ),
    Row(
        "interface-memory", "a connection that follows a job", "bytes", idle_follower,
        ("jobcast", "sse", "starlette"), {},
    ),
    Row("poll", "a request for the state of a job", "us a request", poll, ("jobcast",), {}),
)  # fmt: skip

GROWTH: Final[tuple[tuple[str, Callable[[Peer, int], Sample], tuple[int, ...]], ...]] = (
    ("clients of one job", burst, (10, 100, 1000, 10_000)),
    ("jobs", many, (100, 1000, 10_000)),
)


def samples(row: Row, runs: int) -> Iterator[tuple[str, Sample]]:
    """Measure the peers in turns, so that other load on the machine affects all of them."""
    for _ in range(runs):
        for name in row.peers:
            with peer(name) as server:
                yield name, row.run(server)


def growth(runs: int) -> dict[str, dict[str, float]]:
    """Return jobcast's median cost for each size."""
    costs: dict[str, dict[str, float]] = {}
    for title, run, sizes in GROWTH:
        by_size: dict[int, list[float]] = {size: [] for size in sizes}
        for _ in range(runs):
            for size in sizes:
                with peer("jobcast") as server:
                    by_size[size].append(run(server, size).cost)
        costs[title] = {
            str(size): sorted(values)[len(values) // 2] for size, values in by_size.items()
        }
    return costs


def _deliver(server: Peer, jobs: list[str], events: int, clients: int, rate: float = 0) -> Sample:
    time.sleep(SETTLE)
    began, before = time.monotonic(), server.cpu()
    server.publish(jobs, events, rate)
    answer: dict[str, Any] = server.expect(events)
    seconds = time.monotonic() - began
    server.wait_published()
    time.sleep(SETTLE)
    deliveries = clients * events
    cost = (server.cpu() - before) / deliveries * 1e6
    return Sample(cost, deliveries / seconds, answer["latencies"])
