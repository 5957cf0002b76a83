"""The server side of the RabbitMQ transport: a consumer thread, and history in this process."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Final

from amqp.exceptions import NotFound
from kombu.connection import Connection
from kombu.entity import Exchange, Queue
from kombu.message import Message as Delivery
from kombu.messaging import Consumer as KombuConsumer

from jobcast.aio import BackgroundTasks, Backoff, LoopChange, LoopLock, cancel_and_wait
from jobcast.errors import TransportUnavailable
from jobcast.events import Cursor
from jobcast.transports.amqp.names import Names
from jobcast.transports.amqp.publisher import (
    BIND_AGAIN,
    CANARY,
    KOMBU_ERRORS,
    Address,
    KombuPublisher,
    connection,
    decode,
    decode_leases,
)
from jobcast.transports.amqp.revocations import read_revocations
from jobcast.transports.base import Message, Outgoing, Predecessor, Retention, Snapshot
from jobcast.transports.canary import Canary, NotReceiving
from jobcast.transports.leases import Finding, InMemoryLeases, LeaseTimeouts
from jobcast.transports.prefix import DEFAULT_PREFIX
from jobcast.transports.record import Records
from jobcast.transports.revocations import Revocation
from jobcast.transports.socketio_managers import AsyncJobEventManagerMixin

HEARTBEAT: Final = 10.0  # seconds
POLL: Final = 0.5  # seconds between the thread's checks whether to stop
PREFETCH: Final = 1000  # unacknowledged messages that the broker sends ahead
QUEUE_EXPIRY: Final = 60.0  # seconds that a process's queue outlives its connection
QUEUE_BYTES: Final = 64 * 1024 * 1024  # the queue's limit; the oldest messages are dropped
HELD_TIMEOUT: Final = 10.0  # seconds that an event waits for an earlier event
START_TIMEOUT: Final = 5.0  # seconds that a subscription waits for the broker
FIRST_DELAY: Final = 0.05  # seconds before the first attempt to reconnect
LONGEST_DELAY: Final = 3.0  # seconds between two attempts
MAX_SILENCE: Final = 1 / 3  # of a lease; while the broker is silent for longer, no lease expires
MIN_SILENCE: Final = 2.5  # seconds; shorter silences are ignored for short leases too

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
        if message.properties.get("type") != CANARY:
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


class KombuSource:
    """The events of all jobs from RabbitMQ, and their history in this process.

    Seq and epoch are local to this process: a client that comes from another process gets the full
    snapshot. The history has only what was published since the process started.
    """

    def __init__(
        self, url: str, retention: Retention | None = None, prefix: str = DEFAULT_PREFIX
    ) -> None:
        self._names = Names(prefix)
        self._url = Address.of(url).url
        self._records = Records(retention or Retention())
        self._leases = InMemoryLeases()
        self._on_revocation: Callable[[Revocation], None] | None = None
        self._canary_publisher = KombuPublisher(url, prefix=prefix)
        self._change = LoopChange()
        self._consumer: Consumer | None = None
        self._create_loop_state()

    def _create_loop_state(self) -> None:
        """Create the state that belongs to one event loop."""
        self._jobs: set[str] = set()
        # By job and publisher: events that wait for an earlier event.
        self._held: dict[str, dict[str, deque[Outgoing]]] = {}
        self._listening_since = time.time()
        self.canary = Canary(self._send_canary, lambda: self.ready)
        self._canary_task: asyncio.Task[None] | None = None
        self._online = asyncio.Event()
        self._resuming = BackgroundTasks()
        self.bus: asyncio.Queue[bytes] = asyncio.Queue()

    @property
    def ready(self) -> bool:
        return self._online.is_set()

    def start(
        self,
        on_message: Callable[[str, Message], None],
        on_resumed: Callable[[], Awaitable[None]],
    ) -> None:
        if self._change.happened():
            if self._consumer is not None:
                self._consumer.stop()
            self._create_loop_state()
        self._records.renew_epoch()  # events from before this start may be missing
        self._on_message = on_message
        self._on_resumed = on_resumed
        self._consumer = Consumer(
            self._url,
            self._names,
            publisher_id=self._canary_publisher.publisher_id,
            on_event=self._received,
            on_bus=self.bus.put_nowait,
            on_leases=self._leases_received,
            on_revocation=self._revocation_received,
            on_arrival=self.canary.message_arrived,
            on_state=self._state_changed,
            on_lost=self._queue_restored,
        )
        self._canary_task = asyncio.create_task(self._run_canary(), name="jobcast-canary")

    async def aclose(self) -> None:
        if self._canary_task is not None:
            await cancel_and_wait(self._canary_task)
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await consumer.aclose()
        await self._resuming.cancel()
        self._jobs.clear()
        await asyncio.to_thread(self._canary_publisher.close)

    async def subscribe(self, job_id: str) -> None:
        self._jobs.add(job_id)
        try:
            async with asyncio.timeout(START_TIMEOUT):
                await self._online.wait()
        except TimeoutError:
            raise TransportUnavailable(
                f"no connection to the broker within {START_TIMEOUT:.0f} s"
            ) from None

    async def unsubscribe(self, job_id: str) -> None:
        self._jobs.discard(job_id)

    async def snapshot(self, job_id: str, after: Cursor | None = None) -> Snapshot:
        return self._records.snapshot(job_id, after)

    async def positions(self, job_ids: Sequence[str]) -> list[Cursor]:
        return [self._records.position(job_id) for job_id in job_ids]

    async def owner(self, job_id: str) -> str | None:
        return self._records.snapshot(job_id, None).owner

    async def scan(self, terms: LeaseTimeouts) -> list[Finding]:
        # Every process has its own history, so each publishes its own findings.
        if not self.ready or self.canary.silence > max(MAX_SILENCE * terms.lease, MIN_SILENCE):
            # Live workers may be unable to renew: a blocked broker is silent, too.
            self._leases.interrupt()
            return []
        return self._leases.scan(terms)

    async def acknowledge(self, findings: Sequence[Finding], terms: LeaseTimeouts) -> None:
        self._leases.acknowledge(findings, terms)

    async def publish(self, batch: Sequence[Outgoing]) -> None:
        for outgoing in batch:
            self._store(outgoing, "")

    def watch_revocations(self, on_revocation: Callable[[Revocation], None]) -> None:
        self._on_revocation = on_revocation

    async def revocations(self) -> list[Revocation]:
        return await asyncio.to_thread(read_revocations, self._url, self._names)

    def _revocation_received(self, body: bytes | str) -> None:
        try:
            revocation = Revocation.decode(body)
        except ValueError as exc:
            logger.warning(
                "ignored a message on %s that is not jobcast's: %s", self._names.revocations, exc
            )
            return
        if self._on_revocation is not None:
            self._on_revocation(revocation)

    async def _run_canary(self) -> None:
        while True:
            try:
                await self.canary.run()
            except NotReceiving as exc:
                logger.warning(
                    "this process does not receive messages from the exchange %s, or the exchange"
                    " is missing: declaring it and binding the queue again", exc.route,
                )  # fmt: skip
                self._online.clear()
                misses_events = exc.route == self._names.events
                if misses_events and exc.reaches_no_process:
                    await self._ask_others_to_bind_again()
                if self._consumer is not None:
                    self._consumer.bind_again(misses_events=misses_events)

    async def _ask_others_to_bind_again(self) -> None:
        """Ask all processes to bind at the same time; until they do, some of them miss events."""
        try:
            await asyncio.to_thread(self._canary_publisher.ask_to_bind_again)
        except TransportUnavailable as exc:
            logger.debug("could not ask the other processes to bind their queues again: %s", exc)

    async def _send_canary(self, exchange: str) -> bool:
        return await asyncio.to_thread(self._canary_publisher.send_canary, exchange)

    def _leases_received(self, body: bytes | str) -> None:
        try:
            update = decode_leases(body)
        except ValueError as exc:
            logger.warning(
                "ignored a message on %s that is not jobcast's: %s", self._names.leases, exc
            )
            return
        if update.seconds is None:
            self._leases.release(update.leases)
        else:
            self._leases.renew(update.leases, update.seconds)

    def _received(self, body: bytes | str) -> None:
        try:
            outgoing, publisher = decode(body)
        except ValueError as exc:
            logger.warning(
                "ignored a message on %s that is not jobcast's: %s", self._names.events, exc
            )
            return
        held = self._held.get(outgoing.job_id, {}).get(publisher)
        if held and outgoing.number >= held[0].number:
            _insert(outgoing, held)
        elif self._records.has_to_wait(outgoing, publisher) and self._remaining_wait(outgoing) > 0:
            self._hold(deque([outgoing, *(held or ())]), publisher)
        else:
            self._store(outgoing, publisher)
            self._release(outgoing.job_id)

    def _remaining_wait(self, outgoing: Outgoing) -> float:
        """Return for how many seconds the event may wait for an earlier one.

        An event from before this process listened arrives only if it was delayed.
        """
        published_at = Predecessor.parse(outgoing.after).published_at
        if self._records.get(outgoing.job_id) or published_at >= self._listening_since:
            return HELD_TIMEOUT
        return HELD_TIMEOUT - (time.time() - self._listening_since)

    def _hold(self, events: deque[Outgoing], publisher: str) -> None:
        """Hold events of a job until earlier ones arrive, for a bounded time."""
        first = events[0]
        self._held.setdefault(first.job_id, {})[publisher] = events
        asyncio.get_running_loop().call_later(
            self._remaining_wait(first), self._give_up, first, publisher
        )

    def _give_up(self, first: Outgoing, publisher: str) -> None:
        events = self._held.get(first.job_id, {}).get(publisher)
        if events and events[0] is first:
            logger.info(
                "job %s: gave up waiting %.0f s for earlier events; delivering newer events",
                first.job_id, HELD_TIMEOUT,
            )  # fmt: skip
            self._store(events.popleft(), publisher)
            self._resume(first.job_id, publisher)
            self._release(first.job_id)

    def _release(self, job_id: str) -> None:
        """Store events that no longer wait; each of them may release others."""
        while (publisher := self._next_released(job_id)) is not None:
            self._resume(job_id, publisher)

    def _next_released(self, job_id: str) -> str | None:
        held = self._held.get(job_id, {}).items()
        free = (name for name, events in held if not self._records.has_to_wait(events[0], name))
        return next(free, None)

    def _resume(self, job_id: str, publisher: str) -> None:
        """Store a publisher's held events, up to the next one that has to wait."""
        events = self._held[job_id].pop(publisher)
        if not self._held[job_id]:
            del self._held[job_id]
        while events and not self._records.has_to_wait(events[0], publisher):
            self._store(events.popleft(), publisher)
        if events:
            self._hold(events, publisher)

    def _store(self, outgoing: Outgoing, publisher: str) -> None:
        message = self._records.add(outgoing, publisher)
        if message is not None and outgoing.job_id in self._jobs:
            self._on_message(outgoing.job_id, message)

    def _queue_restored(self) -> None:
        # The queue keeps events during a short interruption, so only a lost queue is reported.
        self._records.renew_epoch()
        self._resuming.spawn(self._report_resumed())

    async def _report_resumed(self) -> None:
        await self._on_resumed()

    def _state_changed(self, ready: bool) -> None:
        if ready:
            self.canary.watch((self._names.events, self._names.leases))
            self._online.set()
            logger.info("receiving events from the broker")
        else:
            self._online.clear()


