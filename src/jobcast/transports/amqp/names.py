"""The names of exchanges and queues in RabbitMQ."""

from __future__ import annotations

import secrets

from kombu.entity import Exchange, Queue
from msgspec import Struct

from jobcast.transports.prefix import DEFAULT_PREFIX
from jobcast.transports.revocations import MAX_REVOCATIONS


class Names(Struct, frozen=True):
    """The names that the deployment with this prefix uses."""

    prefix: str = DEFAULT_PREFIX

    @property
    def bus(self) -> str:
        """The exchange of python-socketio's own traffic between processes."""
        return self.prefix

    @property
    def events(self) -> str:
        """The exchange of the jobs' events."""
        return f"{self.prefix}.events"

    @property
    def leases(self) -> str:
        """The exchange of what keeps runs alive."""
        return f"{self.prefix}.leases"

    @property
    def revocations(self) -> str:
        """The exchange of tokens that are revoked."""
        return f"{self.prefix}.revocations"

    @property
    def exchanges(self) -> frozenset[str]:
        """All of them."""
        return frozenset((self.bus, self.events, self.leases, self.revocations))

    @staticmethod
    def new_queue(exchange: str) -> str:
        """A name for the queue of a server process."""
        return f"{exchange}.{secrets.token_hex(8)}"

    def bus_exchange(self) -> Exchange:
        return stock_exchange(self.bus)

    def events_exchange(self) -> Exchange:
        return Exchange(self.events, "fanout", durable=True)

    def revocations_exchange(self) -> Exchange:
        return Exchange(self.revocations, "fanout", durable=True)

    def kept_revocations(self) -> Queue:
        """The durable queue of the revocations that are in force. Nobody consumes it."""
        return Queue(
            f"{self.revocations}.kept",
            self.revocations_exchange(),
            durable=True,
            # A quorum queue, which a vhost may make by default, drops what is given back often.
            queue_arguments={"x-queue-type": "classic"},
            max_length=MAX_REVOCATIONS,
        )

    def leases_exchange(self) -> Exchange:
        return Exchange(self.leases, "fanout", durable=False)


def stock_exchange(channel: str) -> Exchange:
    """An exchange as python-socketio's managers declare it."""
    return Exchange(channel, "fanout", durable=False)
