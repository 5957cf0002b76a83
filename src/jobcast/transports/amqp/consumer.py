"""The thread in which a server process receives from RabbitMQ."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from amqp.exceptions import NotFound
from kombu.connection import Connection
from kombu.entity import Exchange, Queue
from kombu.message import Message as Delivery
from kombu.messaging import Consumer as KombuConsumer

from jobcast.aio import Backoff
from jobcast.transports.amqp.codec import BIND_AGAIN, CANARY, CANCEL
from jobcast.transports.amqp.connection import KOMBU_ERRORS, connection
from jobcast.transports.amqp.names import Names

HEARTBEAT: Final = 10.0  # seconds
POLL: Final = 0.5  # seconds between the thread's checks whether to stop
PREFETCH: Final = 1000  # unacknowledged messages that the broker sends ahead
QUEUE_EXPIRY: Final = 60.0  # seconds that a process's queue outlives its connection
QUEUE_BYTES: Final = 64 * 1024 * 1024  # the queue's limit; the oldest messages are dropped
FIRST_DELAY: Final = 0.05  # seconds before the first attempt to reconnect
LONGEST_DELAY: Final = 3.0  # seconds between two attempts

logger = logging.getLogger(__name__)


class Consumer:
    """Receives messages in its own thread, and passes them to an event loop.

    The thread acknowledges a message after the loop has processed it. A slow loop thereby slows
    the broker down, and a broken connection returns the unprocessed messages to the queue.

    If no messages arrive any longer, the consumer reconnects and binds its queues again.

    Args:
        url: the broker's URL.
        names: the names of exchanges and queues.
        publisher_id: the id in this process's own messages, whose requests to bind again are
            ignored.
        on_event: called in the loop with the body of each job event.
        on_cancel: called in the loop with the body of each request to cancel a job.
        on_bus: called in the loop with the body of each python-socketio message.
        on_leases: called in the loop with the body of each message about leases.
        on_revocation: called in the loop with the body of each revocation.
        on_arrival: called in the loop with the exchange of each message.
        on_state: called in the loop with whether messages are being received.
        on_lost: called in the loop when the events queue is restored after it was deleted or not
            bound; the events published meanwhile are missing.
    """

    def __init__(
        self,
        url: str,
        names: Names,
        *,
        publisher_id: str,
        on_event: Callable[[bytes], None],
        on_cancel: Callable[[bytes], None],
        on_bus: Callable[[bytes], None],
        on_leases: Callable[[bytes], None],
        on_revocation: Callable[[bytes], None],
        on_arrival: Callable[[str], None],
        on_state: Callable[[bool], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._url = url
        self._names = names
        self._publisher_id = publisher_id
        self._handlers = {
            names.events: on_event,
            names.bus: on_bus,
            names.leases: on_leases,
            names.revocations: on_revocation,
        }
        self._on_cancel = on_cancel
        self._on_arrival = on_arrival
        self._on_state = on_state
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._stopping = threading.Event()
        self._rebind_requested = threading.Event()
        self._misses_events = False
        self._is_consuming = False
        self._handled: deque[Delivery] = deque()  # processed, to be acknowledged by the thread
        self._name = names.new_queue(names.events)
        self._thread = threading.Thread(target=self._run, name="jobcast-consumer", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop receiving, without waiting for the thread to end."""
        self._stopping.set()

    async def aclose(self) -> None:
        self.stop()
        await asyncio.to_thread(self._thread.join)

    def bind_again(self, *, misses_events: bool) -> None:
        """Reconnect, and declare all queues and bindings. May be called from any thread."""
        self._misses_events = self._misses_events or misses_events
        self._rebind_requested.set()

    def _run(self) -> None:
        backoff, had_queue = Backoff(FIRST_DELAY, LONGEST_DELAY), False
        while not self._stopping.is_set():
            try:
                # Requests from here on cause another rebind.
                self._rebind_requested.clear()
                with connection(self._url, heartbeat=HEARTBEAT) as broker:
                    is_bound = had_queue and not self._misses_events
                    if had_queue and not self._queue_exists(broker):
                        is_bound = False
                        logger.warning("the queue of this process was gone: events may be missing")
                        self._misses_events = True
                    self._receive(broker, is_bound=is_bound)
                    had_queue = True
                    backoff.reset()
            except KOMBU_ERRORS as exc:
                had_queue = had_queue or self._is_consuming
                if self._is_consuming:
                    backoff.reset()
                backoff.failed()
                if backoff.failures == 1:
                    logger.warning("the connection to the broker is down, reconnecting: %s", exc)
            except Exception:
                # The thread has to survive any error, or the process would receive nothing more.
                backoff.failed()
                logger.exception("receiving from the broker failed")
            self._is_consuming = False
            self._call(self._on_state, False)
            self._stopping.wait(backoff.delay())

    def _receive(self, broker: Connection, *, is_bound: bool) -> None:
        """Receive until the process stops or has to bind its queues again.

        Args:
            broker: a connection.
            is_bound: whether the events queue should still be bound. It is then not bound again;
                if the binding is missing, canaries detect that events are missing.
        """
        channel = broker.channel()
        consumer = self._consume(channel, is_bound=is_bound)
        self._is_consuming = True
        self._call(self._on_state, True)
        if self._misses_events and not is_bound:
            self._misses_events = False
            self._call(self._on_lost)
        while not self._stopping.is_set() and not self._rebind_requested.is_set():
            self._drain(broker)
            self._acknowledge(channel)
        if self._stopping.is_set():
            # This process does not reuse the queue, and the broker would keep it until it expires.
            consumer.cancel()
            channel.queue_delete(self._name)

    def _queue_exists(self, broker: Connection) -> bool:
        try:
            broker.channel().queue_declare(self._name, passive=True)
        except NotFound:
            return False
        return True

    def _consume(self, channel: Any, *, is_bound: bool) -> KombuConsumer:
        channel.basic_qos(0, PREFETCH, False)
        consumer = KombuConsumer(
            channel,
            queues=[
                self._events_queue(is_bound=is_bound),
                self._own_queue(self._names.bus_exchange()),
                self._own_queue(self._names.leases_exchange()),
                self._own_queue(self._names.revocations_exchange()),
            ],
            on_message=self._received,
        )
        consumer.consume()
        return consumer

    def _events_queue(self, *, is_bound: bool) -> Queue:
        return Queue(
            self._name,
            self._names.events_exchange(),
            no_declare=is_bound,
            durable=True,
            expires=QUEUE_EXPIRY,
            max_length_bytes=QUEUE_BYTES,
            # A connection that the broker still considers open may hold messages. They have to
            # return to the queue before newer ones are delivered by another connection.
            queue_arguments={"x-single-active-consumer": True},
        )

    def _own_queue(self, exchange: Exchange) -> Queue:
        """Return a queue that is deleted with the connection, for messages without later use."""
        return Queue(
            # The broker may consider the former connection open, so each one needs a new name.
            # Kombu's consumer confuses queues without a name.
            self._names.new_queue(exchange.name),
            exchange,
            durable=False,
            exclusive=True,
            auto_delete=True,
            no_ack=False,
        )

    def _drain(self, broker: Connection) -> None:
        try:
            broker.drain_events(timeout=POLL)
        except TimeoutError:
            broker.heartbeat_check()

    def _received(self, message: Delivery) -> None:
        if message.properties.get("type") == BIND_AGAIN:
            # A process ignores its own request, because it binds its queues without it.
            if message.properties.get("app_id") != self._publisher_id:
                self.bind_again(misses_events=True)
        else:
            self._call(self._handle, message)

    def _handle(self, message: Delivery) -> None:
        exchange = message.delivery_info["exchange"]
        self._on_arrival(exchange)
        kind = message.properties.get("type")
        if kind == CANCEL:
            self._on_cancel(message.body)
        elif kind != CANARY:
            self._handlers[exchange](message.body)
        self._handled.append(message)

    def _acknowledge(self, channel: Any) -> None:
        while self._handled:
            message = self._handled.popleft()
            # A message of a former connection is delivered again, and recognised as a duplicate.
            if message.channel is channel:
                message.ack()

    def _call(self, callback: Callable[..., None], *args: Any) -> None:
        """Call a function in the loop."""
        with suppress(RuntimeError):  # the loop is closed, so it has no followers
            self._loop.call_soon_threadsafe(callback, *args)