def _insert(outgoing: Outgoing, events: deque[Outgoing]) -> None:
    """Insert an event in its place among a publisher's held events, unless it is there already."""
    index = len(events)
    while events[index - 1].number > outgoing.number:
        index -= 1
    if events[index - 1].number < outgoing.number:
        events.insert(index, outgoing)


class KombuClientManager(AsyncJobEventManagerMixin):
    """A client manager for ``AsyncServer``; python-socketio has none for Kombu and asyncio."""

    source: KombuSource

    name = "kombu"

    def __init__(
        self,
        url: str = "amqp://guest:guest@localhost:5672//",
        *,
        retention: Retention | None = None,
        prefix: str = DEFAULT_PREFIX,
    ) -> None:
        super().__init__(channel=Names(prefix).bus)
        self.source = KombuSource(url, retention, prefix)
        self._publisher = KombuPublisher(url, prefix=prefix)
        self._publishing = LoopLock()

    async def publish_event(self, outgoing: Outgoing) -> None:
        async with self._publishing:
            await asyncio.to_thread(self._publisher.publish, [outgoing])

    async def aclose(self) -> None:
        await super().aclose()
        await asyncio.to_thread(self._publisher.close)

    async def _publish(self, data: dict[str, Any]) -> None:
        async with self._publishing:
            await asyncio.to_thread(self._publisher.publish_bus, data)

    async def _listen(self) -> AsyncIterator[bytes]:
        while True:
            yield await self.source.bus.get()
