"""Reads revoked tokens from a RabbitMQ queue, and returns the messages to the queue."""

from __future__ import annotations

import logging
import time
from typing import Any, Final

from amqp.exceptions import ResourceLocked
from kombu.connection import Connection

from jobcast.aio import jittered
from jobcast.errors import TransportUnavailable
from jobcast.transports.amqp.connection import KOMBU_ERRORS, connection
from jobcast.transports.amqp.names import Names
from jobcast.transports.revocations import Revocation, still_in_force

READ_TRIES: Final = 50  # attempts while another process reads
READ_DELAY: Final = 0.1  # seconds between two attempts

logger = logging.getLogger(__name__)


def read_revocations(url: str, names: Names) -> list[Revocation]:
    """Return the revocations that are in force. Blocks for a bounded time.

    Processes read in turn, because another reader would find the queue empty.

    Raises:
        TransportUnavailable: the broker is unreachable, or other processes keep reading.
    """
    try:
        for _ in range(READ_TRIES):
            with connection(url) as broker:
                try:
                    return _read(broker, names)
                except ResourceLocked:
                    time.sleep(jittered(READ_DELAY, 0.5, 1.5))
    except KOMBU_ERRORS as exc:
        raise TransportUnavailable(f"could not read {names.revocations}: {exc}") from exc
    raise TransportUnavailable(f"could not read {names.revocations}: other processes are reading")


def _read(broker: Connection, names: Names) -> list[Revocation]:
    channel: Any = broker.channel()
    # The exclusive queue serves as a lock; it is deleted with the connection.
    channel.queue_declare(f"{names.revocations}.reading", exclusive=True, auto_delete=True)
    queue = names.kept_revocations()(channel)
    queue.declare()
    found = []
    while (message := channel.basic_get(queue.name)) is not None:
        try:
            found.append(Revocation.decode(message.body))
        except ValueError as exc:
            logger.warning("ignored a message of %s that is not jobcast's: %s", queue.name, exc)
            message.channel.basic_ack(message.delivery_tag)
    # Unacknowledged messages return to the queue when the connection is closed.
    return still_in_force(found, time.time())
