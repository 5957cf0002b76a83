"""RabbitMQ by Kombu, the worker's side.

A job's event goes to a durable fanout exchange as a message of python-socketio's own kind (``emit``
to the job's room), with what jobcast has to know beside it. Each realtime process has a durable
queue there that expires when the process is gone, so that neither a broken connection nor a
restarted broker loses what was confirmed. With ``?channel=NAME`` in the URL the exchange of that
name is fed too, where a stock ``socketio.AsyncAioPikaManager("amqp://...", channel=NAME)`` listens.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from typing import Any, Final, cast
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import msgspec
import socketio
from amqp.exceptions import AMQPError, MessageNacked, NotFound
from kombu.connection import Connection
from kombu.entity import Exchange
from kombu.exceptions import KombuError
from kombu.messaging import Producer
from msgspec import Struct, structs

from jobcast.errors import PublishFailed
from jobcast.events import JOB_EVENTS, Kind, State, job_of, packet_tail, room_of
from jobcast.transports.amqp.audience import Audience, Unheard
from jobcast.transports.amqp.latest_numbers import LatestNumbers
from jobcast.transports.amqp.names import Names, stock_exchange
from jobcast.transports.base import Outgoing, Predecessor, Required, Retention
from jobcast.transports.leases import Lease
from jobcast.transports.prefix import DEFAULT_PREFIX
from jobcast.transports.revocations import Revocation
from jobcast.transports.runs import NOBODY, Run
from jobcast.transports.socketio_managers import JobEventManagerMixin

CONNECT_TIMEOUT: Final = 2.0  # seconds
ANSWER_TIMEOUT: Final = 5.0  # seconds
LONGEST_EXPIRATION: Final = 49 * 24 * 3600.0  # seconds; RabbitMQ counts milliseconds in 32 bits
TRANSIENT: Final = 1  # AMQP's delivery modes
PERSISTENT: Final = 2

CANARY: Final = "jobcast.canary"  # the type of a message by which a process finds out what it hears
BIND_AGAIN: Final = "jobcast.bind-again"  # the type of a message that asks all processes for it
NOTE: Final = b"{}"  # the body of messages whose type says everything
BLOCKED: Final = "the broker blocks publishers: its memory or disk alarm is set"

#: What Kombu and its driver raise where a broker cannot be reached or does not do what is asked.
KOMBU_ERRORS: Final = (KombuError, AMQPError, OSError)

logger = logging.getLogger(__name__)


class About(Struct, frozen=True, gc=False, omit_defaults=True):
    """What jobcast has to know of an event, beside python-socketio's message."""

    publisher: str
    number: int
    kind: Kind
    previous: int = 0
    state: State | None = None
    owner: str | None = None
    run: Run = NOBODY
    after: str = ""
    requires: Required = ""


class Emit(Struct, frozen=True, gc=False):
    """python-socketio's message for an ``emit`` to a room."""

    event: str
    data: tuple[msgspec.Raw, ...]
    room: str
    jobcast: About
    method: str = "emit"
    binary: bool = False
    namespace: str = "/"
    skip_sid: None = None
    callback: None = None
    host_id: str = ""


class LeaseNote(Struct, frozen=True):
    """Leases that are renewed, or released if they have no seconds."""

    leases: list[Lease]
    seconds: float | None = None


def decode_leases(body: bytes | str) -> LeaseNote:
    """The leases of a message.

    Raises:
        ValueError: the message is something else.
    """
    try:
        return msgspec.json.decode(body, type=LeaseNote)
    except msgspec.DecodeError as exc:
        raise ValueError(f"no leases: {exc}") from None


def encode(outgoing: Outgoing, publisher: str) -> bytes:
    name, payload = _split(outgoing.head)
    # A stock server passes the publisher's count on to its clients as the seq.
    payload += packet_tail(max(1, outgoing.number)).removesuffix("]")
    about = About(
        publisher=publisher,
        number=outgoing.number,
        previous=outgoing.previous,
        kind=outgoing.kind,
        state=outgoing.state,
        owner=outgoing.owner,
        run=outgoing.run,
        after=outgoing.after,
        requires=outgoing.requires,
    )
    return msgspec.json.encode(
        Emit(
            event=name,
            data=(msgspec.Raw(payload.encode()),),
            room=room_of(outgoing.job_id),
            jobcast=about,
            host_id=publisher,
        )
    )


