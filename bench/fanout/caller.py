"""What a task pays for saying something: CPU time of its own thread, beside Celery's update_state.

python -m bench.fanout.caller REDIS_URL

Prints a line of JSON: nanoseconds a call, and what the publisher's thread uses for a line of log;
how many of these it sends in a second, as long as they come, and how many in a pipeline.
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

PART = 2000  # calls between which the publisher may send what there is
PARTS = 10


def cost(call: Callable[[int], object], parts: int = PARTS, part: int = PART) -> float:
    """Nanoseconds a call, of this thread."""
    used = 0.0
    for start in range(0, parts * part, part):
        began = time.thread_time()
        for n in range(start, start + part):
            call(n)
        used += time.thread_time() - began
        current_job().flush()
    return used / (parts * part) * 1e9


def drained(log: Callable[[int], object]) -> tuple[float, float]:
    """Lines of log a second from the task into Redis, and in a pipeline.

    Raises:
        RuntimeError: Redis did not take them in time.
    """
    began = time.monotonic()
    with pipelines() as sizes:
        for start in range(0, PARTS * PART, PART):
            for n in range(start, start + PART):
                log(n)
            if not current_job().flush():
                raise RuntimeError("lines could not be sent")
    return PARTS * PART / (time.monotonic() - began), statistics.mean(sizes)


@contextmanager
def pipelines() -> Iterator[list[int]]:
    """The sizes of the pipelines that are sent meanwhile."""
    sizes: list[int] = []
    publish = RedisPublisher.publish

    def counted(self: RedisPublisher, batch: Sequence[Outgoing]) -> None:
        sizes.append(len(batch))
        publish(self, batch)

    with patch.object(RedisPublisher, "publish", counted):
        yield sizes


@app.task(base=ProgressTask, bind=True)
def measure(self: ProgressTask) -> dict[str, float]:
    def log(n: int) -> None:
        self.log(f"line {n:07} of customers.csv imported")

    total = PARTS * PART
    costs = {
        "progress": cost(lambda n: self.progress(n / total * 100, "converting pages")),
        "nothing": cost(lambda _: None),
    }
    everything, own = time.process_time(), time.thread_time()
    costs["log"] = cost(log)
    elsewhere = (time.process_time() - everything) - (time.thread_time() - own)
    costs["publisher"] = elsewhere / total * 1e9
    costs["drained"], costs["batch"] = drained(log)
    meta = {"percentage": 50, "message": "converting pages"}
    costs["update_state"] = cost(lambda _: self.update_state(state="PROGRESS", meta=meta), 2, 500)
    return costs


if __name__ == "__main__":
    print(json.dumps(measure.apply().get()))
