"""Messages of tasks and the requests that a worker makes of them, with a broker in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery import Celery
from celery.worker import state

from jobcast.celery.headers import SENDING_HEADER
from jobcast.celery.request import JobRequest, request_class
from jobcast.transports.cancellation import Cancellation
from tests.support import new_id


@contextmanager
def app_in_memory() -> Iterator[Celery]:
    """Yield an application with its broker and results in memory. A worker's state is reset."""
    with Celery(
        "unit", broker=f"memory://{new_id()}", backend="cache+memory://", set_as_current=False
    ) as app:
        yield app
    state.reset_state()


def send(task: Any, **options: Any) -> Any:
    """Send a task, and return its message as a worker gets it."""
    queue = new_id()
    task.apply_async(queue=queue, **options)
    with task.app.connection_for_read() as connection:
        return task.app.amqp.queues[queue](connection.default_channel).get()


def receive(task: Any, message: Any) -> JobRequest:
    """Return the request of a delivery."""
    request: JobRequest = request_class(task.Request)(
        message, app=task.app, task=task, headers=message.headers, decoded=False
    )
    return request


def covering(message: Any, outcome: Any = "requested") -> Cancellation:
    """Return a request to cancel the job of a message."""
    headers = message.headers
    return Cancellation(
        job_id=headers["id"], sending=headers[SENDING_HEADER], task=headers["task"], outcome=outcome
    )
