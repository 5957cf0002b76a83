"""What a call of ``self.progress()`` costs the task, beside a call of a function that does nothing.

python bench/progress_call.py

A million calls in a real run (eager, memory transport), with the publisher at work beside it: CPU
time of the calling thread, as a ratio to the empty loop in the same run, median of several runs.
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


def nothing(percentage: float, message: str | None = None) -> None:
    pass


def cpu_time(call: Callable[[float], None]) -> float:
    """Nanoseconds a call."""
    began = time.thread_time()
    for n in range(CALLS):
        call(n * 100 / CALLS)
    return (time.thread_time() - began) / CALLS * 1e9


@app.task(base=ProgressTask, bind=True)
def measure(self: ProgressTask) -> tuple[float, float]:
    return cpu_time(nothing), cpu_time(self.progress)


def main() -> None:
    runs = [measure.apply().get() for _ in range(RUNS)]
    empty, progress = (statistics.median(column) for column in zip(*runs, strict=True))
    ratio = statistics.median(b / a for a, b in runs)
    print(f"empty function   {empty:7.0f} ns a call")
    print(f"self.progress()  {progress:7.0f} ns a call")
    print(f"ratio            {ratio:7.1f}")


if __name__ == "__main__":
    main()
