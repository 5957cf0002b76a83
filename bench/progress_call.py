"""Measure the cost of ``self.progress()`` in a task, next to an empty function.

python bench/progress_call.py

The figures are CPU time of the calling thread for a million calls in an eager run with the memory
transport, while the publisher works in its own thread. The ratio to the empty function is the
median of several runs.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable

from celery import Celery

CALLS = 1_000_000
RUNS = 7

os.environ["JOBCAST_URL"] = "memory://bench"

from jobcast import ProgressTask  # noqa: E402

app = Celery("bench", broker="memory://", set_as_current=False)


def empty_function(percentage: float, message: str | None = None) -> None:
    pass


def cpu_time(call: Callable[[float], None]) -> float:
    """Return the nanoseconds per call."""
    began = time.thread_time()
    for n in range(CALLS):
        call(n * 100 / CALLS)
    return (time.thread_time() - began) / CALLS * 1e9


@app.task(base=ProgressTask, bind=True)
def measure(self: ProgressTask) -> tuple[float, float]:
    return cpu_time(empty_function), cpu_time(self.progress)


def main() -> None:
    runs = [measure.apply().get() for _ in range(RUNS)]
    empty, progress = (statistics.median(column) for column in zip(*runs, strict=True))
    ratio = statistics.median(b / a for a, b in runs)
    print(f"empty function   {empty:7.0f} ns per call")
    print(f"self.progress()  {progress:7.0f} ns per call")
    print(f"ratio            {ratio:7.1f}")


if __name__ == "__main__":
    main()
