"""A transport in one process, with the rules of the Redis transport, for tests and trials."""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, ClassVar
from urllib.parse import urlsplit

from jobcast.aio import LoopChange
from jobcast.errors import PublishFailed
from jobcast.events import Cursor, JobInfo
from jobcast.feeds import JobSummary
from jobcast.transports.base import FeedChange, Message, Outgoing, Retention, Snapshot
from jobcast.transports.cancellation import (
    CancelAnswer,
    Cancellation,
    Notices,
    OnCancellation,
    notify,
)
from jobcast.transports.leases import Finding, InMemoryLeases, Lease, LeaseTimeouts
from jobcast.transports.local_feeds import Change, LocalFeeds
from jobcast.transports.prefix import DEFAULT_PREFIX
from jobcast.transports.record import Records
from jobcast.transports.revocations import InMemoryRevocations, Revocation
from jobcast.transports.socketio_managers import AsyncJobEventManagerMixin, JobEventManagerMixin

logger = logging.getLogger(__name__)


class MemoryBroker:
    """The in-memory stand-in for a server, shared by threads and event loops."""

    _brokers: ClassVar[dict[tuple[str, str], MemoryBroker]] = {}

    def __init__(self, retention: Retention) -> None:
        self._lock = threading.Lock()
        self._records = Records(retention)
        self._warnings: deque[str] = deque()  # to log without the lock
        self._feeds = LocalFeeds(self._records, retention, warn=self._warnings.append)
        self.leases = InMemoryLeases()
        self.revocations = InMemoryRevocations()
        self._sources: set[MemorySource] = set()
        self._listeners: set[MemoryListener] = set()

    @classmethod
    def at(
        cls, url: str, retention: Retention | None = None, prefix: str = DEFAULT_PREFIX
    ) -> MemoryBroker:
        """Return the broker of a URL and a prefix; ``memory://a`` and ``memory://b`` differ.

        The first call for a URL and a prefix sets the retention.
        """
        place = urlsplit(url).netloc, prefix
        return cls._brokers.setdefault(place, cls(retention or Retention()))

    def publish(
        self,
        batch: Sequence[Outgoing],
        publisher: str = "",
        on_cancelled: OnCancellation | None = None,
    ) -> list[Outgoing]:
        """Store and send the events, and return those that are part of the records.

        Raises:
            PublishFailed: some events wait for another publisher.
        """
        cancelled: dict[str, Cancellation] = {}
        try:
            return self._store(batch, publisher, cancelled)
        finally:
            for cancellation in cancelled.values():
                notify(on_cancelled, cancellation)

    def _store(
        self, batch: Sequence[Outgoing], publisher: str, cancelled: dict[str, Cancellation]
    ) -> list[Outgoing]:
        """Store events, and add the requests that cover them to ``cancelled``."""
        held: list[Outgoing] = []
        stored: list[Outgoing] = []
        jobs: set[str] = set()
        with self._changing_feeds():
            for outgoing in batch:
                if outgoing.job_id in jobs or self._records.has_to_wait(outgoing, publisher):
                    held.append(outgoing)
                    jobs.add(outgoing.job_id)
                    continue
                messages = self._records.add(outgoing, publisher)
                if messages:
                    stored.append(outgoing)
                    self._send(outgoing.job_id, messages)
                cancellation = self._records.cancellation_of(outgoing)
                if cancellation is not None:
                    cancelled[outgoing.job_id] = cancellation
                else:
                    cancelled.pop(outgoing.job_id, None)
            self._feeds.mark(batch)
            self._send_changes(self._feeds.refresh())
        if held:
            raise PublishFailed("waiting for an event of another publisher", held, held=True)
        return stored

    def _send(self, job_id: str, messages: Iterable[Message]) -> None:
        for message in messages:
            for source in self._sources:
                source.call_in_loop(source.deliver, job_id, message)

    def cancel(self, cancellation: Cancellation) -> CancelAnswer:
        job_id = cancellation.job_id
        with self._changing_feeds():
            answer, messages = self._records.cancel(cancellation)
            self._send(job_id, messages)
            if messages:
                self._feeds.mark_job(job_id)
                self._send_changes(self._feeds.refresh())
            notice = self._records.notice_of(job_id, answer)
            listeners = [*self._listeners]
        if notice is not None:
            for listener in listeners:
                listener.notices.put(notice)
        return answer

    def cancellation_of(self, lease: Lease) -> Cancellation | None:
        with self._lock:
            kept = self._records.kept_cancellation(lease.job_id)
        return kept if kept is not None and kept.covers(lease.run) else None

    def add_listener(self, listener: MemoryListener) -> None:
        with self._lock:
            self._listeners.add(listener)

    def remove_listener(self, listener: MemoryListener) -> None:
        with self._lock:
            self._listeners.discard(listener)

    def refresh_feeds(self) -> None:
        """Write the summaries of jobs that are due."""
        with self._changing_feeds():
            self._send_changes(self._feeds.refresh())

    def read_feed(self, feed: str) -> list[JobSummary]:
        with self._changing_feeds():
            jobs, changes = self._feeds.read(feed)
            self._send_changes(changes)
        return jobs

    @contextmanager
    def _changing_feeds(self) -> Iterator[None]:
        """Hold the lock, and log afterwards: a handler may use this broker."""
        with self._lock:
            yield
            warnings = [*self._warnings]
            self._warnings.clear()
        for warning in warnings:
            logger.warning("%s", warning)

    def _send_changes(self, changes: Iterable[Change]) -> None:
        for feed, change in changes:
            for source in self._sources:
                if feed in source.feeds:
                    source.call_in_loop(source.deliver_change, feed, change)

    def revoke(self, revocation: Revocation) -> None:
        self.revocations.add(revocation)
        with self._lock:
            for source in self._sources:
                source.call_in_loop(source.deliver_revocation, revocation)

    def publish_bus(self, data: dict[str, Any]) -> None:
        with self._lock:
            for source in self._sources:
                source.call_in_loop(source.bus.put_nowait, data)

    def snapshot(self, job_id: str, after: Cursor | None) -> Snapshot:
        with self._lock:
            return self._records.snapshot(job_id, after)

    def info(self, job_id: str) -> JobInfo:
        with self._lock:
            return self._records.info(job_id)

    def position(self, job_id: str) -> Cursor:
        with self._lock:
            return self._records.position(job_id)

    def attach(self, source: MemorySource) -> None:
        with self._lock:
            self._sources.add(source)

    def detach(self, source: MemorySource) -> None:
        with self._lock:
            self._sources.discard(source)


