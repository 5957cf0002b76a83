"""Tasks for every way in which a Celery task can end."""

from __future__ import annotations

import asyncio
import ctypes
import math
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import gevent  # type: ignore[import-untyped]
from celery import Celery, chain, chord, group
from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded

from jobcast import ProgressTask, current_job

TIME_LIMIT = 6  # seconds; the first run of a process may need some until it begins
BROKER = os.environ.get("CELERY_BROKER_URL")

app = Celery("endings", broker=BROKER or "memory://", set_as_current=BROKER is not None)
app.conf.update(
    result_backend=os.environ.get("CELERY_RESULT_BACKEND") or BROKER or "cache+memory://",
    broker_connection_retry_on_startup=True,
    worker_prefetch_multiplier=1,
    worker_soft_shutdown_timeout=float(os.environ.get("SOFT_SHUTDOWN", "0")),
    worker_cancel_long_running_tasks_on_connection_loss="CANCEL_ON_LOSS" in os.environ,
    task_default_queue=os.environ.get("TASK_QUEUE", "celery"),
)


def job(**options: Any) -> Any:
    return app.task(base=ProgressTask, bind=True, shared=False, **options)


def first_time(marker: str) -> bool:
    """Return whether this is the first call with a marker file."""
    try:
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def hang(seconds: float = 600) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(0.02)
    raise TimeoutError("the task was not stopped in time")


def begin(task: ProgressTask) -> None:
    task.progress(10)
    task.log("running")
    # Events that are not flushed are lost when the process is killed.
    while not current_job().flush():  # one call waits for two seconds at most
        time.sleep(0.05)


@job()
def succeeds(self: ProgressTask, *_: Any) -> str:
    begin(self)
    return "done"


@job()
def fails(self: ProgressTask, *_: Any) -> None:
    begin(self)
    raise LookupError("no such row")


@job(typing=False)
def takes_nothing(self: ProgressTask) -> None:
    begin(self)


@job()
def returns_what_does_not_encode(self: ProgressTask) -> object:
    begin(self)
    return object()


@job(max_retries=1, default_retry_delay=0)
def retries_once(self: ProgressTask, marker: str) -> str:
    begin(self)
    if first_time(marker):
        raise self.retry(exc=ConnectionError("not yet"))
    return "done"


@job(autoretry_for=(ConnectionError,), max_retries=1, default_retry_delay=0)
def retries_by_itself(self: ProgressTask, marker: str) -> str:
    begin(self)
    if first_time(marker):
        raise ConnectionError("not yet")
    return "done"


@job(max_retries=1, default_retry_delay=0)
def retries_in_vain(self: ProgressTask) -> None:
    begin(self)
    raise self.retry(exc=ConnectionError("never"))


@job(soft_time_limit=TIME_LIMIT)
def exceeds_softly(self: ProgressTask) -> None:
    begin(self)
    hang()


@job(soft_time_limit=TIME_LIMIT)
def notices_the_limit(self: ProgressTask) -> str:
    begin(self)
    try:
        hang()
    except SoftTimeLimitExceeded:
        return "partial result"
    return ""


@job(time_limit=TIME_LIMIT)
def exceeds(self: ProgressTask) -> None:
    begin(self)
    hang()


# Celery has acks_on_timeout since 5.7.
@job(time_limit=TIME_LIMIT, acks_late=True, acks_on_timeout=False, acks_on_failure_or_timeout=False)
def exceeds_at_first(self: ProgressTask, marker: str) -> str:
    # The limit may expire in begin().
    first = first_time(marker)
    begin(self)
    if first:
        hang()
    return "done"


@job()
def is_killed(self: ProgressTask) -> None:
    begin(self)
    os.kill(os.getpid(), signal.SIGKILL)


@job(acks_late=True)
def is_killed_late(self: ProgressTask) -> None:
    begin(self)
    os.kill(os.getpid(), signal.SIGKILL)


@job(acks_late=True, reject_on_worker_lost=True)
def is_killed_at_first(self: ProgressTask, marker: str) -> str:
    begin(self)
    if first_time(marker):
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


@job(retry_on_worker_lost=True, max_retries=2, default_retry_delay=0)
def is_killed_and_retried(self: ProgressTask, marker: str) -> str:
    begin(self)
    if first_time(marker):
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


@job()
def exits(self: ProgressTask) -> None:
    begin(self)
    sys.exit(3)


class FailsBefore(ProgressTask):
    abstract = True

    def before_start(self, *_: Any) -> None:
        raise LookupError("nothing to begin with")


@app.task(base=FailsBefore, bind=True, shared=False)
def fails_before_it_starts(self: ProgressTask) -> None:
    begin(self)


@job()
def is_cancelled_within(self: ProgressTask) -> None:
    begin(self)
    raise asyncio.CancelledError


@job()
def fails_in_a_group(self: ProgressTask) -> None:
    begin(self)
    raise BaseExceptionGroup("several", [asyncio.CancelledError(), LookupError("no such row")])


