"""The jobs of the endings run: some can be run again, some cannot."""

from __future__ import annotations

import os
import time
from typing import Any

from celery import Celery

from jobcast import ProgressTask, current_job

VISIBILITY_TIMEOUT = 20  # seconds until Redis gives a message of a lost worker to another
LONGEST = 2.0  # seconds that a job takes; far less, or a busy worker's are given out twice

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
        # A worker that is killed while it looks for such messages keeps others from it for so long.
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
        raise LookupError("as it should")
    if outcome == "retry" and task.request.retries == 0:
        raise task.retry(exc=ConnectionError("as it should"))
    return outcome


@app.task(base=ProgressTask, bind=True, max_retries=1, default_retry_delay=0, shared=False)
def once(self: ProgressTask, *args: Any) -> str:
    """Acknowledged when it begins, as Celery does by default: nobody runs it again."""
    return _work(self, *args)


@app.task(
    base=ProgressTask, bind=True, max_retries=1, default_retry_delay=0, shared=False,
    acks_late=True, reject_on_worker_lost=True,
)  # fmt: skip
def again(self: ProgressTask, *args: Any) -> str:
    """Acknowledged when it has ended: run again if its worker is lost."""
    return _work(self, *args)
