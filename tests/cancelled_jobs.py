"""Tasks that are cancelled in every situation. Each takes a file, and adds a line for each step."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from celery import Celery, chain, chord
from celery.utils import uuid

from jobcast import JobCancelled, ProgressTask

BROKER = os.environ.get("CELERY_BROKER_URL")

app = Celery("cancelled", broker=BROKER or "memory://", set_as_current=BROKER is not None)
app.conf.update(
    result_backend=os.environ.get("CELERY_RESULT_BACKEND") or BROKER or "cache+memory://",
    broker_connection_retry_on_startup=True,
    worker_prefetch_multiplier=1,
    task_default_queue=os.environ.get("TASK_QUEUE", "celery"),
)


def job(**options: Any) -> Any:
    return app.task(base=ProgressTask, bind=True, shared=False, **options)


def note(notes: str, line: str) -> None:
    with Path(notes).open("a") as file:
        file.write(f"{line}\n")


def steps(notes: str | Path) -> list[str]:
    """Return the lines that tasks have added to a file."""
    path = Path(notes)
    return path.read_text().splitlines() if path.exists() else []


@app.task(shared=False)
def called_back(request: Any, exc: Any, traceback: Any, notes: str) -> None:
    note(notes, f"errback {type(exc).__name__}")


@job()
def runs(self: ProgressTask, notes: str) -> str:
    note(notes, "ran")
    return "done"


@job()
def collects(self: ProgressTask, results: Any, notes: str) -> str:
    note(notes, "collected")
    return "done"


@job()
def talks(self: ProgressTask, notes: str) -> None:
    note(notes, "began")
    try:
        for number in self.track(range(6000)):
            time.sleep(0.01)
            self.log(f"step {number}")
    except JobCancelled as exc:
        note(notes, f"cancelled by {exc.by}: {exc.message}")
        raise
    finally:
        self.log("cleaned up")


@job()
def is_silent(self: ProgressTask, notes: str) -> None:
    note(notes, "began")
    while not self.cancelled:
        time.sleep(0.01)
    note(notes, "noticed")
    self.check_cancelled()


def wait_until_released(notes: str) -> None:
    """Wait until the test has created a file beside the notes."""
    while not Path(f"{notes}.released").exists():
        time.sleep(0.01)


@job()
def ends_when_released(self: ProgressTask, notes: str) -> None:
    note(notes, "began")
    wait_until_released(notes)
    note(notes, "released")
    while not self.cancelled:
        time.sleep(0.01)
    self.check_cancelled()


@job(acks_late=True)
def is_silent_late(self: ProgressTask, notes: str) -> None:
    note(notes, "began")
    while not self.cancelled:
        time.sleep(0.01)
    note(notes, "noticed")
    self.check_cancelled()


@job(cancel_grace=0.5)
def goes_on(self: ProgressTask, notes: str) -> None:
    try:
        note(notes, "began")
        time.sleep(60)
    finally:
        note(notes, "finally")


@job(acks_late=True, reject_on_worker_lost=True, cancel_grace=0.5, max_retries=3)
def survives_its_termination(self: ProgressTask, then: str, notes: str) -> str:
    """Catch the exception with which the pool terminates the run, and end in another way."""
    try:
        note(notes, f"began in {os.getpid()}")
        time.sleep(60)
    except BaseException:
        note(notes, "survived")
        if then == "retries":
            raise self.retry(exc=ConnectionError("not yet"), countdown=600) from None
        if then == "fails":
            raise LookupError("no such row") from None
    if then == "goes on":
        time.sleep(60)
    return "done"


class HangingHook(ProgressTask):
    """A task whose hook is called when the failure is stored, and before it is published."""

    def on_failure(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        note(args[0], "hook")
        time.sleep(60)


@app.task(base=HangingHook, shared=False, acks_late=True, cancel_grace=0.5)
def fails_and_hangs(notes: str) -> None:
    note(notes, "began")
    raise LookupError("no such row")


@job(acks_late=True, cancel_grace=None)
def goes_on_late(self: ProgressTask, notes: str) -> None:
    note(notes, "began")
    time.sleep(60)


def kill_when_cancelled(task: ProgressTask, notes: str) -> None:
    note(notes, "began")
    while not task.cancelled:
        time.sleep(0.01)
    note(notes, "killed")
    os.kill(os.getpid(), signal.SIGKILL)


@job()
def is_killed_when_cancelled(self: ProgressTask, notes: str) -> None:
    kill_when_cancelled(self, notes)


@job(acks_late=True, reject_on_worker_lost=True)
def is_killed_when_cancelled_late(self: ProgressTask, notes: str) -> None:
    kill_when_cancelled(self, notes)


@job(cancel_grace=0.2)
def finishes_after_its_grace(self: ProgressTask, notes: str) -> str:
    note(notes, "began")
    while not self.cancelled:
        time.sleep(0.01)
    wait_until_released(notes)
    return "done"


@job(acks_late=True, cancel_grace=None)
def finishes_late(self: ProgressTask, notes: str) -> str:
    note(notes, "began")
    while not self.cancelled:
        time.sleep(0.01)
    note(notes, "noticed")
    wait_until_released(notes)
    return "done"


@job(acks_late=True, cancel_grace=1)
def is_terminated_late(self: ProgressTask, notes: str) -> None:
    try:
        note(notes, "began")
        time.sleep(60)
    finally:
        note(notes, "finally")


@job(cancel_grace=6)
def has_a_long_grace(self: ProgressTask, notes: str) -> None:
    note(notes, "began")
    time.sleep(60)


@job(cancel_grace=0.5)
def holds_the_interpreter(self: ProgressTask, notes: str) -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(3600)
    try:
        note(notes, "began")
        # One call of C code that checks for no signal.
        sum(range(1 << 40))
    finally:
        sys.setswitchinterval(interval)
        note(notes, "finally")


@job(max_retries=3)
def waits_for_its_retry(self: ProgressTask, notes: str) -> None:
    note(notes, "began")
    raise self.retry(exc=ConnectionError("not yet"), countdown=600)


@job(autoretry_for=(Exception,), max_retries=3, default_retry_delay=0)
def would_retry(self: ProgressTask, notes: str) -> None:
    note(notes, "began")
    while not self.cancelled:
        time.sleep(0.01)
    raise ConnectionError("lost, because of the cancellation")


@job()
def shields_its_work(self: ProgressTask, notes: str) -> None:
    with self.shielded():
        note(notes, "began")
        while not self.cancelled:
            time.sleep(0.01)
        self.log("not interrupted")
        note(notes, "saved")
    note(notes, "went on")


@job()
def awaits(self: ProgressTask, notes: str) -> None:
    async def wait() -> None:
        note(notes, "began")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            note(notes, "cancelled")
            raise

    self.run_async(wait())


@job(cancellable=False)
def cannot_be_cancelled(self: ProgressTask, notes: str) -> str:
    note(notes, "began")
    wait_until_released(notes)
    return "done"


@job()
def is_quick(self: ProgressTask) -> str:
    self.progress(50)
    return "done"


CHAINS = {"chain of two": 1, "chain of three": 2}  # the steps after the first one


@job()
def starts_a_chord(self: ProgressTask, kind: str, notes: str) -> list[str]:
    """Start a chord. Return the ids of its body and of its last member.

    The queue of a queued member has the name of the file.
    """
    members = [runs.si(notes)]
    body = is_silent.si(notes) if kind == "silent body" else collects.s(notes)
    if kind == "silent member":
        members.append(is_silent.si(notes))
    elif kind == "terminated member":
        members.append(goes_on.si(notes))
    elif kind == "scheduled member":
        members.append(runs.si(notes).set(countdown=600))
    elif kind == "queued member":
        members.append(runs.si(notes).set(queue=Path(notes).name))
    elif kind == "scheduled body":
        body.set(countdown=600)
    body.set(link_error=[called_back.s(notes)])
    if kind in CHAINS:
        first = is_silent.si(notes).set(task_id=uuid())
        later = [runs.si(notes) for _ in range(CHAINS[kind])]
        sent = chord([*members, chain(first, *later)], body).apply_async()
        return [sent.id, first.options["task_id"]]
    sent = chord(members, body).apply_async()
    return [sent.id, sent.parent.children[-1].id]
