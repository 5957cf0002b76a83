"""The stored events of a job that a worker in another process runs."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import msgspec
from msgspec import UNSET

from jobcast.events import (
    TERMINAL_STATES,
    JobEvent,
    JobInfo,
    JobInfoUpdate,
    JobStatus,
    parse_event,
)
from jobcast.settings import Settings
from jobcast.transports import Message, Source, open_manager
from jobcast.transports.cancellation import Cancellation, SupportsCancellation

PAUSE: Final = 0.05  # seconds between two reads


def read_ended_job(settings: Settings, job_id: str, timeout: float) -> list[JobEvent]:
    """Return the stored events of a job when it has ended, or after ``timeout`` seconds."""
    # In a thread of its own, because the caller may have an event loop.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, _read(settings, job_id, timeout)).result()


def cancel_stored_job(settings: Settings, cancellation: Cancellation, timeout: float) -> str:
    """Cancel a job and return the outcome. Wait until the job is stored, for a bounded time.

    Raises:
        TypeError: the transport cannot cancel jobs.
    """
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, _cancel(settings, cancellation, timeout)).result()


async def _cancel(settings: Settings, cancellation: Cancellation, timeout: float) -> str:
    manager = open_manager(settings.url, settings.retention, prefix=settings.prefix)
    deadline = asyncio.get_running_loop().time() + timeout
    try:
        source = manager.source
        if not isinstance(source, SupportsCancellation):
            raise TypeError("the transport of JOBCAST_URL cannot cancel jobs")
        while True:
            outcome = (await source.cancel(cancellation)).outcome
            if outcome != "job_not_found" or asyncio.get_running_loop().time() > deadline:
                return outcome
            await asyncio.sleep(PAUSE)
    finally:
        await manager.aclose()


async def _read(settings: Settings, job_id: str, timeout: float) -> list[JobEvent]:
    manager = open_manager(settings.url, settings.retention, prefix=settings.prefix)
    deadline = asyncio.get_running_loop().time() + timeout
    try:
        return await _read_until(manager.source, job_id, deadline)
    finally:
        await manager.aclose()


async def _read_until(source: Source, job_id: str, deadline: float) -> list[JobEvent]:
    while True:
        snapshot = await source.snapshot(job_id)
        late = asyncio.get_running_loop().time() > deadline
        if late or snapshot.state in TERMINAL_STATES:
            return _with_description(list(map(_decode, snapshot.events)), job_id, snapshot.info)
        await asyncio.sleep(PAUSE)


def _with_description(events: list[JobEvent], job_id: str, info: JobInfo) -> list[JobEvent]:
    """Return the events with one for the changes of the title and the tags.

    The history has no info events; the record has their sum. The event follows the latest status.
    """
    if not (info.title or info.tags):
        return events
    update = JobInfoUpdate(job_id=job_id, title=info.title or UNSET, tags=info.tags)
    place = max((n for n, event in enumerate(events, 1) if isinstance(event, JobStatus)), default=0)
    return [*events[:place], update, *events[place:]]


def _decode(message: Message) -> JobEvent:
    # The first two characters of a packet are the types of Engine.IO and Socket.IO.
    name, payload = msgspec.json.decode(message.packet[2:], type=tuple[str, Any])
    return parse_event(name, payload)
