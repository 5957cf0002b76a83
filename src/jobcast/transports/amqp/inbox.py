"""The requests to cancel jobs that a publisher knows of when its runs begin."""

from __future__ import annotations

import logging
from collections import OrderedDict
from typing import Any

from kombu.connection import Connection

from jobcast.transports.amqp.kept import read_kept, receive_all
from jobcast.transports.amqp.names import REQUEST_KEY, Names
from jobcast.transports.base import Outgoing
from jobcast.transports.cancellation import MAX_KEPT, Cancellation

logger = logging.getLogger(__name__)


class RequestInbox:
    """The requests that precede the events of a publisher.

    The broker answers for no record, so the order of messages has to. A server process passes a
    request to all inboxes, and to the queue of kept requests, before it lets the request take
    effect by a message among the events. If that message precedes a ``started`` event, then the
    request is in the inbox when the broker has confirmed the event.

    An inbox uses a connection of its publisher, and its thread.

    Raises:
        KombuError, AMQPError, OSError: the connection has ended, or other processes keep reading.
    """

    def __init__(self, broker: Connection, names: Names) -> None:
        self._channel: Any = broker.channel()
        self._queue = names.new_queue(names.cancellations)
        self._bind_queue(names)
        self._requests: OrderedDict[str, Cancellation] = OrderedDict()  # by job id
        lock = names.reading(names.cancellations)
        for request in read_kept(broker, names.kept_requests(), lock, Cancellation.decode):
            self._add(request)

    def _bind_queue(self, names: Names) -> None:
        exchange = names.cancellations_exchange()
        exchange(self._channel).declare()
        # Kombu's exclusive queues are deleted when they have no consumer any longer.
        self._channel.queue_declare(
            self._queue, exclusive=True, auto_delete=False, arguments={"x-max-length": MAX_KEPT}
        )
        self._channel.queue_bind(self._queue, exchange.name, REQUEST_KEY)

    def read(self) -> None:
        """Read the requests that have arrived.

        Raises:
            KombuError, AMQPError, OSError: the connection has ended.
        """
        for message in receive_all(self._channel, self._queue, no_ack=True):
            try:
                self._add(Cancellation.decode(message.body))
            except ValueError as exc:
                logger.warning(
                    "ignored a message of %s that is not jobcast's: %s", self._queue, exc
                )

    def find(self, outgoing: Outgoing) -> Cancellation | None:
        """Return the request that covers the run of an event."""
        request = self._requests.get(outgoing.job_id)
        return request if request is not None and request.covers(outgoing.run) else None

    def _add(self, request: Cancellation) -> None:
        self._requests[request.job_id] = request
        self._requests.move_to_end(request.job_id)
        while len(self._requests) > MAX_KEPT:
            self._requests.popitem(last=False)
