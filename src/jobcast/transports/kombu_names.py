"""The names of exchanges and queues in RabbitMQ."""

from __future__ import annotations

import secrets

from kombu.entity import Exchange
from msgspec import Struct

from jobcast.transports.prefix import DEFAULT_PREFIX


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
    def exchanges(self) -> frozenset[str]:
        """All of them."""
        return frozenset((self.bus, self.events, self.leases))

    @staticmethod
    def new_queue(exchange: str) -> str:
        """A name for the queue of a server process."""
        return f"{exchange}.{secrets.token_hex(8)}"

    def bus_exchange(self) -> Exchange:
        return stock_exchange(self.bus)

    def events_exchange(self) -> Exchange:
        return Exchange(self.events, "fanout", durable=True)

    def leases_exchange(self) -> Exchange:
        return Exchange(self.leases, "fanout", durable=False)


def stock_exchange(channel: str) -> Exchange:
    """An exchange as python-socketio's managers declare it."""
    return Exchange(channel, "fanout", durable=False)
