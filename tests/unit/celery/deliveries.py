"""Messages of tasks and the requests that a worker makes of them, with a broker in memory."""

from __future__ import annotations

from typing import Any

from jobcast.celery.request import JobRequest, request_class
from tests.support import new_id


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
