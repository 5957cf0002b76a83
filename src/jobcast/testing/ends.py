"""Both ends of a transport, and the events that the contract tests publish."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final

import msgspec
from msgspec import Struct, structs

from jobcast.errors import PublishFailed
from jobcast.events import (
    Cursor,
    JobError,
    JobEvent,
    JobInfo,
    JobInfoUpdate,
    JobLog,
    JobProgress,
    JobStatus,
)
from jobcast.transports import (
    DEFAULT_PREFIX,
    NO_ORIGIN,
    ClientManager,
    Message,
    Origin,
    Outgoing,
    Retention,
    Snapshot,
    Source,
    TransportPublisher,
    open_manager,
    open_publisher,
)
from jobcast.transports.base import Required

TIMEOUT: Final = 30.0  # seconds; long enough for a loaded machine
KEPT: Final = Retention(ttl=60, size=100)


class Ends(Struct):
    """Both ends of a transport, and the messages received so far."""

    publisher: TransportPublisher
    manager: ClientManager
    url: str
    worker_url: str
    received: list[tuple[str, Message]]
    resumed: list[float]

    @property
    def source(self) -> Source:
        return self.manager.source

    async def publish(self, *events: JobEvent, origin: Origin = NO_ORIGIN, first: int = 0) -> None:
        """Publish events like a worker, numbered from ``first``, or without numbers if it is 0."""
        await asyncio.to_thread(self.publisher.publish, batch_of(events, origin, first))

    async def publish_with(self, info: JobInfo, *events: JobEvent, origin: Origin) -> None:
        """Publish events together, of which endings and retries have a description."""
        batch = [Outgoing.of(event, origin, info=info) for event in events]
        await asyncio.to_thread(self.publisher.publish, batch)

    async def publish_if(self, state: Required, event: JobEvent, origin: Origin) -> None:
        """Publish an event that requires the job to be in ``state``."""
        outgoing = Outgoing.of(event, origin, requires=state)
        await asyncio.to_thread(self.publisher.publish, [outgoing])

    async def publish_until_stored(self, *events: JobEvent, first: int) -> None:
        """Publish events until all are stored, as a worker does after an outage."""
        await publish_until_stored(self.publisher, batch_of(events, NO_ORIGIN, first))

    async def wait_received(self, count: int) -> list[Message]:
        """Wait until at least ``count`` messages are received, and return all of them."""
        await eventually(lambda: len(self.received) >= count, f"{count} messages")
        return [message for _, message in self.received]

    async def wait_stored(self, job_id: str, seq: int, after: Cursor | None = None) -> Snapshot:
        """Wait until the event ``seq`` is stored, and return the job's snapshot."""
        deadline = time.monotonic() + TIMEOUT
        while True:
            snapshot = await self.source.snapshot(job_id, after)
            if snapshot.seq >= seq:
                return snapshot
            assert time.monotonic() < deadline, f"the store has {snapshot.seq} events, not {seq}"
            await asyncio.sleep(0.02)


def batch_of(events: Sequence[JobEvent], origin: Origin, first: int) -> list[Outgoing]:
    """Encode events, numbered from ``first``, or without numbers if it is 0."""
    return [
        Outgoing.of(event, origin, first and first + place) for place, event in enumerate(events)
    ]


async def publish_until_stored(publisher: TransportPublisher, batch: Sequence[Outgoing]) -> None:
    """Publish events until all are stored, or fail after ``TIMEOUT``."""
    deadline = time.monotonic() + TIMEOUT
    while True:
        try:
            await asyncio.to_thread(publisher.publish, batch)
        except PublishFailed as exc:
            if time.monotonic() > deadline:
                raise
            batch = exc.unsent
            await asyncio.sleep(0.05)
        else:
            return


