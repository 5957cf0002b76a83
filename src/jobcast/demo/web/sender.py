"""Sending of tasks by name: the server does not import the tasks' code."""

from __future__ import annotations

import os
from collections.abc import Sequence

from celery import Celery
from kombu.exceptions import OperationalError

from jobcast.celery.enqueue import job_headers

# Short timeouts, because a user waits for the response.
IMPATIENT = {"socket_connect_timeout": 2, "socket_timeout": 2}  # seconds, of Redis
RETRIES = {"max_retries": 1, "interval_start": 0.1, "interval_step": 0.1}


class BrokerAway(Exception):
    """The broker cannot be reached, or does not accept tasks."""


class Sender:
    """A Celery producer for the worker's queue.

    Args:
        queue: the queue that the worker consumes.
        url: the broker's URL, used if ``CELERY_BROKER_URL`` is not set.
    """

    def __init__(self, queue: str, url: str) -> None:
        self._app = Celery("demo", broker=os.environ.get("CELERY_BROKER_URL") or url)
        self._app.conf.update(broker_connection_timeout=2, task_publish_retry_policy=RETRIES)
        self._queue = queue

    def send(
        self, task: str, arguments: Sequence[str], *, job_id: str, owner: str, title: str
    ) -> None:
        """Send a task on behalf of ``owner``. The call blocks for a few seconds at most.

        Raises:
            BrokerAway: the task was not sent.
        """
        connection = self._app.connection_for_write(transport_options=IMPATIENT)
        try:
            with connection:
                # Check the connection before jobcast publishes the job as queued.
                connection.ensure_connection(**RETRIES)
                self._app.send_task(
                    task, arguments, task_id=job_id,
                    headers=job_headers(owner=owner, title=title),
                    queue=self._queue, connection=connection,
                )  # fmt: skip
        except (
            OperationalError, OSError, *connection.connection_errors, *connection.channel_errors
        ) as exc:  # fmt: skip
            raise BrokerAway(str(exc)) from exc