class MemoryListener:
    """A subscription to the accepted requests to cancel jobs."""

    def __init__(self, broker: MemoryBroker, on_cancellation: OnCancellation) -> None:
        self._broker = broker
        self.notices = Notices(on_cancellation, "jobcast-cancellations")
        broker.add_listener(self)

    def close(self) -> None:
        self._broker.remove_listener(self)
        self.notices.close()


class MemoryPublisher(JobEventManagerMixin):
    """The worker side of the in-memory transport."""

    on_cancelled: OnCancellation | None = None

    def __init__(
        self,
        url: str = "memory://",
        *,
        retention: Retention | None = None,
        prefix: str = DEFAULT_PREFIX,
    ) -> None:
        super().__init__(channel=prefix, write_only=True)
        self._broker = MemoryBroker.at(url, retention, prefix)
        self.publisher_id = secrets.token_hex(6)

    def publish(self, batch: Sequence[Outgoing]) -> None:
        self._broker.publish(batch, self.publisher_id, self.on_cancelled)

    def listen(self, on_cancellation: OnCancellation) -> MemoryListener:
        return MemoryListener(self._broker, on_cancellation)

    def renew(self, leases: Sequence[Lease], seconds: float) -> None:
        self._broker.leases.renew(leases, seconds)
        self._broker.refresh_feeds()
        for lease in leases:
            if (cancellation := self._broker.cancellation_of(lease)) is not None:
                notify(self.on_cancelled, cancellation)

    def release(self, leases: Sequence[Lease]) -> None:
        self._broker.leases.release(leases)

    def revoke(self, revocation: Revocation) -> None:
        self._broker.revoke(revocation)

    def advice(self) -> list[str]:
        return [
            "JOBCAST_URL is memory://, which works in one process only: workers and servers in"
            " other processes receive nothing"
        ]

    def close(self) -> None:
        """Write the summaries that are due. There is no connection to close."""
        self._broker.refresh_feeds()

    def _publish(self, data: dict[str, Any]) -> None:
        self._broker.publish_bus(data)