@job()
def runs_out_of_patience(self: ProgressTask) -> None:
    begin(self)
    with gevent.Timeout(0.01):
        gevent.sleep(60)


@job()
def leaves_its_greenlet(self: ProgressTask) -> None:
    begin(self)
    raise gevent.GreenletExit


@job()
def is_interrupted(self: ProgressTask) -> None:
    begin(self)
    raise KeyboardInterrupt


@job()
def exits_at_once(self: ProgressTask) -> None:
    begin(self)
    os._exit(5)


@job(acks_late=True, reject_on_worker_lost=True)
def is_killed_twice(self: ProgressTask, marker: str) -> str:
    begin(self)
    if first_time(marker) or first_time(f"{marker}-again"):
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


@job(retry_on_worker_lost=True, max_retries=2, default_retry_delay=0)
def is_killed_and_retried_twice(self: ProgressTask, marker: str) -> str:
    begin(self)
    if first_time(marker) or first_time(f"{marker}-again"):
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


@job(retry_on_worker_lost=True, max_retries=1, default_retry_delay=0)
def is_killed_and_retried_in_vain(self: ProgressTask) -> None:
    begin(self)
    os.kill(os.getpid(), signal.SIGKILL)


@job()
def has_no_memory(self: ProgressTask) -> None:
    begin(self)
    raise MemoryError("too much")


@job()
def hangs(self: ProgressTask, seconds: float = 60) -> None:
    begin(self)
    hang(seconds)


@job(acks_late=True)
def hangs_late(self: ProgressTask) -> None:
    begin(self)
    hang()


@job(acks_late=True, reject_on_worker_lost=True)
def hangs_at_first(self: ProgressTask, marker: str) -> str:
    # A test may kill the process as soon as it has begun.
    first = first_time(marker)
    begin(self)
    if first:
        hang()
    return "done"


@job()
def waits(self: ProgressTask, gate: str) -> str:
    begin(self)
    while not Path(gate).exists():
        time.sleep(0.02)
    self.log("goes on")
    return "done"


@job()
def holds_the_interpreter(self: ProgressTask, seconds: int) -> str:
    """Keep the GIL, so that no other thread of the process runs."""
    begin(self)
    libc = ctypes.PyDLL(None)  # unlike a CDLL, it keeps the GIL during a call
    deadline = time.monotonic() + seconds
    # A signal ends sleep() early.
    while (left := math.ceil(deadline - time.monotonic())) > 0:
        libc.sleep(left)
    return "done"


@job()
def ignores(self: ProgressTask) -> None:
    begin(self)
    raise Ignore


@job()
def rejects(self: ProgressTask) -> None:
    begin(self)
    raise Reject("not today")


@job()
def rejects_for_another(self: ProgressTask) -> None:
    """Reject with requeue, too late: the message is already acknowledged."""
    begin(self)
    raise Reject("not here", requeue=True)


@job(acks_late=True)
def rejects_at_first(self: ProgressTask, marker: str) -> str:
    begin(self)
    if first_time(marker):
        raise Reject("not yet", requeue=True)
    return "done"


@job()
def is_replaced(self: ProgressTask) -> None:
    begin(self)
    raise self.replace(succeeds.s())


@job()
def is_replaced_by_several(self: ProgressTask) -> None:
    begin(self)
    raise self.replace(chain(succeeds.s(), succeeds.s()))


@app.task(shared=False)
def plain(number: int = 0) -> int:
    """Run as a plain Celery task, which is not a job of jobcast."""
    return number


@job()
def is_replaced_by_a_plain_task(self: ProgressTask) -> None:
    begin(self)
    raise self.replace(plain.s(7))


@job()
def is_replaced_by_a_group(self: ProgressTask) -> None:
    begin(self)
    raise self.replace(group([plain.s(1), plain.s(2)]))


@app.task(shared=False, bind=True)
def cannot_be_called_back(self: Any, request: Any, exc: Any, traceback: Any) -> None:
    raise AssertionError(self, request, exc, traceback)


@job()
def breaks_the_backend(self: ProgressTask) -> str:
    begin(self)

    def fail(*_: Any, **__: Any) -> None:
        raise OSError("the backend is gone")

    self.backend.mark_as_done = fail
    return "done"


def chained() -> Any:
    """Return a chain whose first step fails."""
    return chain(fails.s(), succeeds.s(), succeeds.s())


def ignored_in_a_chain() -> Any:
    """Return a chain whose first step raises Ignore."""
    return chain(ignores.s(), succeeds.s(), succeeds.s())


@job()
def starts_a_chord(self: ProgressTask) -> list[str]:
    """Start a chord with a failing part. Returns the ids of the body and of the parts."""
    begin(self)
    body = chord([succeeds.s(), fails.s()], succeeds.s()).apply_async()
    return [body.id, *(part.id for part in body.parent.children)]
