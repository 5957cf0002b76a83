"""Sends tasks, by name: of what they do, only the worker knows."""

import os
from collections.abc import Sequence

from celery import Celery
from kombu.exceptions import OperationalError

from jobcast.celery.enqueue import OWNER_HEADER

# Somebody waits for the answer.
IMPATIENT = {"socket_connect_timeout": 2, "socket_timeout": 2}  # seconds, of Redis
RETRIES = {"max_retries": 1, "interval_start": 0.1, "interval_step": 0.1}


class BrokerAway(Exception):
    """The broker cannot be reached, or takes nothing."""


class Sender:
    """Sends tasks to a queue, through the worker's broker.

    Args:
        queue: where the worker takes its jobs from.
        url: of the broker, where ``CELERY_BROKER_URL`` is not set.
    """

    def __init__(self, queue: str, url: str) -> None:
        self._app = Celery("console", broker=os.environ.get("CELERY_BROKER_URL") or url)
        self._app.conf.update(broker_connection_timeout=2, task_publish_retry_policy=RETRIES)
        self._queue = queue

    def send(self, task: str, arguments: Sequence[str], *, job_id: str, owner: str) -> None:
        """Send a task for somebody. It waits for the broker, for some seconds at most.

        Raises:
            BrokerAway: the task was not sent.
        """
        connection = self._app.connection_for_write(transport_options=IMPATIENT)
        try:
            with connection:
                # Before anybody is told that the job is queued.
                connection.ensure_connection(**RETRIES)
                self._app.send_task(
                    task, arguments, task_id=job_id, headers={OWNER_HEADER: owner},
                    queue=self._queue, connection=connection,
                )  # fmt: skip
        except (
            OperationalError, OSError, *connection.connection_errors, *connection.channel_errors
        ) as exc:  # fmt: skip
            raise BrokerAway(str(exc)) from exc