def decode(body: bytes | str) -> tuple[Outgoing, str]:
    """The event of a message, and who published it.

    Raises:
        ValueError: the message is something else.
    """
    try:
        emit = msgspec.json.decode(body, type=Emit)
    except (msgspec.DecodeError, RecursionError) as exc:
        raise ValueError(f"no event of a job: {exc}") from None
    job_id = job_of(emit.room)
    if job_id is None or emit.event not in JOB_EVENTS or len(emit.data) != 1:
        raise ValueError("no event of a job")
    payload = bytes(emit.data[0]).decode()
    end = payload.rindex('"seq":') + len('"seq":')
    about = emit.jobcast
    Predecessor.parse(about.after)
    outgoing = Outgoing(
        job_id=job_id,
        kind=about.kind,
        head=f'42["{emit.event}",{payload[:end]}',
        state=about.state,
        owner=about.owner,
        number=about.number,
        previous=about.previous,
        run=about.run,
        after=about.after,
        requires=about.requires,
    )
    return outgoing, about.publisher


class Address(Struct, frozen=True):
    """What a URL says: where the broker is, and which stock channel is fed."""

    url: str
    channel: str | None

    @classmethod
    def of(cls, url: str) -> Address:
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query))
        channel = query.pop("channel", None)
        return cls(urlunsplit(parts._replace(query=urlencode(query))), channel)


def check_url(url: str, prefix: str = DEFAULT_PREFIX) -> None:
    """Check a URL without connecting.

    Raises:
        ValueError: it cannot be used.
    """
    parts = urlsplit(url)
    try:
        _ = parts.port
    except ValueError:
        # The text that was taken for a port may be a password whose @ is missing.
        raise ValueError("should be a URL with a usable port, from 0 to 65535") from None
    if not parts.hostname:
        raise ValueError("should be a URL with a host, as in amqp://user:password@host:5672//")
    channel = Address.of(url).channel
    if channel in Names(prefix).exchanges:
        raise ValueError(f"should not have ?channel={channel}: that exchange is jobcast's own")
    try:
        connection(Address.of(url).url)
    except (TypeError, ValueError) as exc:
        raise ValueError(f"has an option that kombu does not take ({exc})") from None


def connection(
    url: str, *, on_blocked: Callable[[str], None] | None = None, **options: Any
) -> Connection:
    """A connection whose waits are bounded, and that is not tried again behind one's back.

    Args:
        url: of the broker.
        on_blocked: is called when the broker says that it takes nothing from publishers now.
        options: further ones of Kombu's.
    """
    return Connection(
        url,
        connect_timeout=CONNECT_TIMEOUT,
        transport_options={
            "read_timeout": ANSWER_TIMEOUT,
            "write_timeout": ANSWER_TIMEOUT,
            "on_blocked": on_blocked,
        },
        **options,
    )


