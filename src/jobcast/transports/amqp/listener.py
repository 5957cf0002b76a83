"""The control channel in RabbitMQ, by which workers learn of accepted requests to cancel jobs."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from amqp.exceptions import AccessRefused
from kombu.connection import Connection
from kombu.message import Message as Delivery
from kombu.messaging import Consumer as KombuConsumer
from msgspec import structs

from jobcast.transports.amqp.cancellation import CancelRequest
from jobcast.transports.amqp.connection import KOMBU_ERRORS, connection
from jobcast.transports.amqp.lock import LOCK_TRIES, LockHeld
from jobcast.transports.amqp.names import NOTICE_KEY, Names
from jobcast.transports.amqp.requests import KnownRequests
from jobcast.transports.cancellation import OnCancellation, notify
from jobcast.transports.cancellation_listener import POLL_INTERVAL, ReconnectingListener
from jobcast.transports.decoding import decoded

HEARTBEAT: Final = 10.0  # seconds

logger = logging.getLogger(__name__)


class KombuListener(ReconnectingListener):
    """A subscription to the control channel in RabbitMQ.

    It begins with the requests that the broker keeps. The main process of a prefork worker has no
    :class:`~jobcast.transports.amqp.inbox.RequestInbox`, and acts on the requests for the messages
    that it receives later. A kept request may be one that has failed for its client, so it has the
    outcome ``kept`` for the callback, and ``withdrawn`` once it is withdrawn.
    """

    errors = KOMBU_ERRORS
    meanwhile = "the servers repeat requests while their jobs go on"

    def __init__(self, url: str, names: Names, on_cancellation: OnCancellation) -> None:
        super().__init__(names.cancellations, on_cancellation)
        self._url = url
        self._names = names
        self._withdrawals: list[CancelRequest] | None = None  # while kept requests are read

    def receive(self, on_subscribed: Callable[[], None]) -> None:
        with connection(self._url, heartbeat=HEARTBEAT) as broker:
            queues = [self._names.new_notices_queue()]
            consumer = KombuConsumer(
                broker.channel(), queues=queues, on_message=self._received, no_ack=True
            )
            consumer.consume()
            on_subscribed()
            has_kept, read_at = self._deliver_kept(broker, LOCK_TRIES), time.monotonic()
            while not self.is_closed:
                with suppress(TimeoutError):
                    broker.drain_events(timeout=POLL_INTERVAL)
                # This connection sends nothing else, even if it receives all the time.
                broker.heartbeat_check()
                if not has_kept and time.monotonic() - read_at >= POLL_INTERVAL:
                    has_kept, read_at = self._deliver_kept(broker, tries=1), time.monotonic()

    def _deliver_kept(self, broker: Connection, tries: int) -> bool:
        """Pass on the kept requests. Return False if another process was reading them."""
        kept = KnownRequests()
        # While this thread waits for the broker's answers, it receives messages too.
        withdrawals = self._withdrawals = []
        try:
            kept.add_kept(broker, self._names, tries)
        except LockHeld:
            return False
        except AccessRefused as exc:
            logger.debug("may not read the kept requests to cancel jobs: %s", exc)
        finally:
            self._withdrawals = None
        for withdrawal in withdrawals:
            kept.add(withdrawal)
        for cancellation in kept:
            if not self.is_closed:
                notify(self._on_cancellation, structs.replace(cancellation, outcome="kept"))
        return True

    def _received(self, message: Delivery) -> None:
        if message.delivery_info["routing_key"] == NOTICE_KEY:
            self.deliver(message.body)
        elif not self.is_closed:
            self._deliver_withdrawal(message.body)

    def _deliver_withdrawal(self, body: bytes | str) -> None:
        request = decoded(CancelRequest.decode, body, self._channel)
        # The notice of a request that takes effect follows.
        if request is not None and request.is_withdrawn:
            if self._withdrawals is not None:
                self._withdrawals.append(request)
            withdrawn = structs.replace(request.cancellation, outcome="withdrawn")
            notify(self._on_cancellation, withdrawn)
