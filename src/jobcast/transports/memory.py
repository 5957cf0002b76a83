"""Everything in one process, with the same rules as Redis: for tests, and for trying things out."""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, ClassVar, Final
from urllib.parse import urlsplit

from jobcast.events import PROGRESS, TERMINAL, TERMINAL_STATES, Cursor, State, packet_tail
from jobcast.transports.base import Message, Outgoing, Retention, Snapshot, can_resume
from jobcast.transports.rooms import AsyncJobRooms, JobRooms

CHANNEL: Final = "jobcast"


class _Record:
    """A job's record, as ``publish.lua`` keeps it."""

    def __init__(self, owner: str | None, size: int) -> None:
        self.epoch = secrets.token_hex(8)
        self.seq = 0
        self.state: State = "pending"
        self.owner = owner
        self.progress: Message | None = None
        self.events: deque[Message] = deque(maxlen=size)
        self.expires_at = 0.0

    def add(self, outgoing: Outgoing, retention: Retention) -> Message | None:
        ended = self.state in TERMINAL_STATES
        begins = outgoing.state in ("queued", "started")
        if ended and not begins:
            return None
        if begins:
            self.progress = None
            if ended:
                self.events.clear()
        self.seq += 1
        message = Message(
            self.epoch, self.seq, outgoing.kind, outgoing.head + packet_tail(self.seq)
        )
        if outgoing.kind == PROGRESS:
            self.progress = message
        else:
            self.events.append(message)
        if outgoing.state is not None:
            self.state = outgoing.state
        ttl = retention.ttl if outgoing.kind == TERMINAL else retention.active_ttl
        self.expires_at = time.monotonic() + ttl
        return message

    def snapshot(self, after: Cursor | None) -> Snapshot:
        first = self.events[0].seq if self.events else 1
        recovered = can_resume(after, epoch=self.epoch, seq=self.seq, first=first)
        seen = after.seq if after is not None and recovered else 0
        kept = [*self.events, *([self.progress] if self.progress else [])]
        events = sorted((m for m in kept if m.seq > seen), key=lambda message: message.seq)
        return Snapshot(
            epoch=self.epoch,
            seq=self.seq,
            state=self.state,
            owner=self.owner,
            events=tuple(events),
            recovered=recovered,
        )


class MemoryBroker:
    """What stands in the place of a server; threads and event loops share it."""

    _brokers: ClassVar[dict[str, MemoryBroker]] = {}

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._records: dict[str, _Record] = {}
        self._sources: set[MemorySource] = set()

    @classmethod
    def at(cls, url: str) -> MemoryBroker:
        """The broker of a URL; ``memory://a`` and ``memory://b`` are two."""
        return cls._brokers.setdefault(urlsplit(url).netloc, cls())

    def publish(self, outgoing: Outgoing, retention: Retention) -> None:
        with self._lock:
            record = self._record(outgoing.job_id)
            if record is None:
                record = _Record(outgoing.owner, retention.size)
                self._records[outgoing.job_id] = record
            message = record.add(outgoing, retention)
            if message is not None:
                for source in self._sources:
                    source.hand_over(source.deliver, outgoing.job_id, message)

    def publish_bus(self, data: dict[str, Any]) -> None:
        with self._lock:
            for source in self._sources:
                source.hand_over(source.bus.put_nowait, data)

    def snapshot(self, job_id: str, after: Cursor | None) -> Snapshot:
        with self._lock:
            record = self._record(job_id)
            return Snapshot() if record is None else record.snapshot(after)

    def attach(self, source: MemorySource) -> None:
        with self._lock:
            self._sources.add(source)

    def detach(self, source: MemorySource) -> None:
        with self._lock:
            self._sources.discard(source)

    def _record(self, job_id: str) -> _Record | None:
        record = self._records.get(job_id)
        if record is not None and record.expires_at <= time.monotonic():
            del self._records[job_id]
            return None
        return record


class MemoryPublisher(JobRooms):
    """The worker's side."""

    def __init__(self, url: str = "memory://", *, retention: Retention | None = None) -> None:
        super().__init__(channel=CHANNEL, write_only=True)
        self._broker = MemoryBroker.at(url)
        self._retention = retention or Retention()

    def publish(self, batch: Sequence[Outgoing]) -> None:
        for outgoing in batch:
            self._broker.publish(outgoing, self._retention)

    def close(self) -> None:
        """There is nothing to let go of."""

    def _publish(self, data: dict[str, Any]) -> None:
        self._broker.publish_bus(data)


class MemorySource:
    """The realtime side."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker
        self._jobs: set[str] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.bus: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    @property
    def ready(self) -> bool:
        return self._loop is not None

    def start(
        self,
        on_message: Callable[[str, Message], None],
        on_resumed: Callable[[], Awaitable[None]],  # noqa: ARG002  (nothing interrupts memory)
    ) -> None:
        self._on_message = on_message
        self._loop = asyncio.get_running_loop()
        self._broker.attach(self)

    async def aclose(self) -> None:
        self._broker.detach(self)
        self._loop = None

    async def subscribe(self, job_id: str) -> None:
        self._jobs.add(job_id)

    async def unsubscribe(self, job_id: str) -> None:
        self._jobs.discard(job_id)

    async def snapshot(self, job_id: str, after: Cursor | None = None) -> Snapshot:
        return self._broker.snapshot(job_id, after)

    async def owner(self, job_id: str) -> str | None:
        return self._broker.snapshot(job_id, None).owner

    def hand_over(self, function: Callable[..., object], *args: object) -> None:
        """Run in this source's loop, from whichever thread, in the order of the calls."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(function, *args)

    def deliver(self, job_id: str, message: Message) -> None:
        if job_id in self._jobs:
            self._on_message(job_id, message)


class MemoryClientManager(AsyncJobRooms):
    """A client manager for ``AsyncServer``."""

    source: MemorySource

    name = "memory"

    def __init__(self, url: str = "memory://", *, retention: Retention | None = None) -> None:
        super().__init__(channel=CHANNEL)
        self._broker = MemoryBroker.at(url)
        self._retention = retention or Retention()
        self.source = MemorySource(self._broker)

    async def publish_event(self, outgoing: Outgoing) -> None:
        self._broker.publish(outgoing, self._retention)

    async def _publish(self, data: dict[str, Any]) -> None:
        self._broker.publish_bus(data)

    async def _listen(self) -> AsyncIterator[dict[str, Any]]:
        while True:
            yield await self.source.bus.get()
