"""Reads feeds, and repairs what differs from the records of their jobs."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Sequence
from typing import Any, Final, cast

from msgspec import structs

from jobcast.errors import TransportUnavailable
from jobcast.events import Cursor
from jobcast.feeds import JobSummary, feeds_of, newest_first
from jobcast.transports.base import FeedChange, FeedRemoval
from jobcast.transports.redis.batcher import AT_ONCE, ScriptBatcher
from jobcast.transports.redis.feed_scripts import FeedCalls, FeedEntry, RecordSummary, ScriptCall
from jobcast.transports.redis.history import History
from jobcast.transports.redis.refusals import is_caused_by_the_events
from jobcast.transports.redis.servers import ASYNC_REDIS_ERRORS, AsyncClient

POSITIONS_AT_ONCE: Final = 500  # jobs per round trip

logger = logging.getLogger(__name__)


class FeedReader:
    """Reads the feeds of jobs.

    Args:
        client: a client in the running loop.
        batcher: runs the scripts of concurrent readers.
        history: the records of the jobs.
        calls: composes the calls of scripts.
    """

    def __init__(
        self, client: AsyncClient, batcher: ScriptBatcher, history: History, calls: FeedCalls
    ) -> None:
        self._client = client
        self._batcher = batcher
        self._history = history
        self._calls = calls
        self._summary_ttl = calls.retention.summary_ttl

    async def read(self, feed: str) -> list[JobSummary]:
        """Return the jobs of a feed, the newest first, as their records have them.

        Raises:
            TransportUnavailable: the store cannot be read.
        """
        jobs: dict[str, JobSummary | None] = {}
        try:
            stored = await self._load(feed)
            for start in range(0, len(stored), POSITIONS_AT_ONCE):
                jobs |= await self._compare(feed, stored[start : start + POSITIONS_AT_ONCE])
        except ASYNC_REDIS_ERRORS as exc:
            raise TransportUnavailable(f"could not read the feed {feed}: {exc}") from exc
        return newest_first(job for job in jobs.values() if job and not self._is_over(job))

    async def _load(self, feed: str) -> list[JobSummary]:
        found = []
        for keys in self._calls.names.parts_of(feed):
            for text in await cast("Awaitable[list[bytes]]", self._client.hvals(keys.jobs)):
                try:
                    entry = FeedEntry.parse(text)
                except ValueError as exc:
                    logger.warning("ignored an invalid entry of %s: %s", keys.jobs, exc)
                else:
                    found += [] if entry.job is None else [entry.job]
        return found

    async def _compare(self, feed: str, jobs: Sequence[JobSummary]) -> dict[str, JobSummary | None]:
        """Return the jobs as their records have them, and None for those that leave the feed."""
        compared: dict[str, JobSummary | None] = {job.job_id: job for job in jobs}
        positions = await self._history.positions([job.job_id for job in jobs])
        outdated = [
            job for job, position in zip(jobs, positions, strict=True)
            if position != Cursor(epoch=job.epoch, seq=job.seq)
        ]  # fmt: skip
        # Other readers of this process take their turns between two round trips.
        for start in range(0, len(outdated), AT_ONCE):
            some = outdated[start : start + AT_ONCE]
            repaired = await asyncio.gather(*(self._repair(feed, job) for job in some))
            compared |= {job.job_id: now for job, now in zip(some, repaired, strict=True)}
        return compared

    async def _repair(self, feed: str, job: JobSummary) -> JobSummary | None:
        """Return a job as its record has it, None if it leaves the feed, and correct its feeds."""
        answer = await self._run(self._calls.summary(job.job_id))
        try:
            record = RecordSummary.parse(job.job_id, answer)
        except ValueError as exc:
            logger.warning("job %s: its record is invalid: %s", job.job_id, exc)
            return job
        if record is None:
            # An ended job outlives its record.
            if not job.has_ended:
                await self._correct(feed, job, FeedRemoval(job.job_id, job.epoch, job.seq))
            return job if job.has_ended else None
        now = record.job
        if feed not in feeds_of(now.info):
            await self._correct_all(feed, job, FeedRemoval(now.job_id, now.epoch, now.seq), record)
            return None
        if not _differ_in_progress_only(job, now):
            await self._correct_all(feed, job, now, record)
        elif now != _at(job, now):
            await self._correct(feed, job, now)
        return now

    async def _correct_all(
        self, feed: str, stored: JobSummary, change: FeedChange, record: RecordSummary
    ) -> None:
        """Correct a feed and all other feeds of a job: its writer may have died before all of them.

        The feed that was read comes last, so that the next reader repeats what failed.
        """
        others = [one for one in record.changes if one[0] != feed]
        written = await asyncio.gather(*(self._write(name, other) for name, other in others))
        if all(written):
            await self._correct(feed, stored, change)

    async def _correct(self, feed: str, stored: JobSummary, change: FeedChange) -> None:
        await self._write(feed, change, Cursor(epoch=stored.epoch, seq=stored.seq))

    async def _write(self, feed: str, change: FeedChange, expected: Cursor | None = None) -> bool:
        """Change a feed. Return False if another attempt may succeed."""
        try:
            await self._run(self._calls.write(feed, change, expected))
        except ASYNC_REDIS_ERRORS as exc:
            # A server that refuses writes can still be read.
            logger.debug("could not correct job %s in %s: %s", change.job_id, feed, exc)
            return is_caused_by_the_events(exc)
        return True

    async def _run(self, call: ScriptCall) -> Any:
        return await self._batcher.eval(call.script.text, len(call.keys), *call.keys, *call.argv)

    def _is_over(self, job: JobSummary) -> bool:
        """Return whether the job ended too long ago; the next change of the feed removes it."""
        ended_at = job.ended_at or job.created_at
        return job.has_ended and ended_at.timestamp() < time.time() - self._summary_ttl


def _at(job: JobSummary, other: JobSummary) -> JobSummary:
    """Return a job with the position of another summary."""
    return structs.replace(job, epoch=other.epoch, seq=other.seq)


def _differ_in_progress_only(job: JobSummary, other: JobSummary) -> bool:
    """Return whether two summaries of a job differ at most in position and progress."""
    shown = structs.replace(job, percentage=other.percentage, message=other.message)
    return _at(shown, other) == other
