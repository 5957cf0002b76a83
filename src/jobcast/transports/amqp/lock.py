"""Locks between processes that use the same broker."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from amqp.exceptions import ResourceLocked
from kombu.connection import Connection
from kombu.exceptions import KombuError

from jobcast.aio import jittered

LOCK_TRIES: Final = 50  # attempts while another process holds a lock
LOCK_DELAY: Final = 0.1  # seconds between two attempts


class LockHeld(KombuError):
    """Other processes keep holding a lock."""


@contextmanager
def locked(broker: Connection, name: str, tries: int = LOCK_TRIES) -> Iterator[None]:
    """Hold a lock, which the broker releases if the connection ends.

    Args:
        broker: a connection.
        name: the name of an exclusive queue that serves as the lock.
        tries: the number of attempts while other processes hold the lock.

    Raises:
        LockHeld: other processes keep holding the lock.
        KombuError, AMQPError, OSError: the connection has ended, or a permission is missing.
    """
    channel: Any = broker.channel()
    for attempt in range(tries):
        if attempt:
            time.sleep(jittered(LOCK_DELAY, 0.5, 1.5))
        try:
            channel.queue_declare(name, exclusive=True)
            break
        except ResourceLocked:
            continue  # the driver has opened the channel again
    else:
        channel.close()
        raise LockHeld(f"other processes hold the lock {name}")
    try:
        yield
    finally:
        if broker.connected:
            channel.queue_delete(name)
            channel.close()
