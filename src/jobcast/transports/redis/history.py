"""The records of jobs in Redis: their states, their positions and their kept events."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any, Final, cast

from msgspec import structs

from jobcast.errors import TransportUnavailable
from jobcast.events import Cursor, JobInfo
from jobcast.transports.base import NO_RECORD, Snapshot, can_resume
from jobcast.transports.redis.batcher import ScriptBatcher
from jobcast.transports.redis.codec import parse_event, parse_info, parse_line, seq_before
from jobcast.transports.redis.lua import script
from jobcast.transports.redis.names import Keys, Names
from jobcast.transports.redis.servers import ASYNC_REDIS_ERRORS, AsyncClient

READ_SCRIPT: Final = script("read")


class History:
    """Reads the records of jobs.

    Args:
        client: a client in the running loop.
        batcher: runs the scripts of concurrent readers.
        names: the names of the keys.
    """

    def __init__(self, client: AsyncClient, batcher: ScriptBatcher, names: Names) -> None:
        self._client = client
        self._batcher = batcher
        self._names = names

    async def snapshot(self, job_id: str, after: Cursor | None) -> Snapshot:
        """Return the record of a job with the events after a cursor.

        Raises:
            TransportUnavailable: the store cannot be read.
        """
        keys, seen = self._names.of(job_id), 0 if after is None else after.seq
        try:
            found = await self._read(keys, seen)
            resumable = can_resume(
                after, epoch=found.epoch, seq=found.seq, complete_from=found.complete_from
            )
            if seen and not resumable:
                found = await self._read(keys, 0)
        except ASYNC_REDIS_ERRORS as exc:
            raise TransportUnavailable(f"could not read job {job_id}: {exc}") from exc
        return structs.replace(found, recovered=resumable)

    async def positions(self, job_ids: Sequence[str]) -> list[Cursor]:
        """Return the position of each record.

        Raises:
            TransportUnavailable: the store cannot be read.
        """
        pipeline = self._client.pipeline(transaction=False)
        for job_id in job_ids:
            pipeline.hmget(self._names.of(job_id).state, "epoch", "seq")
        try:
            answers = await pipeline.execute()
        except ASYNC_REDIS_ERRORS as exc:
            raise TransportUnavailable(f"could not read the positions of jobs: {exc}") from exc
        return [
            Cursor(epoch=epoch.decode(), seq=int(seq)) if epoch else Cursor(epoch=NO_RECORD, seq=0)
            for epoch, seq in answers
        ]

    async def info(self, job_id: str) -> JobInfo:
        """Return the description of a job, with its owner.

        Raises:
            TransportUnavailable: the store cannot be read.
        """
        try:
            info, owner = await cast(
                "Awaitable[list[bytes | None]]",
                self._client.hmget(self._names.of(job_id).state, "info", "owner"),
            )
        except ASYNC_REDIS_ERRORS as exc:
            raise TransportUnavailable(f"could not read job {job_id}: {exc}") from exc
        return parse_info(info, owner)

    async def _read(self, keys: Keys, seen: int) -> Snapshot:
        """Read the record, with its events after the seq ``seen``."""
        return snapshot_of(
            await self._batcher.eval(READ_SCRIPT, 2, keys.state, keys.lines, seen), seen
        )


def snapshot_of(answer: list[Any], seen: int) -> Snapshot:
    """Parse the answer of ``read.lua`` about the events after the seq ``seen``."""
    (epoch, seq, state, owner, info, progress, trimmed, logged), statuses, oldest, lines = answer
    if epoch is None:
        return Snapshot()
    record = epoch.decode()
    events = [parse_event(record, status) for status in statuses]
    events += [parse_line(record, entry) for entry in lines]
    if progress is not None:
        latest = parse_event(record, progress)
        events += [latest] if latest.seq > seen else []
    # Without a line, the stream was evicted or never had one.
    trimmed_line = seq_before(oldest[0]) if oldest else int(logged or 0)
    return Snapshot(
        epoch=record,
        seq=int(seq),
        state=state.decode(),
        info=parse_info(info, owner),
        events=tuple(sorted(events, key=lambda message: message.seq)),
        complete_from=max(int(trimmed or 0), trimmed_line) + 1,
    )
