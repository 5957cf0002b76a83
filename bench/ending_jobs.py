"""The jobs of `bench.endings`; after the loss of a worker, some run again and some do not."""

from __future__ import annotations

import os
import time
from typing import Any

from celery import Celery

from jobcast import ProgressTask, current_job

VISIBILITY_TIMEOUT = 20  # seconds until Redis redelivers the messages of a lost worker
LONGEST = (
    2.0  # maximum seconds of a job; far less than the timeout, or a busy worker's jobs run twice
)

app = Celery(
    "endings", broker=os.environ.get("CELERY_BROKER_URL", "memory://"), set_as_current=False
)
app.conf.update(
    result_backend=os.environ.get("CELERY_BROKER_URL", "cache+memory://"),
    broker_connection_retry_on_startup=True,
    broker_transport_options={
        "visibility_timeout": VISIBILITY_TIMEOUT,
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
        # A worker killed during a redelivery blocks redeliveries by other workers for this time.
        "unacked_mutex_expire": 2,
    },
    worker_prefetch_multiplier=1,
)


def _work(task: ProgressTask, seconds: float, outcome: str) -> str:
    task.log(f"pid {os.getpid()}")
    current_job().flush()
    for _ in task.track(range(20)):
        time.sleep(seconds / 20)
    if outcome == "fail":
        raise LookupError("expected failure")
    if outcome == "retry" and task.request.retries == 0:
        raise task.retry(exc=ConnectionError("expected retry"))
    return outcome


@app.task(base=ProgressTask, bind=True, max_retries=1, default_retry_delay=0, shared=False)
def once(self: ProgressTask, *args: Any) -> str:
    """Run at most once: acknowledged at the start, which is Celery's default."""
    return _work(self, *args)


@app.task(
    base=ProgressTask, bind=True, max_retries=1, default_retry_delay=0, shared=False,
    acks_late=True, reject_on_worker_lost=True,
)  # fmt: skip
def again(self: ProgressTask, *args: Any) -> str:
    """Run again if the worker is lost: acknowledged at the end."""
    return _work(self, *args)
