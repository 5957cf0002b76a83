"""The control channel in RabbitMQ, by which workers learn of accepted requests to cancel jobs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Final

from kombu.message import Message as Delivery
from kombu.messaging import Consumer as KombuConsumer

from jobcast.transports.amqp.connection import KOMBU_ERRORS, connection
from jobcast.transports.amqp.names import Names
from jobcast.transports.cancellation import OnCancellation
from jobcast.transports.cancellation_listener import POLL_INTERVAL, ReconnectingListener

HEARTBEAT: Final = 10.0  # seconds


class KombuListener(ReconnectingListener):
    """A subscription to the control channel in RabbitMQ."""

    errors = KOMBU_ERRORS
    meanwhile = "the servers repeat requests while their jobs go on"

    def __init__(self, url: str, names: Names, on_cancellation: OnCancellation) -> None:
        super().__init__(names.cancellations, on_cancellation)
        self._url = url
        self._names = names

    def receive(self, on_subscribed: Callable[[], None]) -> None:
        with connection(self._url, heartbeat=HEARTBEAT) as broker:
            queues = [self._names.new_notices_queue()]
            consumer = KombuConsumer(
                broker.channel(), queues=queues, on_message=self._received, no_ack=True
            )
            consumer.consume()
            on_subscribed()
            while not self.is_closed:
                with suppress(TimeoutError):
                    broker.drain_events(timeout=POLL_INTERVAL)
                # This connection sends nothing else, even if it receives all the time.
                broker.heartbeat_check()

    def _received(self, message: Delivery) -> None:
        self.deliver(message.body)
