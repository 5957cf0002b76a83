"""The records of jobs in Redis: their states, their positions and their kept events."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any, Final, cast

from jobcast.errors import TransportUnavailable
from jobcast.events import Cursor
from jobcast.transports.base import NO_RECORD, Message, Snapshot, can_resume
from jobcast.transports.redis.batcher import ScriptBatcher
from jobcast.transports.redis.codec import parse_entry, parse_progress, seq_of
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
        keys = self._names.of(job_id)
        since = f"({after.seq}-0" if after is not None else "-"
        try:
            record, first, entries = await self._read(keys, since)
            resumable = can_resume(after, epoch=record.epoch, seq=record.seq, first=first)
            if after is not None and not resumable:
                record, first, entries = await self._read(keys, "-")
        except ASYNC_REDIS_ERRORS as exc:
            raise TransportUnavailable(f"could not read job {job_id}: {exc}") from exc
        seen = after.seq if after is not None and resumable else 0
        events = [parse_entry(record.epoch, entry) for entry in entries]
        events += [progress for progress in record.events if progress.seq > seen]
        return Snapshot(
            epoch=record.epoch,
            seq=record.seq,
            state=record.state,
            owner=record.owner,
            events=tuple(sorted(events, key=lambda message: message.seq)),
            recovered=resumable,
        )

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

    async def owner(self, job_id: str) -> str | None:
        """Return the owner of a job; None if it has none or there is no record.

        Raises:
            TransportUnavailable: the store cannot be read.
        """
        try:
            owner = await cast(
                "Awaitable[bytes | None]", self._client.hget(self._names.of(job_id).state, "owner")
            )
        except ASYNC_REDIS_ERRORS as exc:
            raise TransportUnavailable(f"could not read job {job_id}: {exc}") from exc
        return None if owner is None else owner.decode()

    async def _read(self, keys: Keys, since: str) -> tuple[Snapshot, int, list[Any]]:
        """Read the record with its latest progress, the first kept seq, and the entries."""
        answer = await self._batcher.eval(READ_SCRIPT, 2, keys.state, keys.events, since)
        (epoch, seq, state, owner, progress, logged), oldest, entries = answer
        if epoch is None:
            return Snapshot(), 1, []
        latest: tuple[Message, ...] = ()
        if progress is not None:
            latest = (parse_progress(epoch.decode(), progress),)
        record = Snapshot(
            epoch=epoch.decode(),
            seq=int(seq),
            state=state.decode(),
            owner=None if owner is None else owner.decode(),
            events=latest,
        )
        # If the stream was evicted, it had the entries up to ``logged``.
        first = seq_of(oldest[0]) if oldest else int(logged or 0) + 1
        return record, first, entries
