"""Reads the messages of a durable queue without a consumer, and returns them to the queue."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

from amqp.exceptions import ResourceLocked
from kombu.connection import Connection
from kombu.entity import Queue
from kombu.exceptions import KombuError

from jobcast.aio import jittered

T = TypeVar("T")

READ_TRIES: Final = 50  # attempts while another process reads
READ_DELAY: Final = 0.1  # seconds between two attempts
DELIVERY_TIMEOUT: Final = 1.0  # seconds; messages may expire while they are counted

logger = logging.getLogger(__name__)


class OthersReading(KombuError):
    """Other processes keep reading a queue."""


def read_kept(
    broker: Connection, queue: Queue, lock: str, decode: Callable[[bytes | str], T]
) -> list[T]:
    """Return the decoded messages of a queue, the oldest first. Blocks for a bounded time.

    Processes read in turn, because another reader would find the queue empty.

    Args:
        broker: a connection.
        queue: the queue; it is declared.
        lock: the name of an exclusive queue that serves as a lock.
        decode: parses the body of a message. Messages for which it raises ValueError are removed.

    Raises:
        KombuError, AMQPError, OSError: the broker is unreachable, or other processes keep reading.
    """
    for _ in range(READ_TRIES):
        locked = broker.channel()
        try:
            locked.queue_declare(lock, exclusive=True)
        except ResourceLocked:  # it has closed the channel
            time.sleep(jittered(READ_DELAY, 0.5, 1.5))
            continue
        try:
            return _read(broker, queue, decode)
        finally:
            if broker.connected:
                locked.queue_delete(lock)
                locked.close()
    raise OthersReading(f"other processes are reading {queue.name}")


def _read(broker: Connection, queue: Queue, decode: Callable[[bytes | str], T]) -> list[T]:
    channel: Any = broker.channel()
    queue(channel).declare()
    count = channel.queue_declare(queue.name, passive=True).message_count
    messages: list[Any] = []
    channel.basic_consume(queue.name, callback=messages.append)
    while len(messages) < count:
        try:
            broker.drain_events(timeout=DELIVERY_TIMEOUT)
        except TimeoutError:
            break
    found = []
    for message in messages:
        try:
            found.append(decode(message.body))
        except ValueError as exc:
            logger.warning("ignored a message of %s that is not jobcast's: %s", queue.name, exc)
            channel.basic_ack(message.delivery_tag)
    channel.close()  # returns the unacknowledged messages to the queue
    return found
