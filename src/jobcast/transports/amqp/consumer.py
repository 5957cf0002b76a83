"""The thread in which a server process receives from RabbitMQ."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
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
from jobcast.transports.amqp.gate import CHECK_INTERVAL, Gate
from jobcast.transports.amqp.names import Names

HEARTBEAT: Final = 10.0  # seconds
POLL: Final = 0.5  # seconds between the thread's checks whether to stop
PREFETCH: Final = 1000  # unacknowledged messages that the broker sends ahead
QUEUE_EXPIRY: Final = 60.0  # seconds that a process's queue outlives its connection
QUEUE_BYTES: Final = 64 * 1024 * 1024  # the queue's limit; the oldest messages are dropped
DECLARE_INTERVAL: Final = 10.0  # seconds between declarations of the queues for other messages
FIRST_DELAY: Final = 0.05  # seconds before the first attempt to reconnect
LONGEST_DELAY: Final = 3.0  # seconds between two attempts

logger = logging.getLogger(__name__)


class Consumer:
    """Receives messages in its own thread, and passes them to an event loop.

    The thread acknowledges a message after the loop has processed it. A slow loop thereby slows
    the broker down, and a broken connection returns the unprocessed messages to the queue.

    If no messages arrive any longer, the consumer binds its queues again.

    Args:
        url: the broker's URL.
        names: the names of exchanges and queues.
        on_event: called in the loop with the body of each job event.
        on_cancel: called in the loop with the body of each request to cancel a job.
        on_bus: called in the loop with the body of each python-socketio message.
        on_leases: called in the loop with the body of each message about leases.
        on_revocation: called in the loop with the body of each revocation.
        on_arrival: called in the loop with the exchange of each message.
        on_state: called in the loop with whether events are being received.
        on_lost: called in the loop when the events queue is restored after it was deleted or not
            bound; events published meanwhile may be missing.
    """

    def __init__(
        self,
        url: str,
        names: Names,
        *,
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
        self._reconnect_requested = threading.Event()
        self._repair_requested = threading.Event()
        self._is_asked_to_repair = False  # by another process
        self._misses_events = False
        self._is_consuming = False
        self._declared_at = 0.0
        self._handled: deque[Delivery] = deque()  # processed, to be acknowledged by the thread
        self._events_queue = self._new_events_queue()
        self._gate = Gate(url, names, self._events_queue)
        self._thread = threading.Thread(target=self._run, name="jobcast-consumer", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop receiving, without waiting for the thread to end."""
        self._stopping.set()

    async def aclose(self) -> None:
        self.stop()
        await asyncio.to_thread(self._thread.join)

    def repair(self) -> None:
        """Declare missing exchanges and bindings again. May be called from any thread."""
        self._repair_requested.set()

    def reconnect(self, *, misses_events: bool) -> None:
        """Reconnect, and declare all queues and bindings. May be called from any thread."""
        self._misses_events = self._misses_events or misses_events
        self._reconnect_requested.set()

    def _run(self) -> None:
        backoff, had_queue = Backoff(FIRST_DELAY, LONGEST_DELAY), False
        while not self._stopping.is_set():
            try:
                # Requests from here on cause another connection.
                self._reconnect_requested.clear()
                with connection(self._url, heartbeat=HEARTBEAT) as broker:
                    is_bound = had_queue and not self._misses_events
                    if had_queue and not self._queue_exists(broker):
                        is_bound = False
                        logger.warning("the queue of this process was gone: events may be missing")
                        self._misses_events = True
                    if not is_bound:
                        self._gate.enter(is_first=not had_queue)
                    self._receive(broker, is_bound=is_bound)
                    backoff.reset()
            except KOMBU_ERRORS as exc:
                if self._is_consuming:
                    backoff.reset()
                backoff.failed()
                if backoff.failures == 1:
                    logger.warning("the connection to the broker is down, reconnecting: %s", exc)
            except Exception:
                # The thread has to survive any error, or the process would receive nothing more.
                backoff.failed()
                logger.exception("receiving from the broker failed")
            had_queue = had_queue or self._is_consuming
            self._is_consuming = False
            self._call(self._on_state, False)
            self._stopping.wait(backoff.delay())

    def _receive(self, broker: Connection, *, is_bound: bool) -> None:
        """Receive until the process stops or has to reconnect.

        Args:
            broker: a connection.
            is_bound: whether the events queue is still bound from before, as far as known. If the
                binding is missing, canaries detect that events are missing.
        """
        channel = broker.channel()
        consumer = self._consume(channel)
        self._is_consuming, self._declared_at = True, time.monotonic()
        self._report_state()
        if not is_bound:
            self._report_lost()
        while not self._stopping.is_set() and not self._reconnect_requested.is_set():
            self._drain(broker)
            self._acknowledge(channel)
            if self._repair_requested.is_set() or self._is_asked_to_repair:
                self._repair(consumer)
            elif not self._gate.is_open:
                self._check_gate()
            elif time.monotonic() - self._declared_at > DECLARE_INTERVAL:
                self._declare_again(consumer)
        if self._stopping.is_set():
            # This process does not reuse the queue, and the broker would keep it until it expires.
            consumer.cancel()
            channel.queue_delete(self._events_queue.name)

    def _repair(self, consumer: KombuConsumer) -> None:
        asks = self._repair_requested.is_set()
        self._repair_requested.clear()
        self._is_asked_to_repair = False
        self._declare_again(consumer)
        self._restore(lambda: self._gate.repair(asks=asks))
        self._report_state()

    def _declare_again(self, consumer: KombuConsumer) -> None:
        """Declare all queues with their exchanges and bindings, except for the events queue.

        No canary detects that someone has deleted the exchange of the bus or of revocations.
        """
        queues: Any = consumer.queues
        for queue in queues:
            queue.declare()
        self._declared_at = time.monotonic()

    def _check_gate(self) -> None:
        self._restore(self._gate.check)
        if self._gate.is_open:
            self._report_state()

    def _restore(self, binding_was_gone: Callable[[], bool]) -> None:
        try:
            was_gone = binding_was_gone()
        except BaseException:
            self._misses_events = True  # the binding may have been gone
            raise
        self._misses_events = self._misses_events or was_gone
        self._report_lost()

    def _report_state(self) -> None:
        self._call(self._on_state, self._gate.is_open)

    def _report_lost(self) -> None:
        if self._misses_events:
            self._misses_events = False
            self._call(self._on_lost)

    def _queue_exists(self, broker: Connection) -> bool:
        try:
            broker.channel().queue_declare(self._events_queue.name, passive=True)
        except NotFound:
            return False
        return True

    def _consume(self, channel: Any) -> KombuConsumer:
        channel.basic_qos(0, PREFETCH, False)
        consumer = KombuConsumer(
            channel,
            queues=[
                self._events_queue,
                self._own_queue(self._names.bus_exchange()),
                self._own_queue(self._names.leases_exchange()),
                self._own_queue(self._names.revocations_exchange()),
            ],
            on_message=self._received,
        )
        consumer.consume()
        return consumer

    def _new_events_queue(self) -> Queue:
        return Queue(
            self._names.new_queue(self._names.events),
            no_declare=True,  # the gate declares and binds it
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
            broker.drain_events(timeout=POLL if self._gate.is_open else CHECK_INTERVAL)
        except TimeoutError:
            broker.heartbeat_check()

    def _received(self, message: Delivery) -> None:
        if message.properties.get("type") == BIND_AGAIN:
            message.ack()
            # A process ignores its own request, because it binds its queues without it.
            if message.properties.get("app_id") != self._events_queue.name:
                self._is_asked_to_repair = True
        else:
            self._call(self._handle, message)

    def _handle(self, message: Delivery) -> None:
        exchange = message.delivery_info["exchange"]
        self._on_arrival(exchange)
        kind, handler = message.properties.get("type"), self._handlers.get(exchange)
        try:
            if kind == CANCEL:
                self._on_cancel(message.body)
            elif kind != CANARY and handler is not None:
                handler(message.body)
        finally:
            # The broker sends a limited number of messages that are not acknowledged.
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
