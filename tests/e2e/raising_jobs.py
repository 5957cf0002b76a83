"""Tasks whose exceptions cannot be pickled, so that Celery substitutes others."""

from __future__ import annotations

import os

from celery import Celery

from jobcast import ProgressTask
from tests.unpicklable import NoSuchRow, TwoArgs

BROKER = os.environ.get("CELERY_BROKER_URL")

app = Celery("raising", broker=BROKER or "memory://", set_as_current=BROKER is not None)
app.conf.update(result_backend=BROKER or "cache+memory://", broker_connection_retry_on_startup=True)


class ReportsFields(ProgressTask):
    abstract = True

    def public_error(self, exc: BaseException) -> str:
        return f"{exc} {vars(exc)}"


@app.task(base=ProgressTask, bind=True, shared=False)
def fails(self: ProgressTask) -> None:
    raise TwoArgs(5, "bad row")


@app.task(base=ReportsFields, bind=True, shared=False)
def fails_and_tells_fields(self: ProgressTask) -> None:
    raise NoSuchRow("users", 7)


@app.task(base=ReportsFields, bind=True, max_retries=1, default_retry_delay=0, shared=False)
def retries(self: ProgressTask) -> None:
    raise self.retry(exc=TwoArgs(6, "not yet"))


@app.task(
    base=ReportsFields, bind=True, autoretry_for=(TwoArgs,), max_retries=1, default_retry_delay=0,
    shared=False,
)  # fmt: skip
def retries_by_itself(self: ProgressTask) -> None:
    raise TwoArgs(7, "not yet either")
