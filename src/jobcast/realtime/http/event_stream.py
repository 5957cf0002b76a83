"""The events of jobs as an event stream (``text/event-stream``)."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

import msgspec

from jobcast.aio import cancel_and_wait
from jobcast.events import STATUS, TERMINAL, TERMINAL_STATES, Cursor, Joined
from jobcast.realtime import metrics
from jobcast.realtime.connection.budget import Budget
from jobcast.realtime.connection.frames import FrameBatch
from jobcast.realtime.connection.http_response import HttpResponse
from jobcast.realtime.connection.screening import Disconnected
from jobcast.realtime.connection.send_queue import SendMemory, SendQueue
from jobcast.realtime.http.connection import HttpConnection
from jobcast.realtime.http.request import format_cursor
from jobcast.settings import Settings
from jobcast.tokens import Subject
from jobcast.transports.base import Message

HEARTBEAT: Final = 15.0  # seconds without an event until a comment; proxies wait for a minute
COMMENT: Final = b":\n\n"
CHUNK: Final = 64 * 1024  # bytes that are written at once, which cannot be conflated
RETRY: Final = (1000, 3000)  # milliseconds; spread, so that not all clients return at once
JOINED: Final = f'42["{Joined.name}",'

logger = logging.getLogger(__name__)


class Event(NamedTuple):
    """A message of a job, with its lines. ``job_id`` is None for a message about the connection."""

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
    """A stream of the events of jobs, which ends when all of the jobs have ended.

    The id of an event has the position of each job after this event, so that a client can resume
    all of them. It is computed when the event is written: it never passes an event that waits.

    Args:
        sid: the id of the connection.
        subject: the client's subject.
        budget: the subject's budget.
        address: the client's address.
        cursors: the jobs, in the order of the URL, each with the client's position.
        response: the response to write to.
        settings: the limits.
        memory: the memory limit for all connections.
    """

    __slots__ = (
        "_cursors",
        "_is_gone",
        "_is_idle",
        "_open_jobs",
        "_queue",
        "_response",
        "has_events",
    )

    def __init__(
        self,
        sid: str,
        subject: Subject,
        budget: Budget,
        address: str,
        *,
        cursors: dict[str, Cursor | None],
        response: HttpResponse,
        settings: Settings,
        memory: SendMemory,
    ) -> None:
        super().__init__(sid, subject, budget, address)
        self._cursors = dict(cursors)
        self._open_jobs = set(cursors)  # jobs that have not ended, as far as was queued
        self._response = response
        self._queue = EventQueue(self._overflowed, settings.send_buffer, memory)
        self.has_events = False  # whether a job event was queued
        self._is_gone = False
        self._is_idle = False  # whether the writer waits, or has had no turn since

    @property
    def closed(self) -> bool:
        return self.ended or self._is_gone or self._is_releasing

    @property
    def is_complete(self) -> bool:
        """Whether every job has ended."""
        return not self._open_jobs

    async def drained(self) -> None:
        await self._queue.drained()

    async def left(self, job_id: str) -> None:
        self._close_job(job_id)

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
            await self._response.write(f"retry: {random.randint(*RETRY)}\n\n".encode())
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

    def _end(self, event: Event) -> bytes:
        """Return the id and the final line of an event, and move the position of its job.

        The id comes last: a client that is cut off within an event does not have its id.
        """
        message = event.message
        if event.job_id is None or not message.seq:
            return b"\n"
        self._cursors[event.job_id] = Cursor(epoch=message.epoch, seq=message.seq)
        return f"id: {','.join(map(format_cursor, self._cursors.values()))}\n\n".encode()

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
            self.has_events = self.has_events or message.seq > 0
            self._follow(batch.job_id, message)
        self._changed.set()
        return [
            Event(lines, message, batch.job_id)
            for lines, message in zip(batch.events, batch.messages, strict=True)
        ]

    def _follow(self, job_id: str | None, message: Message) -> None:
        """Note whether a job has ended, after a message of it."""
        if job_id is None:
            return
        if message.packet.startswith(JOINED):
            _, joined = msgspec.json.decode(message.packet[2:], type=tuple[str, dict[str, Any]])
            self._set_ended(job_id, ended=joined["status"] in TERMINAL_STATES)
        elif message.seq and message.kind in (STATUS, TERMINAL):
            self._set_ended(job_id, ended=message.kind == TERMINAL)

    def _set_ended(self, job_id: str, *, ended: bool) -> None:
        if ended:
            self._open_jobs.discard(job_id)
        else:
            self._open_jobs.add(job_id)

    def _close_job(self, job_id: str) -> None:
        self._open_jobs.discard(job_id)
        self._changed.set()

    def _overflowed(self, pending: int) -> None:
        logger.warning(
            "cut %s: the client reads too slowly; %d bytes waited (JOBCAST_SEND_BUFFER,"
            " JOBCAST_SEND_MEMORY)", self.sid, pending,
        )  # fmt: skip
        self.abort()
