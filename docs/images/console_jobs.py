"""The jobs in the pictures of the console: the back office of a shop.

A job that stops at less than 100 percent runs until the file ``GATE`` exists.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from celery import Celery

from jobcast import ProgressTask

BROKER = os.environ.get("CELERY_BROKER_URL", "memory://")
GATE = Path(os.environ.get("CONSOLE_GATE", os.devnull))
QUEUE = "shop"
SOME_DAY = 24 * 3600  # seconds until the next attempt of a job that stays in the picture
OFTEN = 3  # attempts after which the console shows a job as stuck
BRANCHES = ("Berlin", "Kraków", "Lyon", "Porto", "Turku", "Zürich")
STATEMENTS = {"Balance sheet": 100, "Income statement": 60, "Cash flow": 20}

app = Celery("shop", broker=BROKER)
app.conf.update(
    broker_connection_retry_on_startup=True, task_default_queue=QUEUE, task_ignore_result=True
)


def wait_for_gate() -> None:
    while not GATE.exists():
        time.sleep(0.2)


def work(task: ProgressTask, total: int, stop_at: int, message: str) -> None:
    pause = 0.02 + 0.06 * (total % 7) / 7  # seconds
    for percent in range(0, stop_at + 1, 4):
        task.progress(current=total * percent // 100, total=total, message=message)
        time.sleep(pause)
    if stop_at < 100:
        wait_for_gate()


@app.task(name="shop.report", base=ProgressTask, bind=True, job_title="Report for {0}")
def report(self: ProgressTask, customer: str, stop_at: int = 100) -> int:
    pages = 20 + 3 * len(customer)
    work(self, pages, stop_at, "rendering pages")
    return pages


@app.task(name="shop.import_prices", base=ProgressTask, bind=True, job_title="Import {0}")
def import_prices(self: ProgressTask, name: str, stop_at: int = 100, wrong: bool = False) -> int:
    rows = 2100 * len(name)
    work(self, rows, stop_at, "importing rows")
    if wrong:
        raise ValueError(f"line {rows // 3}: the price '12,50 €' is not a number")
    return rows


@app.task(name="shop.thumbnails", base=ProgressTask, bind=True, job_title="Thumbnails of {0}")
def thumbnails(self: ProgressTask, album: str, stop_at: int = 100, wrong: bool = False) -> int:
    images = 30 * len(album)
    work(self, images, stop_at, "scaling images")
    if wrong:
        raise OSError("image 217 is truncated: 3 bytes are missing")
    return images


@app.task(
    name="shop.send_invoices",
    base=ProgressTask,
    bind=True,
    job_title="Send {0} invoices",
    max_retries=None,
)
def send_invoices(self: ProgressTask, number: int, refused: bool = False) -> int:
    self.progress(0, "connecting to the mail server")
    if refused:
        delay = 0 if self.request.retries + 2 < OFTEN else SOME_DAY
        raise self.retry(exc=ConnectionError("421 too many connections"), countdown=delay)
    return number


@app.task(name="shop.close_month", base=ProgressTask, bind=True, job_title="Close {0}")
def close_month(self: ProgressTask, month: str, owner: str) -> None:
    """Close each branch in a job of its own."""
    for branch in BRANCHES:
        self.log(f"send the branch {branch} of {month}")
        close_branch.as_job(owner=owner, tags=["closing", f"branch:{branch}"]).delay(branch, owner)
    self.progress(45, "waiting for the branches")
    wait_for_gate()


@app.task(
    name="shop.close_branch", base=ProgressTask, bind=True, job_title="Close the books of {0}"
)
def close_branch(self: ProgressTask, branch: str, owner: str) -> None:
    """Check the ledger, and write the statements in jobs of their own."""
    with self.stage("check", weight=2):
        for account in self.track(range(4000, 4240), message="checking accounts"):
            check(self, account)
    with self.stage("statements"):
        for number, (name, stop_at) in enumerate(STATEMENTS.items(), 1):
            self.progress(current=number, total=2 * len(STATEMENTS), message="writing statements")
            self.log(f"send the statement {name!r}")
            job = statement.as_job(owner=owner, tags=["closing", f"branch:{branch}"])
            job.delay(f"{name} of {branch}", stop_at)
        wait_for_gate()


def check(task: ProgressTask, account: int) -> None:
    time.sleep(0.03)
    if account % 9 == 0:
        task.log(f"account {account}: {account % 101 + 3} entries, balanced")
    if account % 70 == 0:
        task.log(f"account {account}: two entries have no receipt", "warning")


@app.task(name="shop.statement", base=ProgressTask, bind=True, job_title="{0}")
def statement(self: ProgressTask, name: str, stop_at: int) -> int:
    pages = len(name)
    work(self, pages, stop_at, "writing pages")
    return pages
