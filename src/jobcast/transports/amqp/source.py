"""The server side of the RabbitMQ transport: the events of all jobs, with their history."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any, Final

from jobcast.aio import BackgroundTasks, LoopChange, cancel_and_wait
from jobcast.errors import TransportUnavailable
from jobcast.events import Cursor, JobInfo
from jobcast.feeds import JobSummary
from jobcast.transports.amqp.cancellation import SeenRequests, announced_again
from jobcast.transports.amqp.canceller import Canceller
from jobcast.transports.amqp.codec import decode, decode_leases
from jobcast.transports.amqp.connection import Address
from jobcast.transports.amqp.consumer import Consumer
from jobcast.transports.amqp.held import HeldEvents
from jobcast.transports.amqp.names import Names
from jobcast.transports.amqp.publisher import KombuPublisher
from jobcast.transports.amqp.revocations import read_revocations
from jobcast.transports.base import FeedChange, Message, Outgoing, Retention, Snapshot
from jobcast.transports.canary import Canary, NotReceiving
from jobcast.transports.cancellation import CancelAnswer, Cancellation
from jobcast.transports.decoding import decoded
from jobcast.transports.leases import Finding, InMemoryLeases, Lease, LeaseTimeouts
from jobcast.transports.local_feeds import Change, LocalFeeds
from jobcast.transports.prefix import DEFAULT_PREFIX
from jobcast.transports.record import Records
from jobcast.transports.revocations import Revocation
from jobcast.transports.socketio_managers import AsyncJobEventManagerMixin
from jobcast.transports.thread_calls import ThreadCalls

START_TIMEOUT: Final = 5.0  # seconds that a subscription waits for the broker
MAX_SILENCE: Final = 1 / 3  # of a lease; while the broker is silent for longer, no lease expires
MIN_SILENCE: Final = 2.5  # seconds; shorter silences are ignored for short leases too

logger = logging.getLogger(__name__)


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
        self._feeds = LocalFeeds(self._records, retention or Retention())
        self._leases = InMemoryLeases()
        self._on_revocation: Callable[[Revocation], None] | None = None
        self._on_change: Callable[[str, FeedChange], None] | None = None
        self._canary_publisher = KombuPublisher(url, prefix=prefix)
        self._canary_calls = ThreadCalls()  # of its publisher
        self._cancel_publisher = KombuPublisher(url, prefix=prefix)
        self._seen_requests = SeenRequests()
        self._change = LoopChange()
        self._consumer: Consumer | None = None
        self._create_loop_state()

    def _create_loop_state(self) -> None:
        """Create the state that belongs to one event loop."""
        self._jobs: set[str] = set()
        self._watched: set[str] = set()  # feeds
        self._next_refresh: asyncio.TimerHandle | None = None  # of feeds
        self._canceller = Canceller(
            self._cancel_publisher, self._records, self._seen_requests, self._cancelled
        )
        self._held = HeldEvents(self._records, self._store)
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
            on_event=self._received,
            on_cancel=self._canceller.receive,
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
        await self._canceller.aclose()
        await self._resuming.cancel()
        self._jobs.clear()
        self._watched.clear()
        if self._next_refresh is not None:
            self._next_refresh.cancel()
        await self._canary_calls.close(self._canary_publisher.close)

    async def subscribe(self, job_id: str) -> None:
        self._jobs.add(job_id)
        await self._wait_online()

    async def _wait_online(self) -> None:
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

    async def info(self, job_id: str) -> JobInfo:
        return self._records.info(job_id)

    def watch_feeds(self, on_change: Callable[[str, FeedChange], None]) -> None:
        self._on_change = on_change

    async def subscribe_feed(self, feed: str) -> None:
        self._watched.add(feed)
        await self._wait_online()

    async def unsubscribe_feed(self, feed: str) -> None:
        self._watched.discard(feed)

    async def read_feed(self, feed: str) -> list[JobSummary]:
        jobs, changes = self._feeds.read(feed)
        self._send_changes(changes)
        return jobs

    async def scan(self, terms: LeaseTimeouts) -> list[Finding]:
        # Every process has its own history, so each publishes its own findings.
        if not self.ready or self.canary.silence > max(MAX_SILENCE * terms.lease, MIN_SILENCE):
            # Live workers may be unable to renew: a blocked broker is silent, too.
            self._leases.interrupt()
            return []
        return self._leases.scan(terms)

    async def acknowledge(self, findings: Sequence[Finding], terms: LeaseTimeouts) -> None:
        self._leases.acknowledge(findings, terms)

    async def publish(self, batch: Sequence[Outgoing]) -> list[Outgoing]:
        return [outgoing for outgoing in batch if self._store(outgoing, "")]

    async def cancel(self, cancellation: Cancellation) -> CancelAnswer:
        await self._wait_online()
        return await self._canceller.cancel(cancellation)

    def _cancelled(self, job_id: str, messages: list[Message]) -> None:
        self._send(job_id, messages)
        self._feeds.mark_job(job_id)
        self._refresh_feeds()

    def _cancellation_of(self, lease: Lease) -> Cancellation | None:
        kept = self._records.kept_cancellation(lease.job_id)
        return kept if kept is not None and kept.covers(lease.run) else None

    def watch_revocations(self, on_revocation: Callable[[Revocation], None]) -> None:
        self._on_revocation = on_revocation

    async def revocations(self) -> list[Revocation]:
        return await asyncio.to_thread(read_revocations, self._url, self._names)

    def _revocation_received(self, body: bytes | str) -> None:
        revocation = decoded(Revocation.decode, body, self._names.revocations)
        if revocation is not None and self._on_revocation is not None:
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
                if self._consumer is None:
                    continue
                if exc.reaches_no_process:
                    self._consumer.repair()
                else:
                    misses_events = exc.route == self._names.events
                    self._consumer.reconnect(misses_events=misses_events)

    async def _send_canary(self, exchange: str) -> bool:
        return await self._canary_calls.run(self._canary_publisher.send_canary, exchange)

    def _leases_received(self, body: bytes | str) -> None:
        update = decoded(decode_leases, body, self._names.leases)
        if update is None:
            return
        if update.seconds is None:
            self._leases.release(update.leases)
        else:
            self._leases.renew(update.leases, update.seconds)
            self._canceller.announce(announced_again(map(self._cancellation_of, update.leases)))

    def _received(self, body: bytes | str) -> None:
        event = decoded(decode, body, self._names.events)
        if event is not None:
            self._held.receive(*event)

    def _store(self, outgoing: Outgoing, publisher: str) -> bool:
        """Store an event. Return whether it is part of the record."""
        messages = self._records.add(outgoing, publisher)
        self._send(outgoing.job_id, messages)
        if outgoing.begins:
            self._canceller.announce(announced_again([self._records.cancellation_of(outgoing)]))
        self._feeds.mark([outgoing])
        self._refresh_feeds()
        return bool(messages)

    def _send(self, job_id: str, messages: Iterable[Message]) -> None:
        if job_id in self._jobs:
            for message in messages:
                self._on_message(job_id, message)

    def _refresh_feeds(self) -> None:
        """Write the summaries that are due, and schedule the next ones."""
        self._send_changes(self._feeds.refresh())
        due_in = self._feeds.due_in
        if due_in is not None and self._next_refresh is None:
            loop = asyncio.get_running_loop()
            self._next_refresh = loop.call_later(due_in, self._refresh_feeds_again)

    def _refresh_feeds_again(self) -> None:
        self._next_refresh = None
        self._refresh_feeds()

    def _send_changes(self, changes: Iterable[Change]) -> None:
        for feed, change in changes:
            if feed in self._watched and self._on_change is not None:
                self._on_change(feed, change)

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
        self._calls = ThreadCalls()  # of the publisher

    async def publish_event(self, outgoing: Outgoing) -> None:
        await self._calls.run(self._publisher.publish, [outgoing])

    async def aclose(self) -> None:
        await super().aclose()
        await self._calls.close(self._publisher.close)

    async def _publish(self, data: dict[str, Any]) -> None:
        await self._calls.run(self._publisher.publish_bus, data)

    async def _listen(self) -> AsyncIterator[bytes]:
        while True:
            yield await self.source.bus.get()
