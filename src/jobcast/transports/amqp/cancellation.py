"""Requests to cancel jobs over RabbitMQ: messages to the servers, and the control channel.

Each server process has its own records, so a request goes to all of them, in the exchange of the
events. The process with the client answers by its own record.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Final

import msgspec
from kombu.connection import Connection
from kombu.message import Message as Delivery
from kombu.messaging import Consumer as KombuConsumer
from msgspec import Struct, structs

from jobcast.aio import Backoff
from jobcast.transports.amqp.connection import KOMBU_ERRORS, connection
from jobcast.transports.amqp.names import Names
from jobcast.transports.cancellation import Cancellation, OnCancellation, notify

HEARTBEAT: Final = 10.0  # seconds
POLL_INTERVAL: Final = 1.0  # seconds until a listener sees that it is closed, at most
FIRST_DELAY: Final = 0.5  # seconds before the first attempt to reconnect
LONGEST_DELAY: Final = 10.0  # seconds between two attempts at most
MAX_SEEN: Final = 1000  # requests that are recognised when the broker delivers them again

logger = logging.getLogger(__name__)


class CancelRequest(Struct, frozen=True):
    """A request on its way to the server processes. The id makes repeated deliveries harmless."""

    cancellation: Cancellation
    id: str

    @classmethod
    def of(cls, cancellation: Cancellation) -> CancelRequest:
        return cls(cancellation, secrets.token_hex(8))

    def encode(self) -> bytes:
        return msgspec.json.encode(self)

    @classmethod
    def decode(cls, body: bytes | str) -> CancelRequest:
        """Parse the body of a message.

        Raises:
            ValueError: the message is not a request.
        """
        try:
            return msgspec.json.decode(body, type=cls)
        except (msgspec.DecodeError, RecursionError) as exc:
            raise ValueError(f"not a request to cancel a job: {exc}") from None


class SeenRequests:
    """The ids of the latest requests."""

    def __init__(self) -> None:
        self._ids: OrderedDict[str, None] = OrderedDict()

    def add(self, request_id: str) -> bool:
        """Add an id. Return whether it is new."""
        if request_id in self._ids:
            return False
        self._ids[request_id] = None
        if len(self._ids) > MAX_SEEN:
            self._ids.popitem(last=False)
        return True


class KombuListener:
    """A subscription to the control channel, in a daemon thread of this process."""

    def __init__(self, url: str, names: Names, on_cancellation: OnCancellation) -> None:
        self._url = url
        self._names = names
        self._on_cancellation = on_cancellation
        self._closed = threading.Event()
        threading.Thread(target=self._run, name="jobcast-cancellations", daemon=True).start()

    def close(self) -> None:
        self._closed.set()

    def _run(self) -> None:
        backoff = Backoff(FIRST_DELAY, LONGEST_DELAY)
        while not self._closed.is_set():
            try:
                with connection(self._url, heartbeat=HEARTBEAT) as broker:
                    self._receive(broker, backoff.reset)
            except KOMBU_ERRORS as exc:
                backoff.failed()
                logger.log(
                    logging.WARNING if backoff.failures == 1 else logging.DEBUG,
                    "lost the connection on which this process hears of cancelled jobs (%s);"
                    " reconnecting; the servers repeat the request when the job goes on", exc,
                )  # fmt: skip
            except Exception:
                backoff.failed()
                logger.exception("could not receive the requests to cancel jobs; reconnecting")
            self._closed.wait(backoff.delay())

    def _receive(self, broker: Connection, on_connected: Callable[[], None]) -> None:
        """Receive until the listener is closed.

        Raises:
            KombuError, AMQPError, OSError: the connection has ended.
        """
        queues = [self._names.new_cancellations_queue()]
        consumer = KombuConsumer(
            broker.channel(), queues=queues, on_message=self._received, no_ack=True
        )
        consumer.consume()
        on_connected()
        while not self._closed.is_set():
            try:
                broker.drain_events(timeout=POLL_INTERVAL)
            except TimeoutError:
                broker.heartbeat_check()

    def _received(self, message: Delivery) -> None:
        if self._closed.is_set():
            return
        try:
            cancellation = Cancellation.decode(message.body)
        except ValueError as exc:
            logger.warning(
                "ignored a message on %s that is not jobcast's: %s", self._names.cancellations, exc
            )
            return
        notify(self._on_cancellation, cancellation)


def announced_again(cancellations: Iterable[Cancellation | None]) -> list[Cancellation]:
    """Return the notices for runs that go on although their jobs are cancelled."""
    return [
        structs.replace(cancellation, outcome="requested")
        for cancellation in cancellations
        if cancellation is not None
    ]
