"""An event stream (``text/event-stream``): the queue, the writer and the end of it."""

from __future__ import annotations

import asyncio
import logging
from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from jobcast.aio import RANDOM, cancel_and_wait
from jobcast.realtime import metrics
from jobcast.realtime.connection.budget import Budget
from jobcast.realtime.connection.frames import FrameBatch
from jobcast.realtime.connection.http_response import HttpResponse
from jobcast.realtime.connection.screening import Disconnected
from jobcast.realtime.connection.send_queue import SendMemory, SendQueue
from jobcast.realtime.http.connection import HttpConnection
from jobcast.settings import Settings
from jobcast.tokens import Subject
from jobcast.transports.base import Message

HEARTBEAT: Final = 15.0  # seconds without an event until a comment; proxies wait for a minute
COMMENT: Final = b":\n\n"
CHUNK: Final = 64 * 1024  # bytes that are written at once, which cannot be conflated
RETRY: Final = (1000, 3000)  # milliseconds; spread, so that not all clients return at once

logger = logging.getLogger(__name__)


class Event(NamedTuple):
    """A message with its lines. ``job_id`` is None for a message that belongs to no job."""

    lines: bytes
    message: Message
    job_id: str | None


class EventQueue(SendQueue[Event]):
    """The events that one stream has yet to write.

    Args:
        on_overflow: closes the stream; called once, with the number of queued bytes.
        limit: the maximum number of queued bytes.
        memory: the memory limit for all connections.
    """

    __slots__ = ("_on_overflow",)

    def __init__(self, on_overflow: Callable[[int], None], limit: int, memory: SendMemory) -> None:
        super().__init__(limit, memory)
        self._on_overflow = on_overflow

    def take(self) -> list[Event]:
        """Remove and return the oldest events, of about ``CHUNK`` bytes together."""
        events: list[Event] = []
        size = 0
        while not self.is_empty and size < CHUNK:
            events.append(self._pop())
            size += len(events[-1].lines)
        return events

    def _overflow(self, pending: int) -> None:
        self._on_overflow(pending)

    def _size(self, packet: Event) -> int:
        return len(packet.lines)


class EventStream(HttpConnection):
    """A response that writes events until it is complete or its client disconnects.

    Args:
        sid: the id of the connection.
        subject: the client's subject.
        budget: the subject's budget.
        address: the client's address.
        response: the response to write to.
        settings: the limits.
        memory: the memory limit for all connections.
    """

    __slots__ = ("_is_gone", "_is_idle", "_queue", "_response")

    def __init__(
        self,
        sid: str,
        subject: Subject,
        budget: Budget,
        address: str,
        *,
        response: HttpResponse,
        settings: Settings,
        memory: SendMemory,
    ) -> None:
        super().__init__(sid, subject, budget, address)
        self._response = response
        self._queue = EventQueue(self._overflowed, settings.send_buffer, memory)
        self._is_gone = False
        self._is_idle = False  # whether the writer waits, or has had no turn since

    @property
    def closed(self) -> bool:
        return self.ended or self._is_gone or self._is_releasing

    @property
    @abstractmethod
    def is_complete(self) -> bool:
        """Whether no further event follows those in the queue."""

    @property
    def waiting(self) -> int:
        return self._queue.pending

    async def drained(self) -> None:
        await self._queue.drained()

    def abort(self) -> None:
        self.close()
        self._response.abort()
        self._changed.set()

    def close(self) -> None:
        """Stop queueing events, and discard those that are queued."""
        self._is_gone = True
        self._queue.discard()

    async def serve(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Write the stream until it ends or the client disconnects."""
        watching = asyncio.create_task(self._watch())
        try:
            await self._response.start(200, list(headers))
            await self._response.write(f"retry: {RANDOM.randint(*RETRY)}\n\n".encode())
            await self._write_all()
        except TimeoutError:
            if not self._is_gone:
                logger.info("cut %s: the client does not read (JOBCAST_SEND_TIMEOUT)", self.sid)
                metrics.CUT.inc()
                self.abort()
        except Disconnected as exc:
            logger.debug("%s is already closed: %r", self.sid, exc.__cause__)
        finally:
            self.close()
            await cancel_and_wait(watching)

    async def _write_all(self) -> None:
        while not self._is_gone:
            if not self._queue.is_empty:
                await self._response.write(self._encode(self._queue.take()))
            elif self._is_releasing or self.is_complete:
                await self._response.finish()
                return
            elif not await self._arrived():
                await self._response.write(COMMENT)

    async def _arrived(self) -> bool:
        """Wait until something has changed. Return False if the heartbeat is due."""
        self._changed.clear()
        self._is_idle = True
        try:
            async with asyncio.timeout(HEARTBEAT):
                await self._changed.wait()
        except TimeoutError:
            return False
        finally:
            self._is_idle = False
        return True

    async def _watch(self) -> None:
        await self._response.disconnected()
        self._is_gone = True
        self._changed.set()

    def _encode(self, events: Iterable[Event]) -> bytes:
        return b"".join([part for event in events for part in (event.lines, self._end(event))])

    def _end(self, event: Event) -> bytes:  # noqa: ARG002  (streams of jobs have ids)
        """Return the lines that end an event, when it is written."""
        return b"\n"

    def _follow(self, job_id: str | None, message: Message) -> None:
        """Apply the changes that a queued message causes."""

    def _send(self, batch: FrameBatch) -> None:
        if self.closed:
            return
        events = self._events(batch)
        if self._is_idle:
            self._queue.offer_burst(events, batch.values)
            return
        for event, value in zip(events, batch.values, strict=True):
            self._queue.offer(event, value)

    def _send_history(self, batch: FrameBatch) -> None:
        if not self.closed:
            self._queue.offer_history(self._events(batch))

    def _events(self, batch: FrameBatch) -> list[Event]:
        for message in batch.messages:
            self._follow(batch.job_id, message)
        self._changed.set()
        return [
            Event(lines, message, batch.job_id)
            for lines, message in zip(batch.events, batch.messages, strict=True)
        ]

    def _overflowed(self, pending: int) -> None:
        logger.warning(
            "cut %s: the client reads too slowly; %d bytes waited (JOBCAST_SEND_BUFFER,"
            " JOBCAST_SEND_MEMORY)", self.sid, pending,
        )  # fmt: skip
        self.abort()
