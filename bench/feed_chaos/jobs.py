"""The jobs of the chaos run; what a job does depends only on its number and the seed."""

from __future__ import annotations

import os
import random
import time
from dataclasses import dataclass
from typing import Final, Literal

from celery import Celery

from jobcast import ProgressTask

STEPS: Final = 10
VISIBILITY_TIMEOUT: Final = 12  # seconds until Redis redelivers the messages of a lost worker
LATE_TAG: Final = "late"  # a job gives it to itself
RENAMED: Final = ", renamed"

app = Celery(
    "feed-chaos", broker=os.environ.get("CELERY_BROKER_URL", "memory://"), set_as_current=False
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


@dataclass(frozen=True)
class Script:
    """The behaviour of a job."""

    seconds: float
    outcome: Literal["ok", "fail", "retry"]
    is_renamed: bool
    gets_tag: bool

    @classmethod
    def of(cls, seed: str) -> Script:
        rng = random.Random(f"job {seed}")
        return cls(
            rng.uniform(0.05, 1.5), rng.choice(("ok", "ok", "ok", "fail", "retry")),
            rng.random() < 0.2, rng.random() < 0.2,
        )  # fmt: skip


def _work(task: ProgressTask, seed: str, title: str) -> str:
    script = Script.of(seed)
    for step in range(1, STEPS + 1):
        task.progress(current=step, total=STEPS, message=f"step {step}")
        task.log(f"line {step}")
        if step == STEPS // 2 and script.is_renamed:
            task.set_title(title + RENAMED)
        if step == STEPS - 1 and script.gets_tag:
            task.add_tags(LATE_TAG)
        time.sleep(script.seconds / STEPS)
    if script.outcome == "fail":
        raise LookupError("expected failure")
    if script.outcome == "retry" and task.request.retries == 0:
        raise task.retry(exc=ConnectionError("expected retry"))
    return script.outcome


@app.task(base=ProgressTask, bind=True, max_retries=1, default_retry_delay=0, shared=False)
def once(self: ProgressTask, seed: str, title: str) -> str:
    """Run at most once: the job of a killed worker is lost."""
    return _work(self, seed, title)


@app.task(
    base=ProgressTask, bind=True, max_retries=1, default_retry_delay=0, shared=False,
    acks_late=True, reject_on_worker_lost=True,
)  # fmt: skip
def again(self: ProgressTask, seed: str, title: str) -> str:
    """Run again if the worker is lost."""
    return _work(self, seed, title)
