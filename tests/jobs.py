"""Tasks for the tests. Some wait for a gate: a file that the test creates."""

from __future__ import annotations

import logging
import os
import threading
import time
from pathlib import Path
from typing import Any

from celery import Celery, shared_task
from celery.exceptions import Ignore
from celery.utils.log import get_task_logger

from jobcast import ProgressTask, current_job

BROKER = os.environ.get("CELERY_BROKER_URL")

app = Celery("tests", broker=BROKER or "memory://")
app.conf.update(
    result_backend=os.environ.get("CELERY_RESULT_BACKEND") or BROKER or "cache+memory://",
    broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=True,
)

task_logger = get_task_logger("tests.jobs")
logger = logging.getLogger("tests.library")


def wait_for_file(path: str) -> None:
    deadline = time.monotonic() + 300
    while not Path(path).exists():
        if time.monotonic() > deadline:
            raise TimeoutError(path)
        time.sleep(0.01)


@app.task(base=ProgressTask, bind=True)
def count(self: ProgressTask, steps: int, gate: str | None = None) -> dict[str, int]:
    """Report progress and log a line per step; half-way, wait for the file ``gate``."""
    for step in self.track(range(steps), message="counting"):
        self.log(f"step {step}")
        if gate is not None and step == steps // 2:
            wait_for_file(gate)
    return {"steps": steps}


@app.task(base=ProgressTask, bind=True)
def tick(self: ProgressTask, gate: str, pause: float = 0.01) -> int:
    """Log a line every ``pause`` seconds until the file ``gate`` exists."""
    ticks = 0
    while not Path(gate).exists() and ticks < 6000:
        self.log(f"tick {ticks}")
        ticks += 1
        time.sleep(pause)
    return ticks


@app.task(base=ProgressTask, bind=True)
def chatter(self: ProgressTask, lines: int, gate: str) -> int:
    """Log lines of every level in batches; after the first, wait for the file ``gate``."""
    for line in range(lines):
        level = ("warning", "debug")[line % 50 == 0] if line % 10 == 0 else "info"
        self.log(f"line {line} of a job with many lines", level)
        if line == 0:
            wait_for_file(gate)
        if line % 200 == 0:
            self.progress(current=line, total=lines)
            time.sleep(0.02)
    return lines


@app.task(base=ProgressTask, bind=True)
def spin(self: ProgressTask, times: int) -> None:
    for turn in range(times):
        self.progress(turn * 100 / times, f"turn {turn}")
    self.progress(100, "the last one")


@app.task(base=ProgressTask, bind=True)
def fail(self: ProgressTask, message: str) -> None:
    self.progress(50)
    raise LookupError(message)


@app.task(base=ProgressTask, bind=True, max_retries=2)
def flaky(self: ProgressTask) -> int:
    self.progress(50)
    if self.request.retries < 2:
        raise self.retry(exc=ConnectionError(f"try {self.request.retries + 1}"), countdown=0)
    return int(self.request.retries)


@app.task(base=ProgressTask, bind=True)
def logs(self: ProgressTask) -> None:
    logger.info("from a library")
    task_logger.warning("from the %s", "task logger")
    logging.getLogger("redis.connection").error("from the transport")
    logger.debug("too fine")
    try:
        raise ValueError("secret in a traceback")
    except ValueError:
        logger.exception("with a traceback")
    helper()


def helper() -> None:
    current_job().log("from deep below", "ERROR")


@app.task(base=ProgressTask, bind=True, max_retries=2)
def unsteady(self: ProgressTask, gate: str) -> str:
    """Retry once a minute until the file ``gate`` exists."""
    if not Path(gate).exists():
        raise self.retry(exc=ConnectionError("the gate is closed"), countdown=60)
    return "through"


@app.task(base=ProgressTask, bind=True)
def ignored(self: ProgressTask) -> None:
    self.log("logged before it was ignored")
    raise Ignore


@app.task
def who_is_current() -> str | None:
    return current_job().job_id


@app.task(base=ProgressTask, bind=True)
def parent(self: ProgressTask) -> str:
    child: str = count.delay(1).id
    return child


class Titled(ProgressTask):
    abstract = True
    job_title = "Report for {customer}"
    job_tags = ("reports",)


@app.task(base=Titled, bind=True)
def report(self: Titled, customer: str, gate: str, child_id: str) -> None:
    """Change the title and the tags, send a job, and wait for the file ``gate``."""
    self.log("titled by its class")
    self.set_title(f"{customer}: 3 pages")
    self.add_tags("urgent")
    count.apply_async((1,), task_id=child_id, queue=self.request.delivery_info["routing_key"])
    self.log("titled by itself")
    wait_for_file(gate)


@app.task(base=Titled, bind=True, max_retries=1)
def retitled(self: Titled, customer: str) -> None:
    """Change the title and the tags, and retry."""
    if self.request.retries == 0:
        self.set_title(f"{customer}, again")
        self.add_tags("retried")
        raise self.retry(exc=ConnectionError("no"), countdown=0)


class Discreet(ProgressTask):
    abstract = True

    def public_result(self, result: Any) -> Any:
        return {"rows": len(result)}

    def public_error(self, exc: BaseException) -> str:
        return f"{type(exc).__name__}: ask the operators"

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        self.log("on_success of a subclass that calls no super()")


@app.task(base=Discreet, bind=True)
def discreet(self: Discreet, rows: list[str]) -> list[str]:
    if not rows:
        raise PermissionError("password=hunter2")
    return rows


@app.task(base=ProgressTask, bind=True)
def returns_object(self: ProgressTask) -> object:
    return threading.Lock()


@shared_task(base=ProgressTask, bind=True)
def big_result(self: ProgressTask) -> str:
    return "x" * 1_000_000


@app.task(base=ProgressTask, bind=True)
def staged(self: ProgressTask) -> None:
    with self.stage("read", weight=3, of=4):
        self.progress(50)
    with self.stage("write", of=4):
        for _ in self.track(range(2)):
            pass