class MemorySource:
    """The server side of the in-memory transport."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker
        self._jobs: set[str] = set()
        self.feeds: set[str] = set()  # whose changes the source receives
        self._change = LoopChange()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._on_revocation: Callable[[Revocation], None] | None = None
        self._on_change: Callable[[str, FeedChange], None] | None = None
        self.bus: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    @property
    def ready(self) -> bool:
        return self._loop is not None

    def start(
        self,
        on_message: Callable[[str, Message], None],
        on_resumed: Callable[[], Awaitable[None]],  # noqa: ARG002  (nothing interrupts memory)
    ) -> None:
        if self._change.happened():
            self._jobs.clear()
            self.feeds.clear()
            self.bus = asyncio.Queue()
        self._on_message = on_message
        self._loop = asyncio.get_running_loop()
        self._broker.attach(self)

    async def aclose(self) -> None:
        self._broker.detach(self)
        self._jobs.clear()
        self.feeds.clear()
        self._loop = None

    async def subscribe(self, job_id: str) -> None:
        self._jobs.add(job_id)

    async def unsubscribe(self, job_id: str) -> None:
        self._jobs.discard(job_id)

    async def snapshot(self, job_id: str, after: Cursor | None = None) -> Snapshot:
        return self._broker.snapshot(job_id, after)

    async def positions(self, job_ids: Sequence[str]) -> list[Cursor]:
        return [self._broker.position(job_id) for job_id in job_ids]

    async def info(self, job_id: str) -> JobInfo:
        return self._broker.info(job_id)

    def watch_feeds(self, on_change: Callable[[str, FeedChange], None]) -> None:
        self._on_change = on_change

    async def subscribe_feed(self, feed: str) -> None:
        self.feeds.add(feed)

    async def unsubscribe_feed(self, feed: str) -> None:
        self.feeds.discard(feed)

    async def read_feed(self, feed: str) -> list[JobSummary]:
        return self._broker.read_feed(feed)

    async def scan(self, terms: LeaseTimeouts) -> list[Finding]:
        return self._broker.leases.scan(terms)

    async def acknowledge(self, findings: Sequence[Finding], terms: LeaseTimeouts) -> None:
        self._broker.leases.acknowledge(findings, terms)

    async def publish(self, batch: Sequence[Outgoing]) -> list[Outgoing]:
        return self._broker.publish(batch)

    async def cancel(self, cancellation: Cancellation) -> CancelAnswer:
        return self._broker.cancel(cancellation)

    def watch_revocations(self, on_revocation: Callable[[Revocation], None]) -> None:
        self._on_revocation = on_revocation

    async def revocations(self) -> list[Revocation]:
        return self._broker.revocations.in_force()

    def deliver_revocation(self, revocation: Revocation) -> None:
        if self._on_revocation is not None:
            self._on_revocation(revocation)

    def call_in_loop(self, function: Callable[..., object], *args: object) -> None:
        """Run a function in the source's loop, from any thread, in the order of the calls."""
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed, so it has no followers
                self._loop.call_soon_threadsafe(function, *args)

    def deliver(self, job_id: str, message: Message) -> None:
        if job_id in self._jobs:
            self._on_message(job_id, message)

    def deliver_change(self, feed: str, change: FeedChange) -> None:
        if feed in self.feeds and self._on_change is not None:
            self._on_change(feed, change)


class MemoryClientManager(AsyncJobEventManagerMixin):
    """A client manager for ``AsyncServer``."""

    source: MemorySource

    name = "memory"

    def __init__(
        self,
        url: str = "memory://",
        *,
        retention: Retention | None = None,
        prefix: str = DEFAULT_PREFIX,
    ) -> None:
        super().__init__(channel=prefix)
        self._broker = MemoryBroker.at(url, retention, prefix)
        self.source = MemorySource(self._broker)

    async def publish_event(self, outgoing: Outgoing) -> None:
        self._broker.publish([outgoing])

    async def _publish(self, data: dict[str, Any]) -> None:
        self._broker.publish_bus(data)

    async def _listen(self) -> AsyncIterator[dict[str, Any]]:
        while True:
            yield await self.source.bus.get()