async def eventually(condition: Callable[[], object], expected: str) -> None:
    """Wait until the condition is true, or fail after ``TIMEOUT``."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, f"no {expected} within {TIMEOUT:.0f} s"
        await asyncio.sleep(0.02)


def new_job_id() -> str:
    """Return a job id that no other test uses."""
    return f"contract-{secrets.token_hex(6)}"


def log(job_id: str, message: object = "hello") -> JobLog:
    """Return a log line with the level ``info``."""
    return JobLog(job_id=job_id, level="info", message=str(message))


def progress(job_id: str, percentage: float) -> JobProgress:
    """Return a progress event, with a percentage from 0 to 100."""
    return JobProgress(job_id=job_id, percentage=percentage)


def queued(job_id: str) -> JobStatus:
    """Return the event of a job that has been sent."""
    return JobStatus(job_id=job_id, status="queued")


def started(job_id: str, attempt: int = 1) -> JobStatus:
    """Return the event of a run that begins; attempts count from 1."""
    return JobStatus(job_id=job_id, status="started", attempt=attempt)


def described(event: JobStatus, **fields: Any) -> JobStatus:
    """Return a status with fields of the job's description."""
    return structs.replace(event, **fields)


def retitled(job_id: str, **fields: Any) -> JobInfoUpdate:
    """Return the event of a job with another title or further tags."""
    return JobInfoUpdate(job_id=job_id, **fields)


def retrying(job_id: str, attempt: int) -> JobStatus:
    """Return the event of a job that waits for its next attempt."""
    return JobStatus(job_id=job_id, status="retrying", attempt=attempt)


def failed(job_id: str) -> JobError:
    """Return the event of a job that has failed."""
    return JobError(job_id=job_id, error="Late", message="", reason="failure")


Test = Callable[[Any, Ends, str], Awaitable[None]]


def on_both_ends(test: Test) -> Callable[[Any, str, str], None]:
    """Turn a coroutine into a test that needs no asyncio plugin."""

    def run(self: Any, transport_url: str, worker_url: str) -> None:
        asyncio.run(_run(test, self, transport_url, worker_url))

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


async def _run(test: Test, self: Any, url: str, worker_url: str) -> None:
    async with both_ends(url, worker_url, DEFAULT_PREFIX) as ends:
        await test(self, ends, new_job_id())


@asynccontextmanager
async def both_ends(url: str, worker_url: str, prefix: str) -> AsyncIterator[Ends]:
    """Open both ends of the transport, and close them on exit."""
    publisher = open_publisher(worker_url, KEPT, prefix=prefix)
    manager = open_manager(url, KEPT, prefix=prefix)
    ends = Ends(publisher, manager, url, worker_url, [], [])

    async def resumed() -> None:
        ends.resumed.append(time.monotonic())

    manager.source.start(lambda job_id, message: ends.received.append((job_id, message)), resumed)
    try:
        await eventually(lambda: manager.source.ready, "source that is ready")
        yield ends
    finally:
        await manager.aclose()
        publisher.close()


def other_deployment(ends: Ends) -> AbstractAsyncContextManager[Ends]:
    """Return both ends of another deployment on the same server.

    Its prefix begins with the first deployment's prefix, to detect patterns that match both.
    """
    prefix = f"{DEFAULT_PREFIX}:contract-{secrets.token_hex(6)}"
    return both_ends(ends.url, ends.worker_url, prefix)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until the asynchronous condition is true, or fail after ``TIMEOUT``."""
    deadline = time.monotonic() + TIMEOUT
    while not await condition():
        assert time.monotonic() < deadline, f"the condition was not met in {TIMEOUT:.0f} s"
        # A condition about data in this process does not suspend, so nothing else would run.
        await asyncio.sleep(0.02)


def number_of(message: Message) -> int | None:
    """Return the run number in a message about a started run, or None."""
    _, _, rest = message.packet.partition(',"run":')
    return int(rest.removesuffix("}]")) if rest else None


def attempt_of(message: Message) -> int | None:
    """Return the attempt in a late log line, or None."""
    _, _, rest = message.packet.partition(',"attempt":')
    return int(rest.removesuffix("}]")) if rest else None


def title_and_tags_of(message: Message) -> tuple[str | None, list[str] | None]:
    """Return the title and the tags of a ``job_info`` event."""
    _, payload = msgspec.json.decode(message.packet[2:], type=tuple[str, dict[str, Any]])
    return payload.get("title"), payload.get("tags")


def line_of(message: Message) -> str:
    """Return the text of a log line."""
    _, _, rest = message.packet.partition('"message":"')
    return rest.partition('"')[0]