class KombuPublisher(JobEventManagerMixin, socketio.KombuManager):
    """A write-only ``socketio.KombuManager`` whose job rooms have order and history.

    Any process may use it to address a job's followers:

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
        self._address = Address.of(url)
        self.publisher_connection: Connection  # python-socketio's name for it
        self._is_blocked = False
        super().__init__(self._address.url, channel=self._names.bus, write_only=True)
        self.publisher_id = secrets.token_hex(6)
        self._channel: Any = None
        self._numbers = count(1)
        self._latest = LatestNumbers()
        self._published = 0
        self._unconfirmed: set[int] = set()  # delivery tags
        self._refused = False
        self._returned = 0  # messages that no queue got
        self._audience = Audience(self._names.events)

    def publish(self, batch: Sequence[Outgoing]) -> None:
        """Hand events to the broker, and wait until it has them all.

        Raises:
            PublishFailed: it may not have them, or those that listened do not now.
        """
        numbered = self._latest.chain([self._numbered(outgoing) for outgoing in batch])
        bodies = [encode(outgoing, self.publisher_id) for outgoing in numbered]
        may_repeat = all(outgoing.number for outgoing in batch)
        exchange = self._names.events_exchange()
        try:
            if self._audience.is_doubtful:
                self._hand_over(exchange, [NOTE], delivery_mode=TRANSIENT, type=CANARY)
                self._audience.check(reached=not self._returned, may_repeat=may_repeat)
            self._hand_over(exchange, bodies, delivery_mode=PERSISTENT)
            self._audience.check(reached=not self._returned, may_repeat=may_repeat)
        except KOMBU_ERRORS as exc:
            if isinstance(exc, NotFound):
                self._audience.lose()
            raise PublishFailed(self._failed(exc), batch) from exc
        self._latest.add(numbered)

    def renew(self, leases: Sequence[Lease], seconds: float) -> None:
        """Tell every realtime process that these runs are alive.

        Raises:
            PublishFailed: it may not have been told.
        """
        self._note(LeaseNote(list(leases), seconds))

    def release(self, leases: Sequence[Lease]) -> None:
        """Tell every realtime process that these runs have ended.

        Raises:
            PublishFailed: it may not have been told.
        """
        self._note(LeaseNote(list(leases)))

    def revoke(self, revocation: Revocation) -> None:
        """Store a revocation, and send it to every server process.

        Raises:
            PublishFailed: it may not have been stored.
        """
        seconds = revocation.until - time.time()
        try:
            self._names.kept_revocations()(self._channel or self._open()).declare()
            self._hand_over(
                self._names.revocations_exchange(),
                [revocation.encode()],
                delivery_mode=PERSISTENT,
                # What lives for longer goes when there are too many.
                expiration=seconds if seconds < LONGEST_EXPIRATION else None,
            )
        except KOMBU_ERRORS as exc:
            raise PublishFailed(self._failed(exc), ()) from exc

    def send_canary(self, exchange: str) -> bool:
        """Send a note to all that listen to an exchange. Returns whether anybody does.

        Raises:
            PublishFailed: the broker may not have taken it.
        """
        names = self._names
        is_events = exchange == names.events
        declared = names.events_exchange() if is_events else names.leases_exchange()
        try:
            self._hand_over(declared, [NOTE], delivery_mode=TRANSIENT, type=CANARY)
        except NotFound:
            self._drop_connection()  # which declares it again
            return False
        except KOMBU_ERRORS as exc:
            raise PublishFailed(self._failed(exc), ()) from exc
        return not self._returned

    def ask_to_bind_again(self) -> None:
        """Ask every other process that listens to bind its queues again: an exchange was deleted.

        Raises:
            PublishFailed: the broker may not have taken it, or nobody listens.
        """
        try:
            self._hand_over(
                self._names.bus_exchange(),
                [NOTE],
                TRANSIENT,
                type=BIND_AGAIN,
                app_id=self.publisher_id,
            )
            if self._returned:
                raise Unheard(f"no Socket.IO process listens to the exchange {self._names.bus}")
        except KOMBU_ERRORS as exc:
            raise PublishFailed(self._failed(exc), ()) from exc

    def close(self) -> None:
        self._drop_connection()

    def _connection(self) -> Connection:
        # python-socketio's name for it.
        return connection(self.url, on_blocked=self._on_blocked)

    def _on_blocked(self, reason: str) -> None:
        del reason  # the driver knows none
        self._is_blocked = True

    def _failed(self, exc: Exception) -> str:
        """Give the connection up. Returns what was wrong."""
        blocked, self._is_blocked = self._is_blocked, False
        if not isinstance(exc, Unheard):
            self._drop_connection()
        return BLOCKED if blocked else str(exc) or repr(exc)

    def _note(self, note: LeaseNote) -> None:
        try:
            # A process that is not there now has nobody who waits for a job there.
            body = msgspec.json.encode(note)
            self._hand_over(self._names.leases_exchange(), [body], delivery_mode=TRANSIENT)
        except KOMBU_ERRORS as exc:
            raise PublishFailed(self._failed(exc), ()) from exc

    def _hand_over(
        self, exchange: Exchange, bodies: Iterable[bytes], delivery_mode: int, **properties: Any
    ) -> None:
        """Publish messages, and wait until the broker has them all."""
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
        """The event with a number: the broker may deliver anything twice."""
        if outgoing.number:
            return outgoing
        return structs.replace(outgoing, number=next(self._numbers))

    def _open(self) -> Any:
        channel = self.publisher_connection.channel()
        events = self._names.events_exchange()(channel)
        events.declare()
        self._names.leases_exchange()(channel).declare()
        if self._address.channel is not None:
            stock = stock_exchange(self._address.channel)(channel)
            stock.declare()
            stock.bind_to(events)
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
                raise MessageNacked("the broker could not take an event")

    def _drop_connection(self) -> None:
        self._channel = None
        old, self.publisher_connection = self.publisher_connection, self._connection()
        try:
            old.collect(socket_timeout=CONNECT_TIMEOUT)
        except KOMBU_ERRORS as exc:
            logger.debug("closing a connection to the broker: %s", exc)

    def _publish(self, data: dict[str, Any]) -> None:
        self.publish_bus(data)

    def publish_bus(self, data: dict[str, Any]) -> None:
        """Send python-socketio's own traffic, as ``KombuManager`` does, but never for ever."""
        try:
            with connection(self.url) as once:
                producer = once.Producer(exchange=self._names.bus_exchange())
                producer.publish(cast("str", self.json.dumps(data)), retry=False)
        except KOMBU_ERRORS as exc:
            logger.error("an emit could not be published: %s", exc)


def _split(head: str) -> tuple[str, str]:
    """The name of an event and its payload up to the seq, of a packet's head."""
    name, _, payload = head.removeprefix('42["').partition('",')
    return name, payload
