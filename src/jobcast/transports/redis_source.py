"""Redis and Valkey, the realtime side: the channels of the jobs that are followed, and history."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from itertools import islice
from typing import Any, Final, cast

import redis.asyncio
import socketio
from redis.exceptions import RedisError

from jobcast.errors import TransportUnavailable
from jobcast.events import Cursor, Kind, State
from jobcast.transports.base import Message, Outgoing, Retention, Snapshot, can_resume
from jobcast.transports.redis import (
    CHANNEL,
    PUBLISH_SCRIPT,
    Keys,
    client_options,
    publish_arguments,
    redis_url,
)
from jobcast.transports.rooms import AsyncJobRooms

SUBSCRIBE_BATCH: Final = 500  # channels a command
SUBSCRIBE_TIMEOUT: Final = 5.0  # seconds, until a subscription has to be confirmed
PING_INTERVAL: Final = 15.0  # seconds of silence, after which the server is asked whether it lives
FIRST_DELAY: Final = 0.05  # seconds before the first try to reconnect
LONGEST_DELAY: Final = 3.0  # seconds between two tries

logger = logging.getLogger(__name__)


class RedisSource:
    """One connection for all channels, supervised: it comes back by itself, and says so."""

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        self.client = redis.asyncio.Redis.from_url(redis_url(url), **client_options(options))
        # Its reads last until something is published; the keep-alive bounds them instead.
        self._pool = redis.asyncio.ConnectionPool.from_url(
            redis_url(url), **client_options(options) | {"socket_timeout": None, "protocol": 2}
        )
        self._connection: redis.asyncio.Connection | None = None
        self._jobs: dict[str, str] = {}  # channel: job id
        self._unconfirmed: set[str] = set()
        self._confirmations: defaultdict[str, deque[asyncio.Future[None]]] = defaultdict(deque)
        self._online = asyncio.Event()
        self._heard = False
        self._supervisor: asyncio.Task[None] | None = None
        self._resuming: set[asyncio.Task[None]] = set()
        self.bus: asyncio.Queue[bytes] = asyncio.Queue()

    @property
    def ready(self) -> bool:
        return self._online.is_set()

    def start(
        self,
        on_message: Callable[[str, Message], None],
        on_resumed: Callable[[], Awaitable[None]],
    ) -> None:
        self._on_message = on_message
        self._on_resumed = on_resumed
        self._supervisor = asyncio.create_task(self._supervise(), name="jobcast-redis-source")

    async def aclose(self) -> None:
        tasks = [task for task in (self._supervisor, *self._resuming) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._supervisor = None
        await self.client.aclose()
        await self._pool.aclose()

    async def subscribe(self, job_id: str) -> None:
        channel = Keys.of(job_id).channel
        self._jobs[channel] = job_id
        confirmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(SUBSCRIBE_TIMEOUT):
                await self._online.wait()
                self._confirmations[channel].append(confirmed)
                await self._send("SUBSCRIBE", channel)
                await confirmed
        except (TimeoutError, RedisError, OSError, TransportUnavailable) as exc:
            raise TransportUnavailable(f"could not subscribe to {channel}: {exc!r}") from exc

    async def unsubscribe(self, job_id: str) -> None:
        channel = Keys.of(job_id).channel
        self._jobs.pop(channel, None)
        if self.ready:
            try:
                await self._send("UNSUBSCRIBE", channel)
            except (RedisError, OSError, TransportUnavailable) as exc:
                # The connection is lost and with it the subscription; the supervisor knows.
                logger.debug("unsubscribing from %s: %s", channel, exc)

    async def snapshot(self, job_id: str, after: Cursor | None = None) -> Snapshot:
        keys = Keys.of(job_id)
        since = f"({after.seq}-0" if after is not None else "-"
        try:
            record, first, entries = await self._read(keys, since)
            resumable = can_resume(after, epoch=record.epoch, seq=record.seq, first=first)
            if after is not None and not resumable:
                record, first, entries = await self._read(keys, "-")
        except (RedisError, OSError) as exc:
            raise TransportUnavailable(f"could not read job {job_id}: {exc}") from exc
        seen = after.seq if after is not None and resumable else 0
        events = [
            Message(record.epoch, int(id_.partition(b"-")[0]), cast("Kind", _text(fields[b"k"])),
                    _text(fields[b"p"]))
            for id_, fields in entries
        ]  # fmt: skip
        events += [progress for progress in record.events if progress.seq > seen]
        return Snapshot(
            epoch=record.epoch,
            seq=record.seq,
            state=record.state,
            owner=record.owner,
            events=tuple(sorted(events, key=lambda message: message.seq)),
            recovered=resumable,
        )

    async def owner(self, job_id: str) -> str | None:
        try:
            owner = await cast(
                "Awaitable[bytes | None]", self.client.hget(Keys.of(job_id).state, "owner")
            )
        except (RedisError, OSError) as exc:
            raise TransportUnavailable(f"could not read job {job_id}: {exc}") from exc
        return None if owner is None else _text(owner)

    async def _read(
        self, keys: Keys, since: str
    ) -> tuple[Snapshot, int, list[tuple[bytes, dict[bytes, bytes]]]]:
        """The record with its latest progress, the oldest entry's seq, and the entries."""
        pipeline = self.client.pipeline(transaction=True)
        pipeline.hmget(keys.state, "epoch", "seq", "state", "owner", "progress")
        pipeline.xrange(keys.events, count=1)
        pipeline.xrange(keys.events, min=since)
        (epoch, seq, state, owner, progress), oldest, entries = await pipeline.execute()
        if epoch is None:
            return Snapshot(), 1, []
        latest: tuple[Message, ...] = ()
        if progress is not None:
            number, _, packet = _text(progress).partition(" ")
            latest = (Message(_text(epoch), int(number), "p", packet),)
        record = Snapshot(
            epoch=_text(epoch),
            seq=int(seq),
            state=cast("State", _text(state)),
            owner=None if owner is None else _text(owner),
            events=latest,
        )
        first = int(oldest[0][0].partition(b"-")[0]) if oldest else 1
        return record, first, entries

    async def _supervise(self) -> None:
        interrupted, failures = False, 0
        while True:
            try:
                await self._receive(interrupted)
            except (RedisError, OSError) as exc:
                was_online = self.ready
                self._disconnected(exc)
                failures = 1 if was_online else failures + 1
                if failures == 1:
                    logger.warning("the connection to Redis is down: %s", exc)
            except Exception as exc:
                # Whatever it is, to hear nothing from here on would be worse.
                self._disconnected(exc)
                failures += 1
                logger.exception("receiving from Redis failed")
            interrupted = True
            # Full jitter: processes that lost the same server do not return at once.
            ceiling = min(LONGEST_DELAY, FIRST_DELAY * 2 ** min(failures, 10))
            await asyncio.sleep(random.uniform(FIRST_DELAY / 2, ceiling))

    async def _receive(self, interrupted: bool) -> None:
        connection = self._pool.make_connection()  # type: ignore[no-untyped-call]
        keep_alive: asyncio.Task[None] | None = None
        try:
            await connection.connect()
            self._connection = connection
            channels = [CHANNEL, *self._jobs]
            self._unconfirmed = set(channels)
            remaining = iter(channels)
            while batch := list(islice(remaining, SUBSCRIBE_BATCH)):
                await self._send("SUBSCRIBE", *batch)
            keep_alive = asyncio.create_task(self._keep_alive(connection))
            while True:
                self._dispatch(await connection.read_response(), interrupted)
        finally:
            self._connection = None
            if keep_alive is not None:
                keep_alive.cancel()
            await connection.disconnect(nowait=True)

    def _dispatch(self, answer: list[Any], interrupted: bool) -> None:
        self._heard = True
        match answer:
            case [b"message", channel, data]:
                self._deliver(_text(channel), data)
            case [b"subscribe", channel, _]:
                self._confirm(_text(channel), interrupted)

    def _deliver(self, channel: str, data: bytes) -> None:
        if channel == CHANNEL:
            self.bus.put_nowait(data)
        elif (job_id := self._jobs.get(channel)) is not None:
            try:
                epoch, seq, kind, packet = _text(data).split(" ", 3)
                message = Message(epoch, int(seq), cast("Kind", kind), packet)
            except ValueError:
                logger.warning("something else than jobcast publishes to %s", channel)
            else:
                self._on_message(job_id, message)

    def _confirm(self, channel: str, interrupted: bool) -> None:
        waiting = self._confirmations.get(channel)
        if waiting:
            confirmed = waiting.popleft()
            if not waiting:
                del self._confirmations[channel]
            if not confirmed.done():
                confirmed.set_result(None)
        self._unconfirmed.discard(channel)
        if not self._unconfirmed and not self.ready:
            self._online.set()
            logger.info("receiving from Redis")
            if interrupted:
                task = asyncio.ensure_future(self._on_resumed())
                self._resuming.add(task)
                task.add_done_callback(self._resuming.discard)

    def _disconnected(self, exc: Exception) -> None:
        self._online.clear()
        for waiting in self._confirmations.values():
            for confirmed in waiting:
                if not confirmed.done():
                    confirmed.set_exception(TransportUnavailable(str(exc)))
        self._confirmations.clear()

    async def _keep_alive(self, connection: redis.asyncio.Connection) -> None:
        """Find out that the other end is gone although nobody said so."""
        try:
            while await self._hears(PING_INTERVAL) or await self._answers():
                pass
            logger.warning("Redis did not answer for %d s", PING_INTERVAL)
        finally:
            # The reader fails of it, and the supervisor does the rest.
            await connection.disconnect(nowait=True)

    async def _hears(self, seconds: float) -> bool:
        self._heard = False
        await asyncio.sleep(seconds)
        return self._heard

    async def _answers(self) -> bool:
        try:
            await self._send("PING")
        except (RedisError, OSError, TransportUnavailable):
            return False
        return await self._hears(PING_INTERVAL)

    async def _send(self, *command: str) -> None:
        if self._connection is None:
            raise TransportUnavailable("not connected to Redis")
        await self._connection.send_packed_command(
            self._connection.pack_command(*command), check_health=False
        )


class RedisClientManager(AsyncJobRooms, socketio.AsyncRedisManager):
    """A ``socketio.AsyncRedisManager`` with a :class:`RedisSource` for the jobs' events."""

    source: RedisSource

    def __init__(
        self,
        url: str = "redis://localhost:6379/0",
        *,
        retention: Retention | None = None,
        redis_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(
            redis_url(url), channel=CHANNEL, redis_options=client_options(redis_options)
        )
        self.source = RedisSource(url, redis_options)
        self._retention = retention or Retention()
        self._script: Any = None

    async def publish_event(self, outgoing: Outgoing) -> None:
        client = self.source.client
        if self._script is None:
            self._script = client.register_script(PUBLISH_SCRIPT)
        try:
            await self._script(*publish_arguments(outgoing, self._retention))
        except (RedisError, OSError) as exc:
            raise TransportUnavailable(str(exc)) from exc

    def _redis_connect(self) -> None:
        # One pool of connections for everything that is written.
        self.redis = self.source.client
        self.connected = True

    async def _listen(self) -> AsyncIterator[bytes]:
        # python-socketio's own listener would hold a second connection, and back off for a minute.
        while True:
            yield await self.source.bus.get()


def _text(data: bytes) -> str:
    return data.decode()
