"""Runs that a worker stops, because it exits or has lost its connection to the broker."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
from celery import Celery
from celery.utils.log import in_sighandler
from celery.worker.request import create_request_cls

from jobcast import ProgressTask
from jobcast.celery.background import background
from jobcast.celery.request import JobRequest, request_class
from jobcast.publishing import runtime
from jobcast.transports.memory import MemoryBroker
from tests.support import TIMEOUT
from tests.unit.celery.deliveries import app_in_memory, send

LOST = "The worker that ran this job lost its connection to the queue"
STOPPED = "The worker was stopped while it ran this job"


class Pool:
    """A pool that stops no process."""

    is_green = False

    def apply_async(self, *args: Any, **options: Any) -> None: ...

    def terminate_job(self, pid: int, signum: int) -> None: ...


@pytest.fixture
def app(broker: MemoryBroker) -> Iterator[Celery]:
    with app_in_memory() as app:
        yield app


@pytest.mark.parametrize(
    ("handler", "error", "expected"),
    [
        (nullcontext(), ConnectionError("the broker is away"), LOST),
        (in_sighandler(), LookupError("another one"), STOPPED),
        # The signal interrupts code that handles an error of a connection.
        (in_sighandler(), BlockingIOError("nothing to read"), STOPPED),
    ],
    ids=["lost", "stopped", "interrupted"],
)
def test_stopped_run_names_its_reason(
    app: Celery, broker: MemoryBroker, handler: AbstractContextManager[None], error: Exception,
    expected: str,
) -> None:  # fmt: skip
    @app.task(base=ProgressTask, shared=False, acks_late=True)
    def task() -> None: ...

    message, pool = send(task), Pool()
    cls = create_request_cls(request_class(task.Request), task, pool, "unit", None, app=app)
    request: JobRequest = cls(
        message, app=app, task=task, headers=message.headers, decoded=False,
        connection_errors=(OSError,),
    )  # fmt: skip
    request.on_accepted(1234, time.monotonic())
    try:
        raise error
    except type(error):
        with handler:
            request.cancel(pool)
    assert background.call(lambda: None).wait(TIMEOUT)
    here = runtime.get_runtime()
    assert here is not None
    here.publisher.flush()
    packets = "".join(message.packet for message in broker.snapshot(request.id, None).events)
    assert [reason for reason in (LOST, STOPPED) if reason in packets] == [expected]
