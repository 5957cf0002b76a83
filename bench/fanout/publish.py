"""Publish from a separate process, as a worker does.

python -m bench.fanout.publish jobcast|stock|starlette REDIS_URL

A plan arrives on standard input as a line of JSON, ``{"jobs": [...], "events": N, "rate": R}``: N
events of each job, R per second and job, or without pauses if R is 0. The answer is ``done``.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import redis
import socketio

from jobcast import open_job

FLUSH_EVERY = 5000  # events; half of the publisher's buffer


def message(n: int) -> str:
    return f"line {n:07} at {time.monotonic_ns()}"


def log_event(job_id: str, n: int) -> dict[str, Any]:
    return {
        "job_id": job_id, "timestamp": datetime.now(UTC).isoformat(), "seq": n + 1,
        "level": "info", "message": message(n),
    }  # fmt: skip


def starlette(url: str) -> tuple[Callable[[str, int], None], Callable[[], None]]:
    client = redis.Redis.from_url(url)

    def emit(job_id: str, n: int) -> None:
        client.publish(f"job_{job_id}", json.dumps(log_event(job_id, n)))

    return emit, lambda: None


def stock(url: str) -> tuple[Callable[[str, int], None], Callable[[], None]]:
    manager = socketio.RedisManager(url, write_only=True)

    def emit(job_id: str, n: int) -> None:
        manager.emit("job_log", log_event(job_id, n), room=f"job_{job_id}")

    return emit, lambda: None


def jobcast(url: str) -> tuple[Callable[[str, int], None], Callable[[], None]]:
    os.environ["JOBCAST_URL"] = url
    jobs: dict[str, Any] = {}
    published = 0

    def emit(job_id: str, n: int) -> None:
        nonlocal published
        if job_id not in jobs:
            jobs[job_id] = open_job(job_id)
        jobs[job_id].log(message(n))
        published += 1
        if published % FLUSH_EVERY == 0:
            flush()

    def flush() -> None:
        next(iter(jobs.values())).flush()

    return emit, flush


def run_plan(plan: dict[str, Any], emit: Callable[[str, int], None]) -> None:
    began = time.monotonic()
    for n in range(plan["events"]):
        if plan["rate"]:
            time.sleep(max(0.0, began + n / plan["rate"] - time.monotonic()))
        for job_id in plan["jobs"]:
            emit(job_id, n)


def main() -> None:
    emit, flush = {"jobcast": jobcast, "stock": stock, "starlette": starlette}[sys.argv[1]](
        sys.argv[2]
    )
    for text in sys.stdin:
        run_plan(json.loads(text), emit)
        flush()
        print("done", flush=True)


if __name__ == "__main__":
    main()
