"""A process that opens a job without Celery and works until the job is cancelled."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from typing import Any

from jobcast import JobCancelled, open_job


def talks(job: Any) -> None:
    for number in job.track(range(6000)):
        time.sleep(0.01)
        job.log(f"step {number}")


def is_silent(job: Any) -> None:
    while not job.cancelled:
        time.sleep(0.01)
    job.check_cancelled()


def is_blocked(job: Any) -> None:
    interrupted = threading.Event()
    job.on_cancel(interrupted.set)
    interrupted.wait()
    job.check_cancelled()


def awaits(job: Any) -> None:
    job.run_async(asyncio.sleep(60))


KINDS = {"talking": talks, "silent": is_silent, "blocked": is_blocked, "asynchronous": awaits}


def main(kind: str, job_id: str) -> None:
    try:
        with open_job(job_id, owner="alice") as job:
            while not job.flush():  # one call waits for two seconds at most
                time.sleep(0.05)
            print("began")
            KINDS[kind](job)
    except JobCancelled as exc:
        print(f"cancelled by {exc.by}: {exc.message}")
    assert "celery" not in sys.modules


if __name__ == "__main__":
    main(*sys.argv[1:])
