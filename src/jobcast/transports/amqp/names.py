"""The names of exchanges and queues in RabbitMQ."""

from __future__ import annotations

import secrets
from typing import Any, Final

from kombu.entity import Exchange, Queue, binding
from msgspec import Struct

from jobcast.transports.cancellation import KEPT_FOR, MAX_KEPT
from jobcast.transports.prefix import DEFAULT_PREFIX
from jobcast.transports.revocations import MAX_REVOCATIONS

#: The routing key of events, and of their exchange's binding to the exchange of the servers. The
#: latter routes by the key of the message: an event with another key reaches no server process.
EVENTS_KEY: Final = ""
#: The routing keys of the exchange for cancellations.
REQUEST_KEY: Final = "request"  # before it takes effect
NOTICE_KEY: Final = "notice"  # of an accepted request


class Names(Struct, frozen=True):
    """The names of exchanges and queues in the deployment with this prefix."""

    prefix: str = DEFAULT_PREFIX

    @property
    def bus(self) -> str:
        """The exchange of python-socketio's own traffic between processes."""
        return self.prefix

    @property
    def events(self) -> str:
        """The exchange to which the events of jobs are published."""
        return f"{self.prefix}.events"

    @property
    def servers(self) -> str:
        """The exchange through which the server processes receive the events of jobs."""
        return f"{self.events}.servers"

    @property
    def leases(self) -> str:
        """The exchange for lease renewals and releases."""
        return f"{self.prefix}.leases"

    @property
    def revocations(self) -> str:
        """The exchange for revocations of tokens."""
        return f"{self.prefix}.revocations"

    @property
    def cancellations(self) -> str:
        """The exchange for requests to cancel jobs, on their way to the workers."""
        return f"{self.prefix}.cancellations"

    @property
    def exchanges(self) -> frozenset[str]:
        """The names of all exchanges."""
        events = self.events, self.servers
        return frozenset((self.bus, *events, self.leases, self.revocations, self.cancellations))

    @staticmethod
    def new_queue(exchange: str) -> str:
        """Return a new name for a queue of a server process."""
        return f"{exchange}.{secrets.token_hex(8)}"

    def bus_exchange(self) -> Exchange:
        return stock_exchange(self.bus)

    def events_exchange(self) -> Exchange:
        return Exchange(self.events, "fanout", durable=True)

    def servers_exchange(self) -> Exchange:
        return Exchange(self.servers, "direct", durable=True)

    def revocations_exchange(self) -> Exchange:
        return Exchange(self.revocations, "fanout", durable=True)

    def kept_revocations(self) -> Queue:
        """Return the durable queue, without a consumer, of the revocations that are in force."""
        return kept_queue(self.revocations_exchange(), max_length=MAX_REVOCATIONS)

    @staticmethod
    def read_lock(exchange: str) -> str:
        """Return the name of the lock for the readers of the kept messages of an exchange."""
        return f"{exchange}.reading"

    def cancellations_exchange(self) -> Exchange:
        return Exchange(self.cancellations, "direct", durable=True)

    def kept_requests(self) -> Queue:
        """Return the durable queue, without a consumer, of the latest requests to cancel jobs."""
        exchange = self.cancellations_exchange()
        return kept_queue(exchange, REQUEST_KEY, max_length=MAX_KEPT, message_ttl=KEPT_FOR)

    def new_notices_queue(self) -> Queue:
        """Return a queue of a worker process, for notices of accepted requests, and withdrawals."""
        exchange = self.cancellations_exchange()
        return Queue(
            self.new_queue(exchange.name),
            bindings=[binding(exchange, key) for key in (NOTICE_KEY, REQUEST_KEY)],
            durable=False,
            exclusive=True,
            auto_delete=True,
        )

    def leases_exchange(self) -> Exchange:
        return Exchange(self.leases, "fanout", durable=False)


def stock_exchange(channel: str) -> Exchange:
    """Return an exchange as python-socketio's managers declare it."""
    return Exchange(channel, "fanout", durable=False)


def kept_queue(exchange: Exchange, routing_key: str = "", **limits: Any) -> Queue:
    """Return a durable queue that keeps the messages of an exchange. It has no consumer."""
    return Queue(
        f"{exchange.name}.kept",
        exchange,
        routing_key,
        durable=True,
        # A quorum queue, which may be the vhost's default, drops messages that are requeued often.
        queue_arguments={"x-queue-type": "classic"},
        **limits,
    )
