"""Tasks whose result is stored while the end of their job is not published yet."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from jobcast import ProgressTask
from tests.cancelled_jobs import app as app
from tests.cancelled_jobs import note


class Publishes(ProgressTask):
    """A task that publishes its outcome when a file exists. Celery has stored it before."""

    abstract = True

    def public_result(self, notes: Any) -> str:
        wait_until_released(notes)
        return "done"

    def public_error(self, exc: BaseException) -> str:
        wait_until_released(str(exc))
        return "failed"


def wait_until_released(notes: str) -> None:
    note(notes, f"stored {os.getpid()}")
    while not Path(may_publish(notes)).exists():
        time.sleep(0.01)


def may_publish(notes: str) -> str:
    """Return the file that lets a task publish its success."""
    return f"{notes}.publish"


@app.task(base=Publishes, shared=False, cancel_grace=0.2)
def returns_with_a_short_grace(notes: str) -> str:
    note(notes, "began")
    return notes


@app.task(base=Publishes, shared=False, cancel_grace=0.2)
def fails_with_a_short_grace(notes: str) -> None:
    note(notes, "began")
    raise LookupError(notes)


@app.task(base=Publishes, shared=False)
def returns(notes: str) -> str:
    note(notes, "began")
    return notes


@app.task(base=Publishes, shared=False, time_limit=12)
def returns_within_its_limit(notes: str) -> str:
    note(notes, "began")
    return notes
