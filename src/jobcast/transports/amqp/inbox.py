"""The requests to cancel jobs that a publisher knows of when its runs begin."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any

from amqp.exceptions import AccessRefused
from kombu.connection import Connection

from jobcast.transports.amqp.cancellation import CancelRequest
from jobcast.transports.amqp.kept import receive_all
from jobcast.transports.amqp.lock import LOCK_TRIES, LockHeld
from jobcast.transports.amqp.names import REQUEST_KEY, Names
from jobcast.transports.amqp.requests import KnownRequests
from jobcast.transports.base import Outgoing
from jobcast.transports.cancellation import MAX_KEPT, Cancellation
from jobcast.transports.decoding import decoded

logger = logging.getLogger(__name__)


class RequestInbox:
    """The requests that precede the events of a publisher.

    The broker answers for no record, so the order of messages has to. A server process passes a
    request to all inboxes, and to the queue of kept requests, before it lets the request take
    effect by a message among the events. If that message precedes a ``started`` event, then the
    request is in the inbox when the broker has confirmed the event. A request that has no effect is
    in the inbox until the process withdraws it.

    An inbox uses a connection of its publisher, and its thread.

    Only one process at a time can read the kept requests. An inbox that does not get its turn reads
    them later, and lacks them until then.
    """

    def __init__(self, broker: Connection, names: Names) -> None:
        self._broker = broker
        self._names = names
        self._channel: Any = broker.channel()
        self._queue = names.new_queue(names.cancellations)
        self._has_kept = False
        self._tries = LOCK_TRIES  # to read the kept requests, the next time
        self._requests = KnownRequests()

    def open(self) -> None:
        """Receive requests from now on.

        Raises:
            KombuError, AMQPError, OSError: the connection has ended, or a permission is missing.
        """
        exchange = self._names.cancellations_exchange()
        exchange(self._channel).declare()
        # Kombu's exclusive queues are deleted when they have no consumer any longer.
        self._channel.queue_declare(
            self._queue, exclusive=True, auto_delete=False, arguments={"x-max-length": MAX_KEPT}
        )
        self._channel.queue_bind(self._queue, exchange.name, REQUEST_KEY)

    def close(self) -> None:
        """Delete the queue, which otherwise exists as long as the connection.

        Raises:
            KombuError, AMQPError, OSError: the connection has ended.
        """
        channel: Any = self._broker.channel()
        with suppress(AccessRefused):  # the queue was not declared for that reason
            channel.queue_delete(self._queue)
        for each in (channel, self._channel):
            each.close()  # a refusal has closed a channel already

    def read(self) -> None:
        """Read the requests that have arrived.

        Raises:
            KombuError, AMQPError, OSError: the connection has ended, or a permission is missing.
        """
        if not self._has_kept:
            self._read_kept()
        for message in receive_all(self._channel, self._queue, no_ack=True):
            request = decoded(CancelRequest.decode, message.body, self._queue)
            if request is not None:
                self._requests.add(request)

    def _read_kept(self) -> None:
        tries, self._tries = self._tries, 1  # later attempts do not delay runs
        try:
            self._requests.add_kept(self._broker, self._names, tries)
        except LockHeld as exc:
            logger.log(
                logging.WARNING if tries > 1 else logging.DEBUG,
                "this process does not yet know the requests to cancel jobs from before its first"
                " run (%s); reading them with the next status", exc,
            )  # fmt: skip
            return
        self._has_kept = True

    def find(self, outgoing: Outgoing) -> Cancellation | None:
        """Return the first request that covers the run of an event."""
        return self._requests.find(outgoing.job_id, outgoing.run)
