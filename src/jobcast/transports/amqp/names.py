"""The names of exchanges and queues in RabbitMQ."""

from __future__ import annotations

import secrets

from kombu.entity import Exchange, Queue
from msgspec import Struct

from jobcast.transports.prefix import DEFAULT_PREFIX
from jobcast.transports.revocations import MAX_REVOCATIONS


class Names(Struct, frozen=True):
    """The names of exchanges and queues in the deployment with this prefix."""

    prefix: str = DEFAULT_PREFIX

    @property
    def bus(self) -> str:
        """The exchange of python-socketio's own traffic between processes."""
        return self.prefix

    @property
    def events(self) -> str:
        """The exchange for the events of jobs."""
        return f"{self.prefix}.events"

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
        """The exchange for accepted requests to cancel jobs."""
        return f"{self.prefix}.cancellations"

    @property
    def exchanges(self) -> frozenset[str]:
        """The names of all exchanges."""
        names = self.bus, self.events, self.leases, self.revocations, self.cancellations
        return frozenset(names)

    @staticmethod
    def new_queue(exchange: str) -> str:
        """Return a new name for a queue of a server process."""
        return f"{exchange}.{secrets.token_hex(8)}"

    def bus_exchange(self) -> Exchange:
        return stock_exchange(self.bus)

    def events_exchange(self) -> Exchange:
        return Exchange(self.events, "fanout", durable=True)

    def revocations_exchange(self) -> Exchange:
        return Exchange(self.revocations, "fanout", durable=True)

    def kept_revocations(self) -> Queue:
        """Return the durable queue, without a consumer, of the revocations that are in force."""
        return Queue(
            f"{self.revocations}.kept",
            self.revocations_exchange(),
            durable=True,
            # A quorum queue, which may be the vhost's default, drops messages that are requeued
            # often.
            queue_arguments={"x-queue-type": "classic"},
            max_length=MAX_REVOCATIONS,
        )

    def cancellations_exchange(self) -> Exchange:
        return Exchange(self.cancellations, "fanout", durable=False)

    def new_cancellations_queue(self) -> Queue:
        """Return a queue of a worker process, which is deleted with the connection."""
        exchange = self.cancellations_exchange()
        name = self.new_queue(exchange.name)
        return Queue(name, exchange, durable=False, exclusive=True, auto_delete=True)

    def leases_exchange(self) -> Exchange:
        return Exchange(self.leases, "fanout", durable=False)


def stock_exchange(channel: str) -> Exchange:
    """Return an exchange as python-socketio's managers declare it."""
    return Exchange(channel, "fanout", durable=False)
