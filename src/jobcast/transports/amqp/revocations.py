"""Reads the revoked tokens that a RabbitMQ queue keeps."""

from __future__ import annotations

import time

from jobcast.errors import TransportUnavailable
from jobcast.transports.amqp.connection import KOMBU_ERRORS, connection
from jobcast.transports.amqp.kept import read_kept
from jobcast.transports.amqp.names import Names
from jobcast.transports.revocations import Revocation, still_in_force


def read_revocations(url: str, names: Names) -> list[Revocation]:
    """Return the revocations that are in force. Blocks for a bounded time.

    Raises:
        TransportUnavailable: the broker is unreachable, or other processes keep reading.
    """
    lock = names.read_lock(names.revocations)
    try:
        with connection(url) as broker:
            found = read_kept(broker, names.kept_revocations(), lock, Revocation.decode)
    except KOMBU_ERRORS as exc:
        raise TransportUnavailable(f"could not read {names.revocations}: {exc}") from exc
    return still_in_force(found, time.time())
