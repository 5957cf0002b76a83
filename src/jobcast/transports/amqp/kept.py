"""Reads the messages of a durable queue without a consumer, and returns them to the queue."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from amqp.basic_message import Message
from kombu.connection import Connection
from kombu.entity import Queue
from kombu.exceptions import KombuError

from jobcast.transports.amqp.connection import ANSWER_TIMEOUT
from jobcast.transports.amqp.lock import LOCK_TRIES, locked
from jobcast.transports.decoding import decoded

T = TypeVar("T")


class MessagesWithheld(KombuError):
    """The broker counts messages in a queue, and does not deliver them."""


def read_kept(
    broker: Connection,
    queue: Queue,
    lock: str,
    decode: Callable[[bytes | str], T],
    tries: int = LOCK_TRIES,
) -> list[T]:
    """Return the decoded messages of a queue, the oldest first. Blocks for a bounded time.

    Processes read in turn, because another reader would find the queue empty.

    Args:
        broker: a connection.
        queue: the queue; it is declared.
        lock: the name of the readers' lock.
        decode: parses the body of a message. Messages for which it raises ValueError are removed.
        tries: the number of attempts while other processes read.

    Raises:
        LockHeld: other processes keep reading.
        KombuError, AMQPError, OSError: the broker is unreachable.
    """
    with locked(broker, lock, tries):
        channel: Any = broker.channel()
        try:
            return _read(channel, queue, decode)
        finally:
            if broker.connected:
                channel.close()  # returns the unacknowledged messages to the queue


def _read(channel: Any, queue: Queue, decode: Callable[[bytes | str], T]) -> list[T]:
    queue(channel).declare()
    found = []
    for message in receive_all(channel, queue.name):
        kept = decoded(decode, message.body, queue.name)
        if kept is None:
            channel.basic_ack(message.delivery_tag)
        else:
            found.append(kept)
    return found


def receive_all(channel: Any, queue: str, *, no_ack: bool = False) -> list[Message]:
    """Return all messages that a queue has now, the oldest first.

    A slow broker delays the answer. It does not shorten the list: the answer to a cancelled
    consumer comes from the queue, after all deliveries. The list may end with messages that arrive
    meanwhile, but the function does not wait for them.

    Args:
        channel: a channel.
        queue: the name of the queue.
        no_ack: whether to remove the messages from the queue.

    Raises:
        KombuError, AMQPError, OSError: the connection has ended, or the broker withholds messages.
    """
    messages: list[Message] = []
    received_at = time.monotonic()
    count = expected = channel.queue_declare(queue, passive=True).message_count
    while count and len(messages) < expected:
        before = len(messages)
        # Messages that a consumer gets come faster than those that are fetched one by one.
        tag = channel.basic_consume(queue, no_ack=no_ack, callback=messages.append)
        channel.basic_cancel(tag)
        if len(messages) > before:
            received_at = time.monotonic()
        elif time.monotonic() - received_at > ANSWER_TIMEOUT:
            raise MessagesWithheld(f"the broker does not deliver {count} messages of {queue}")
        # Fewer messages come if some of them expire.
        count = channel.queue_declare(queue, passive=True).message_count
    return messages
