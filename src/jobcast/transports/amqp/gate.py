"""The gate between the publishers of events and the queues of the server processes.

Publishers use the exchange of the events. Server processes bind their queues to the exchange of the
servers, and only server processes bind that one to the exchange of the events: they open the gate.
While the gate is closed, an event reaches no queue, so its publisher holds it. Processes that
repair a deleted exchange therefore do not receive an event before the others can. The exceptions
are listed in ``docs/how-to/rabbitmq.md``. One of them is a foreign queue that is bound to the
exchange of the events: it hides that the gate is closed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final, NoReturn

from amqp.basic_message import Message
from amqp.exceptions import NotFound
from kombu.connection import Connection
from kombu.entity import Exchange, Queue
from kombu.exceptions import KombuError

from jobcast.transports.amqp.codec import BIND_AGAIN, CANARY, NO_BODY
from jobcast.transports.amqp.connection import ANSWER_TIMEOUT, BLOCKED, connection
from jobcast.transports.amqp.lock import locked
from jobcast.transports.amqp.names import EVENTS_KEY, Names

BIND_TIMEOUT: Final = 3.0  # seconds that the other processes have to bind their queues
CHECK_INTERVAL: Final = 0.25  # seconds between two checks of a closed gate
BLOCKED_INTERVAL: Final = 5.0  # seconds between two checks while the broker blocks publishers
# A blocked connection is not read by the broker, which detects its end only by its own heartbeats.
HEARTBEAT: Final = 10.0  # seconds
TRANSIENT: Final = 1  # AMQP's delivery mode

logger = logging.getLogger(__name__)


class PublishersBlocked(KombuError):
    """The broker does not accept messages now."""


class Gate:
    """One server process's view of the gate.

    A queue has two bindings to the exchange of the servers: one for the events, and one with its
    own name as the key. A message with that key tells whether the exchange is still the one to
    which the process bound its queue. If it is, all other queues are bound as well, and the gate
    may be opened at once. If it is not, the process asks the others to bind their queues, and gives
    them time.

    Every method blocks for a bounded time, and uses connections of its own, because an alarm of the
    broker stops the connections that publish. During an alarm the gate stays closed for processes
    that have to bind their queues.

    Args:
        url: the broker's URL.
        names: the names of exchanges and queues.
        queue: the process's queue for events.
        clock: returns seconds.
    """

    def __init__(
        self, url: str, names: Names, queue: Queue, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._url = url
        self._names = names
        self._queue = queue
        self._clock = clock
        # When the process opens a closed gate; None before it has asked the others to bind.
        self._opens_at: float | None = None
        self._checks_at = 0.0
        #: Whether the gate has been open since the process bound its queue. It may have closed
        #: since: canaries detect it.
        self.is_open = False

    def enter(self, *, is_first: bool) -> None:
        """Declare the queue and bind it.

        Args:
            is_first: whether the process has just started. If there is no other process then, this
                one opens the gate at once.

        Raises:
            KombuError, AMQPError, OSError: the broker is unreachable, or refuses.
        """
        self.is_open = False
        try:
            with self._connected() as broker:
                self._declare(broker)
                self._queue(broker.channel()).queue_declare()
                self._enter(broker, is_first=is_first)
        except PublishersBlocked:
            logger.warning(
                "%s: this process has bound its queue, and is not ready until the alarm ends",
                BLOCKED,
            )
            with self._connected() as broker:
                self._bind(broker)
            self._checks_at = self._clock() + BLOCKED_INTERVAL

    def repair(self, *, asks: bool) -> bool:
        """Open the gate, or bind the queue again if its binding is gone.

        Args:
            asks: whether to ask the other processes to do the same.

        Returns:
            Whether the binding was gone, so that events may be missing.

        Raises:
            KombuError, AMQPError, OSError: the broker is unreachable, or the queue is gone.
        """
        with self._connected() as broker:
            self._declare(broker)
            is_lost = not self._is_bound(broker)
            if is_lost:
                self._enter(broker, asks=asks)
            else:
                self._bind(broker)
                if self.is_open:
                    with self._lock(broker):
                        self._open(broker)
            return is_lost

    def check(self) -> bool:
        """Open a closed gate ``BIND_TIMEOUT`` after this process has bound its queue.

        Returns and raises: see :meth:`repair`.
        """
        if self.is_open or self._clock() < self._checks_at:
            return False
        self._checks_at = self._clock() + CHECK_INTERVAL
        is_lost = False
        try:
            with self._connected() as broker:
                self._declare(broker)
                is_lost = not self._is_bound(broker)
                if is_lost or self._opens_at is None:
                    self._enter(broker)
                elif self._is_routed(broker, self._names.events_exchange(), EVENTS_KEY) or (
                    self._clock() >= self._opens_at
                ):
                    with self._lock(broker):
                        self._open(broker)
        except PublishersBlocked:
            if is_lost:
                raise
            self._checks_at = self._clock() + BLOCKED_INTERVAL
        return is_lost

    def _enter(self, broker: Connection, *, is_first: bool = False, asks: bool = True) -> None:
        """Bind the queue, and open the gate if that loses no event of another process."""
        self.is_open = False
        events = self._names.events_exchange()
        if not self._is_routed(broker, events, EVENTS_KEY):
            with self._lock(broker):
                # Another process may have opened the gate meanwhile.
                if not self._is_routed(broker, events, EVENTS_KEY):
                    self._enter_closed(broker, is_first=is_first, asks=asks)
                    return
        self._bind(broker)
        # A foreign queue may be bound to the exchange of the events, and not that of the servers.
        self._open(broker)

    def _enter_closed(self, broker: Connection, *, is_first: bool, asks: bool) -> None:
        is_waiting = self._opens_at is not None and self._is_bound(broker)
        # A binding that has outlived all queues would deliver to the first process that binds.
        self._servers(broker).unbind_from(self._names.events_exchange())
        if is_waiting:  # an error of the broker does not start the wait again
            self._bind(broker)
            return
        self._opens_at = None
        self._bind(broker)
        is_alone = asks and not self._ask_others(broker)
        self._opens_at = self._clock() + BIND_TIMEOUT
        if is_first and is_alone:
            self._open(broker)

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        def on_blocked(reason: str) -> NoReturn:
            del reason  # the driver passes no reason
            raise PublishersBlocked(BLOCKED)

        with connection(self._url, on_blocked=on_blocked, heartbeat=HEARTBEAT) as broker:
            try:
                yield broker
            except PublishersBlocked:
                broker.connection.collect()  # the broker would not answer a request to close
                raise

    def _lock(self, broker: Connection) -> AbstractContextManager[None]:
        """Return the lock of the processes that open or close the gate."""
        return locked(broker, self._names.read_lock(self._names.events))

    def _declare(self, broker: Connection) -> None:
        self._names.events_exchange()(broker.channel()).declare()
        self._servers(broker).declare()

    def _servers(self, broker: Connection) -> Exchange:
        bound: Exchange = self._names.servers_exchange()(broker.channel())
        return bound

    def _bind(self, broker: Connection) -> None:
        channel: Any = broker.channel()
        for key in (EVENTS_KEY, self._queue.name):
            channel.queue_bind(self._queue.name, self._names.servers, key)

    def _open(self, broker: Connection) -> None:
        self._servers(broker).bind_to(self._names.events_exchange(), EVENTS_KEY)
        self.is_open, self._opens_at = True, None

    def _is_bound(self, broker: Connection) -> bool:
        return self._is_routed(broker, self._names.servers_exchange(), self._queue.name)

    def _ask_others(self, broker: Connection) -> bool:
        """Ask the other processes to bind their queues. Return whether there are any."""
        bus = self._names.bus_exchange()
        bus(broker.channel()).declare()
        return self._is_routed(broker, bus, "", type=BIND_AGAIN, app_id=self._queue.name)

    def _is_routed(
        self, broker: Connection, exchange: Exchange, key: str, **properties: str
    ) -> bool:
        """Publish a message without an event. Return whether it has reached a queue."""
        channel: Any = broker.channel()
        returned: list[object] = []
        channel.events["basic_return"].add(lambda *answer: returned.append(answer))
        properties = {"type": CANARY, "content_type": "application/json", **properties}
        message = Message(NO_BODY, delivery_mode=TRANSIENT, **properties)
        try:
            channel.basic_publish_confirm(
                message, exchange.name, key, mandatory=True, confirm_timeout=ANSWER_TIMEOUT
            )
        except NotFound:
            return False
        channel.close()
        return not returned
