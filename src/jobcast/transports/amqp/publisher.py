"""The worker side of the RabbitMQ transport, based on Kombu.

A job's event goes to a durable fanout exchange. Each server process has a durable queue at that
exchange, which expires when the process is gone. Confirmed events therefore survive a broken
connection and a broker restart. With ``?channel=NAME`` in the URL, copies of the events go to the
exchange NAME, for a stock ``socketio.AsyncAioPikaManager("amqp://...", channel=NAME)``.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Iterable, Sequence
from itertools import count
from typing import Any, Final, cast

import socketio
from amqp.exceptions import AccessRefused, ChannelError, MessageNacked, NotFound
from kombu.connection import Connection
from kombu.entity import Exchange, Queue
from kombu.messaging import Producer
from msgspec import structs

from jobcast.errors import PublishFailed
from jobcast.events import STATUS
from jobcast.transports.amqp.audience import Audience, ListenersMissing
from jobcast.transports.amqp.cancellation import CancelRequest
from jobcast.transports.amqp.codec import (
    CANARY,
    CANCEL,
    NO_BODY,
    LeaseUpdate,
    encode,
    encode_leases,
)
from jobcast.transports.amqp.connection import (
    ANSWER_TIMEOUT,
    BLOCKED,
    CONNECT_TIMEOUT,
    KOMBU_ERRORS,
    Address,
    connection,
)
from jobcast.transports.amqp.inbox import RequestInbox
from jobcast.transports.amqp.latest_numbers import LatestNumbers
from jobcast.transports.amqp.listener import KombuListener
from jobcast.transports.amqp.names import NOTICE_KEY, REQUEST_KEY, Names
from jobcast.transports.amqp.stock import StockChannel
from jobcast.transports.base import Outgoing, Retention
from jobcast.transports.cancellation import Cancellation, OnCancellation, notify
from jobcast.transports.leases import Lease
from jobcast.transports.prefix import DEFAULT_PREFIX
from jobcast.transports.revocations import Revocation
from jobcast.transports.socketio_managers import JobEventManagerMixin

LONGEST_EXPIRATION: Final = 49 * 24 * 3600.0  # seconds; RabbitMQ counts milliseconds in 32 bits
TRANSIENT: Final = 1  # AMQP's delivery modes
PERSISTENT: Final = 2

logger = logging.getLogger(__name__)


class KombuPublisher(JobEventManagerMixin, socketio.KombuManager):
    """A write-only ``socketio.KombuManager`` whose job rooms have order and history.

    Any process may use it to emit to a job's followers:

    >>> manager = KombuPublisher("amqp://guest:guest@localhost:5672//")
    >>> manager.emit("job_log", {"level": "info", "message": "nearly there"}, room="job_42")
    """

    def __init__(
        self,
        url: str = "amqp://guest:guest@localhost:5672//",
        *,
        retention: Retention | None = None,  # noqa: ARG002  (the realtime side keeps the history)
        prefix: str = DEFAULT_PREFIX,
    ) -> None:
        self._names = Names(prefix)
        address = Address.of(url)
        self._stock = None if address.channel is None else StockChannel(address.channel)
        self.publisher_connection: Connection  # python-socketio's name for it
        self._is_blocked = False
        super().__init__(address.url, channel=self._names.bus, write_only=True)
        self.publisher_id = secrets.token_hex(6)
        self.on_cancelled: OnCancellation | None = None
        self._inbox: RequestInbox | None = None  # of the current connection, once a run begins
        self._may_read_requests = True
        self._channel: Any = None
        self._numbers = count(1)
        self._latest = LatestNumbers()
        self._published = 0
        self._unconfirmed: set[int] = set()  # delivery tags
        self._refused = False
        self._returned = 0  # messages that reached no queue
        self._audience = Audience(self._names.events)

    def publish(self, batch: Sequence[Outgoing]) -> None:
        """Publish events, and wait until the broker confirms all of them.

        Raises:
            PublishFailed: the broker may not have all events, or known listeners are missing.
        """
        numbered = self._latest.chain([self._numbered(outgoing) for outgoing in batch])
        may_repeat = all(outgoing.number for outgoing in batch)
        exchange = self._names.events_exchange()
        try:
            self._send_copies(numbered)
            if self._audience.needs_canary:
                self._publish_confirmed(exchange, [NO_BODY], delivery_mode=TRANSIENT, type=CANARY)
                self._audience.check(reached=not self._returned, may_repeat=may_repeat)
            self._publish_confirmed(exchange, self._encoded(numbered), delivery_mode=PERSISTENT)
            self._audience.check(reached=not self._returned, may_repeat=may_repeat)
        except KOMBU_ERRORS as exc:
            if isinstance(exc, NotFound):
                self._audience.exchange_lost()
            raise PublishFailed(self._failed(exc), batch) from exc
        if self.on_cancelled is not None:
            self._read_requests(batch)
        self._latest.add(numbered)
        if self._stock is not None:
            self._stock.discard(numbered)
        self._notify_cancelled(batch)

    def _encoded(self, batch: Sequence[Outgoing]) -> list[bytes]:
        return [encode(outgoing, self.publisher_id) for outgoing in batch]

    def _send_copies(self, batch: Sequence[Outgoing]) -> None:
        """Publish the events for a stock server, except those that are published again."""
        stock = self._stock
        if stock is None or stock.is_paused:
            return
        channel = self._channel or self._open()
        try:
            if not stock.is_declared:
                stock.exchange(channel).declare()
                stock.is_declared = True
            bodies = self._encoded(stock.unsent(batch))
            self._publish_confirmed(stock.exchange, bodies, delivery_mode=TRANSIENT)
        except (ChannelError, MessageNacked) as exc:
            # A problem of this exchange must not hold the events back.
            stock.refuse(exc)
            self._drop_connection()
        else:
            stock.add(batch)

    def _read_requests(self, batch: Sequence[Outgoing]) -> None:
        """Read the requests to cancel jobs that precede the statuses in a batch.

        Raises:
            PublishFailed: the connection has ended. Repeating the batch repeats the read.
        """
        try:
            if self._has_to_read(batch):
                self._open_inbox().read()
        except AccessRefused as exc:
            self._stop_reading(exc)
        except KOMBU_ERRORS as exc:
            reason = f"could not read the requests to cancel jobs: {self._failed(exc)}"
            raise PublishFailed(reason, batch) from exc

    def _has_to_read(self, batch: Sequence[Outgoing]) -> bool:
        if self._inbox is not None:
            return any(outgoing.kind == STATUS for outgoing in batch)
        # A process that only sends tasks needs no inbox.
        begins = any(outgoing.begins and outgoing.state == "started" for outgoing in batch)
        return begins and self._may_read_requests

    def _open_inbox(self) -> RequestInbox:
        if self._inbox is None:
            self._inbox = RequestInbox(self.publisher_connection, self._names)
            self._inbox.open()
        return self._inbox

    def _stop_reading(self, exc: AccessRefused) -> None:
        """Run without an inbox, until the next connection."""
        inbox, self._inbox, self._may_read_requests = self._inbox, None, False
        logger.warning(
            "this process cannot learn of cancelled jobs before their runs begin (%s); the runs are"
            " interrupted later; grant its user the permissions of a worker", exc,
        )  # fmt: skip
        try:
            if inbox is not None:
                inbox.close()
        except KOMBU_ERRORS as closing:
            logger.debug("could not delete the queue for requests: %s", closing)

    def _notify_cancelled(self, batch: Sequence[Outgoing]) -> None:
        if self._inbox is not None:
            for outgoing in batch:
                request = self._inbox.find(outgoing)
                if request is not None:
                    notify(self.on_cancelled, request)

    def renew(self, leases: Sequence[Lease], seconds: float) -> None:
        """Publish to every server process that these runs are alive.

        Raises:
            PublishFailed: the broker may not have accepted the message.
        """
        self._publish_leases(LeaseUpdate(list(leases), seconds))

    def release(self, leases: Sequence[Lease]) -> None:
        """Publish to every server process that these runs have ended.

        Raises:
            PublishFailed: the broker may not have accepted the message.
        """
        self._publish_leases(LeaseUpdate(list(leases)))

    def revoke(self, revocation: Revocation) -> None:
        """Store a revocation, and send it to every server process.

        Raises:
            PublishFailed: the revocation may not have been stored.
        """
        seconds = revocation.until - time.time()
        try:
            self._names.kept_revocations()(self._channel or self._open()).declare()
            self._publish_confirmed(
                self._names.revocations_exchange(),
                [revocation.encode()],
                delivery_mode=PERSISTENT,
                # Without an expiration, the queue's length limit removes the message.
                expiration=seconds if seconds < LONGEST_EXPIRATION else None,
            )
        except KOMBU_ERRORS as exc:
            raise PublishFailed(self._failed(exc), ()) from exc

    def request_cancellation(self, request: CancelRequest) -> None:
        """Ask every server process to cancel a job.

        A request that is to take effect is passed to the publishers of runs first.

        Raises:
            PublishFailed: the broker may not have accepted the request, or no process has it.
        """
        if request.takes_effect:
            self.pass_to_workers(request)
        delivery_mode = PERSISTENT if request.takes_effect else TRANSIENT
        exchange = self._names.events_exchange()
        self._send_control(exchange, request.encode(), delivery_mode, type=CANCEL)
        if self._returned:
            raise PublishFailed(f"no Socket.IO process listens to {exchange.name}", ())

    def withdraw_cancellation(self, request: CancelRequest) -> None:
        """Let the publishers of runs forget a request that had no effect.

        Raises:
            PublishFailed: the broker may not have accepted the message.
        """
        self.pass_to_workers(request.withdrawal)

    def pass_to_workers(self, request: CancelRequest) -> None:
        """Pass a request to the publishers of runs, and keep it for those that start later.

        Raises:
            PublishFailed: the broker may not have accepted the request.
        """
        kept = self._names.kept_requests()
        self._send_control(kept, request.encode(), PERSISTENT, routing_key=REQUEST_KEY)

    def announce_cancellation(self, cancellation: Cancellation) -> None:
        """Tell every worker process of an accepted request.

        Raises:
            PublishFailed: the broker may not have accepted the notice.
        """
        exchange = self._names.cancellations_exchange()
        self._send_control(exchange, cancellation.encode(), TRANSIENT, routing_key=NOTICE_KEY)

    def _send_control(
        self, entity: Exchange | Queue, body: bytes, delivery_mode: int, **properties: Any
    ) -> None:
        """Publish a message to an exchange, or to that of a queue, and declare it before."""
        exchange = entity.exchange if isinstance(entity, Queue) else entity
        try:
            entity(self._channel or self._open()).declare()
            self._publish_confirmed(exchange, [body], delivery_mode, **properties)
        except KOMBU_ERRORS as exc:
            raise PublishFailed(self._failed(exc), ()) from exc

    def listen(self, on_cancellation: OnCancellation) -> KombuListener:
        """Call a function, in a thread of its own, with each accepted request to cancel a job."""
        listener = KombuListener(self.url, self._names, on_cancellation)
        listener.start()
        return listener

    def send_canary(self, exchange: str) -> bool:
        """Send a canary to all listeners of an exchange, and return whether there are any.

        Raises:
            PublishFailed: the broker may not have accepted the canary.
        """
        names = self._names
        is_events = exchange == names.events
        declared = names.events_exchange() if is_events else names.leases_exchange()
        try:
            self._publish_confirmed(declared, [NO_BODY], delivery_mode=TRANSIENT, type=CANARY)
        except NotFound:
            self._drop_connection()  # the next connection declares the exchange again
            return False
        except KOMBU_ERRORS as exc:
            raise PublishFailed(self._failed(exc), ()) from exc
        return not self._returned

    def close(self) -> None:
        self._drop_connection()

    def _connection(self) -> Connection:
        # python-socketio's name for this method.
        return connection(self.url, on_blocked=self._on_blocked)

    def _on_blocked(self, reason: str) -> None:
        del reason  # the driver passes no reason
        self._is_blocked = True

    def _failed(self, exc: Exception) -> str:
        """Drop the connection, except for ListenersMissing, and return the error message."""
        blocked, self._is_blocked = self._is_blocked, False
        if not isinstance(exc, ListenersMissing):
            self._drop_connection()
        return BLOCKED if blocked else str(exc) or repr(exc)

    def _publish_leases(self, update: LeaseUpdate) -> None:
        try:
            # Delivery need not be checked: a process that is away now has no followers.
            body = encode_leases(update)
            self._publish_confirmed(self._names.leases_exchange(), [body], delivery_mode=TRANSIENT)
        except KOMBU_ERRORS as exc:
            raise PublishFailed(self._failed(exc), ()) from exc

    def _publish_confirmed(
        self, exchange: Exchange, bodies: Iterable[bytes], delivery_mode: int, **properties: Any
    ) -> None:
        """Publish messages, and wait until the broker confirms all of them."""
        self._returned = 0
        producer = Producer(self._channel or self._open(), exchange, auto_declare=False)
        for body in bodies:
            producer.publish(
                body,
                content_type="application/json",
                content_encoding="utf-8",
                delivery_mode=delivery_mode,
                mandatory=True,
                **properties,
            )
            self._published += 1
            self._unconfirmed.add(self._published)
        self._wait_for_confirmation()

    def _numbered(self, outgoing: Outgoing) -> Outgoing:
        """Return the event with a number, because the broker may deliver it twice."""
        if outgoing.number:
            return outgoing
        return structs.replace(outgoing, number=next(self._numbers))

    def _open(self) -> Any:
        channel = self.publisher_connection.channel()
        self._names.events_exchange()(channel).declare()
        self._names.leases_exchange()(channel).declare()
        if self._stock is not None:
            self._stock.is_declared = False
        channel.confirm_select()
        channel.events["basic_ack"].add(self._on_ack)
        channel.events["basic_nack"].add(self._on_nack)
        channel.events["basic_return"].add(self._on_return)
        self._published, self._refused = 0, False
        self._unconfirmed.clear()
        self._channel = channel
        return channel

    def _on_ack(self, delivery_tag: int, multiple: bool) -> None:
        if multiple:
            self._unconfirmed = {tag for tag in self._unconfirmed if tag > delivery_tag}
        else:
            self._unconfirmed.discard(delivery_tag)

    def _on_return(self, *_: object) -> None:
        self._returned += 1

    def _on_nack(self, delivery_tag: int, multiple: bool) -> None:
        del delivery_tag, multiple
        self._refused = True

    def _wait_for_confirmation(self) -> None:
        while self._unconfirmed:
            self.publisher_connection.drain_events(timeout=ANSWER_TIMEOUT)
            if self._refused:
                raise MessageNacked("the broker refused an event")

    def _drop_connection(self) -> None:
        self._channel = self._inbox = None
        self._may_read_requests = True
        old, self.publisher_connection = self.publisher_connection, self._connection()
        try:
            old.collect(socket_timeout=CONNECT_TIMEOUT)
        except KOMBU_ERRORS as exc:
            logger.debug("could not close a connection to the broker: %s", exc)

    def _publish(self, data: dict[str, Any]) -> None:
        self.publish_bus(data)

    def publish_bus(self, data: dict[str, Any]) -> None:
        """Publish python-socketio's own messages as ``KombuManager`` does, but with timeouts."""
        try:
            with connection(self.url) as once:
                producer = once.Producer(exchange=self._names.bus_exchange())
                producer.publish(cast("str", self.json.dumps(data)), retry=False)
        except KOMBU_ERRORS as exc:
            logger.error("dropped an emit that could not be published: %s", exc)
