"""Tasks for the workers of pytest-celery."""

from __future__ import annotations

import os
import signal
import time

from celery import shared_task

from jobcast import ProgressTask, current_job


@shared_task(base=ProgressTask, bind=True, max_retries=1, default_retry_delay=0)
def does(self: ProgressTask, outcome: str, seconds: float = 60) -> str:
    """End with the outcome that the caller names."""
    self.log("running")
    current_job().flush()
    if outcome == "fail":
        raise LookupError("no such row")
    if outcome == "retry" and self.request.retries == 0:
        raise self.retry(exc=ConnectionError("not yet"))
    if outcome == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if outcome == "hang":
        time.sleep(seconds)
    return "done"


@shared_task(base=ProgressTask, bind=True, acks_late=True)
def hangs_at_first(self: ProgressTask) -> str:
    self.log("running")
    current_job().flush()
    if not self.request.delivery_info["redelivered"]:
        time.sleep(600)
    return "done"
