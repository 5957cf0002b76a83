"""The URLs of RabbitMQ brokers."""

from __future__ import annotations

from jobcast.transports.amqp.connection import Address


def test_stock_channel_is_removed_from_the_broker_url() -> None:
    address = Address.of("amqp://u:p@h:5672/vhost?channel=stock&ssl=1")
    assert address == Address("amqp://u:p@h:5672/vhost?ssl=1", "stock")
    assert Address.of("amqp://h//") == Address("amqp://h//", None)
