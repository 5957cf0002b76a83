"""Requests to cancel jobs over RabbitMQ: messages to the servers, and the control channel.

Each server process has its own records, so a request goes to all of them, in the exchange of the
events. The process with the client answers by its own record, after the events that precede the
request.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Final

import msgspec
from kombu.message import Message as Delivery
from kombu.messaging import Consumer as KombuConsumer
from msgspec import Struct, structs

from jobcast.transports.amqp.connection import KOMBU_ERRORS, connection
from jobcast.transports.amqp.names import Names
from jobcast.transports.cancellation import Cancellation, OnCancellation
from jobcast.transports.listener import POLL_INTERVAL, ReconnectingListener

HEARTBEAT: Final = 10.0  # seconds
MAX_SEEN: Final = 1000  # requests that are recognised when the broker delivers them again


class CancelRequest(Struct, frozen=True):
    """A request on its way to the server processes. The id makes repeated deliveries harmless.

    The first message of a request, the probe, asks the process that sent it for the job's current
    sending. The second one has that sending, and takes effect in every process. In between, the
    workers learn of the request: see :class:`~jobcast.transports.amqp.inbox.RequestInbox`. If it
    has no effect, the process withdraws it.
    """

    cancellation: Cancellation
    id: str
    sender: str = ""  # the id of the publisher of the process with the client
    takes_effect: bool = False
    is_withdrawn: bool = False  # for the workers

    @classmethod
    def of(
        cls, cancellation: Cancellation, sender: str = "", *, takes_effect: bool = False
    ) -> CancelRequest:
        return cls(cancellation, secrets.token_hex(8), sender, takes_effect)

    @property
    def withdrawal(self) -> CancelRequest:
        """The message by which the workers forget the request."""
        return structs.replace(self, is_withdrawn=True)

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


class KombuListener(ReconnectingListener):
    """A subscription to the control channel in RabbitMQ."""

    errors = KOMBU_ERRORS
    meanwhile = "the servers repeat requests while their jobs go on"

    def __init__(self, url: str, names: Names, on_cancellation: OnCancellation) -> None:
        self._url = url
        self._names = names
        super().__init__(names.cancellations, on_cancellation)

    def receive(self, on_subscribed: Callable[[], None]) -> None:
        with connection(self._url, heartbeat=HEARTBEAT) as broker:
            queues = [self._names.new_notices_queue()]
            consumer = KombuConsumer(
                broker.channel(), queues=queues, on_message=self._received, no_ack=True
            )
            consumer.consume()
            on_subscribed()
            while not self.is_closed:
                try:
                    broker.drain_events(timeout=POLL_INTERVAL)
                except TimeoutError:
                    broker.heartbeat_check()

    def _received(self, message: Delivery) -> None:
        self.deliver(message.body)


def announced_again(cancellations: Iterable[Cancellation | None]) -> list[Cancellation]:
    """Return the notices for runs that go on although their jobs are cancelled."""
    return [
        structs.replace(cancellation, outcome="requested")
        for cancellation in cancellations
        if cancellation is not None
    ]
