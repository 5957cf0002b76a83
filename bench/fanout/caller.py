"""Measure the CPU time of a task's calls in its own thread, next to Celery's update_state.

python -m bench.fanout.caller REDIS_URL

Prints a line of JSON: the nanoseconds per call, the nanoseconds of the publisher's thread per log
line, the lines that it sends per second continuously, and the lines per pipeline.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from unittest.mock import patch

from celery import Celery

from jobcast.transports import Outgoing
from jobcast.transports.redis.publisher import RedisPublisher

URL = sys.argv[1]
os.environ["JOBCAST_URL"] = URL

from jobcast import ProgressTask, current_job  # noqa: E402

app = Celery("bench", broker="memory://", backend=URL, set_as_current=False)
app.conf.task_store_eager_result = True

CALLS = 2000  # per round; between two rounds the publisher sends all events
ROUNDS = 10


def cost(call: Callable[[int], object], rounds: int = ROUNDS, calls: int = CALLS) -> float:
    """Return the CPU time of this thread per call, in nanoseconds."""
    used = 0.0
    for start in range(0, rounds * calls, calls):
        began = time.thread_time()
        for n in range(start, start + calls):
            call(n)
        used += time.thread_time() - began
        current_job().flush()
    return used / (rounds * calls) * 1e9


def throughput(log: Callable[[int], object]) -> tuple[float, float]:
    """Return the log lines per second from the task into Redis, and the lines per pipeline.

    Raises:
        RuntimeError: Redis did not accept the lines in time.
    """
    began = time.monotonic()
    with pipeline_sizes() as sizes:
        for start in range(0, ROUNDS * CALLS, CALLS):
            for n in range(start, start + CALLS):
                log(n)
            if not current_job().flush():
                raise RuntimeError("the publisher could not send all lines in time")
    return ROUNDS * CALLS / (time.monotonic() - began), statistics.mean(sizes)


@contextmanager
def pipeline_sizes() -> Iterator[list[int]]:
    """Record the sizes of the pipelines sent within the context."""
    sizes: list[int] = []
    publish = RedisPublisher.publish

    def publish_and_count(self: RedisPublisher, batch: Sequence[Outgoing]) -> None:
        sizes.append(len(batch))
        publish(self, batch)

    with patch.object(RedisPublisher, "publish", publish_and_count):
        yield sizes


@app.task(base=ProgressTask, bind=True)
def measure(self: ProgressTask) -> dict[str, float]:
    def log(n: int) -> None:
        self.log(f"line {n:07} of customers.csv imported")

    total = ROUNDS * CALLS
    costs = {
        "progress": cost(lambda n: self.progress(n / total * 100, "converting pages")),
        "nothing": cost(lambda _: None),
    }
    process_time, own_time = time.process_time(), time.thread_time()
    costs["log"] = cost(log)
    publisher_time = (time.process_time() - process_time) - (time.thread_time() - own_time)
    costs["publisher"] = publisher_time / total * 1e9
    costs["drained"], costs["batch"] = throughput(log)
    meta = {"percentage": 50, "message": "converting pages"}
    costs["update_state"] = cost(lambda _: self.update_state(state="PROGRESS", meta=meta), 2, 500)
    return costs


if __name__ == "__main__":
    print(json.dumps(measure.apply().get()))
