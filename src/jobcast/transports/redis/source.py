"""The server side of the Redis transport: the channels of followed jobs."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from redis.asyncio.cluster import RedisCluster
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from jobcast.aio import BackgroundTasks, Backoff, LoopChange, cancel_and_wait
from jobcast.errors import TransportUnavailable
from jobcast.events import Cursor, JobInfo
from jobcast.feeds import JobSummary
from jobcast.transports.base import FeedChange, Message, Outgoing, Retention, Snapshot
from jobcast.transports.canary import Canary, NotReceiving
from jobcast.transports.cancellation import CancelAnswer, Cancellation
from jobcast.transports.leases import Finding, LeaseTimeouts
from jobcast.transports.prefix import DEFAULT_PREFIX
from jobcast.transports.redis.batcher import ScriptBatcher
from jobcast.transports.redis.canaries import canary_channels, node_name, send_canary
from jobcast.transports.redis.codec import parse_messages
from jobcast.transports.redis.feed_reader import FeedReader
from jobcast.transports.redis.feed_scripts import FeedCalls, parse_changes
from jobcast.transports.redis.history import History
from jobcast.transports.redis.leases import acknowledge_findings, scan_leases
from jobcast.transports.redis.names import Names
from jobcast.transports.redis.publisher import RedisPublisher
from jobcast.transports.redis.revocations import parse_revocation, read_revocations
from jobcast.transports.redis.servers import (
    REDIS_ERRORS,
    AsyncClient,
    Servers,
)
from jobcast.transports.redis.subscriber import Subscriber, close_all
from jobcast.transports.revocations import Revocation
from jobcast.transports.thread_calls import ThreadCalls

SUBSCRIBE_TIMEOUT: Final = 5.0  # seconds until a subscription has to be confirmed
CANCEL_TIMEOUT: Final = 5.0  # seconds that a request to cancel a job waits for earlier ones
MAX_CANCELLING: Final = 100  # requests to cancel jobs at a time
FIRST_DELAY: Final = 0.05  # seconds before the first attempt to reconnect
LONGEST_DELAY: Final = 3.0  # seconds between two attempts

logger = logging.getLogger(__name__)


class ChannelMoved(RedisError):
    """Another node of the cluster serves a channel now."""


class RedisSource:
    """Supervised subscriptions. After a lost connection, restores them and calls ``on_resumed``.

    There is one connection, or one for each master of a cluster. If one ends, all are replaced.

    Everything except the publisher belongs to the running loop, and is recreated in another loop.
    """

    def __init__(
        self,
        url: str,
        options: Mapping[str, Any] | None = None,
        retention: Retention | None = None,
        prefix: str = DEFAULT_PREFIX,
    ) -> None:
        self._names = Names(prefix)
        # This side publishes little, so the blocking publisher in a thread is enough.
        self._publisher = RedisPublisher(
            url, retention=retention, prefix=prefix, redis_options=options
        )
        self._calls = ThreadCalls()  # of the publisher
        self._servers = Servers.at(url, options)
        self._feed_calls = FeedCalls(self._names, retention or Retention(), self._servers.sharded)
        self._on_revocation: Callable[[Revocation], None] | None = None
        self._on_change: Callable[[str, FeedChange], None] | None = None
        self._change = LoopChange()
        self._create_loop_state()

    def _create_loop_state(self) -> None:
        """Create the state that belongs to one event loop."""
        self._client = self._servers.async_client()
        self._batcher = ScriptBatcher(self._client)
        self._history = History(self._client, self._batcher, self._names)
        self._feeds = FeedReader(self._client, self._batcher, self._history, self._feed_calls)
        self._subscribers: list[Subscriber] = []
        self._canaries: dict[str, str] = {}  # channel: the name of the subscriber that receives it
        self.canary = Canary(self._send_canary, lambda: self.ready)
        # By channel, what handles its messages.
        self._handlers: dict[str, Callable[[bytes], None]] = {}
        # Cluster only: the number of pending confirmations of SUNSUBSCRIBE for each channel. Any
        # other confirmation means that the slot of the channel has moved.
        self._unsubscribing: Counter[str] = Counter()
        self._unconfirmed: set[str] = set()
        self._confirmations: defaultdict[str, deque[asyncio.Future[None]]] = defaultdict(deque)
        self._cancelling = asyncio.Semaphore(MAX_CANCELLING)
        self._online = asyncio.Event()
        self._supervisor: asyncio.Task[None] | None = None
        self._resuming = BackgroundTasks()
        self.bus: asyncio.Queue[bytes] = asyncio.Queue()

    @property
    def client(self) -> AsyncClient:
        """The client for commands, in the running loop."""
        self._enter_loop()
        return self._client

    @property
    def history(self) -> History:
        """The records of jobs, read in the running loop."""
        self._enter_loop()
        return self._history

    def _enter_loop(self) -> None:
        if self._change.happened():
            self._create_loop_state()

    @property
    def ready(self) -> bool:
        return self._online.is_set()

    def start(
        self,
        on_message: Callable[[str, Message], None],
        on_resumed: Callable[[], Awaitable[None]],
    ) -> None:
        self._enter_loop()
        self._on_message = on_message
        self._on_resumed = on_resumed
        self._supervisor = asyncio.create_task(
            self._run(self._batcher, self._client), name="jobcast-redis-source"
        )

    async def aclose(self) -> None:
        self._enter_loop()
        supervisor = [] if self._supervisor is None else [self._supervisor]
        await cancel_and_wait(*supervisor)
        await self._resuming.cancel()
        self._supervisor = None
        self._disconnected(RedisConnectionError("the source is closed"))
        self._handlers.clear()
        await self._batcher.aclose()
        await self._servers.close(self.client)
        await self._calls.close(self._publisher.close)

    async def _run(self, batcher: ScriptBatcher, client: AsyncClient) -> None:
        try:
            await self._supervise()
        finally:
            # A loop that ends cancels its tasks, possibly without a call of aclose.
            await batcher.aclose()
            await self._servers.close(client)

    async def subscribe(self, job_id: str) -> None:
        handler = partial(self._deliver_messages, job_id)
        await self._subscribe(self._names.of(job_id).channel, handler)

    async def unsubscribe(self, job_id: str) -> None:
        await self._unsubscribe(self._names.of(job_id).channel)

    async def _subscribe(self, channel: str, handler: Callable[[bytes], None]) -> None:
        self._handlers[channel] = handler
        confirmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(SUBSCRIBE_TIMEOUT):
                await self._online.wait()
                self._confirmations[channel].append(confirmed)
                await self._subscriber_for(channel).subscribe([channel])
                await confirmed
        except (TimeoutError, TransportUnavailable, *REDIS_ERRORS) as exc:
            confirmed.cancel()
            raise TransportUnavailable(f"could not subscribe to {channel}: {exc!r}") from exc

    async def _unsubscribe(self, channel: str) -> None:
        self._handlers.pop(channel, None)
        if self.ready:
            if self._servers.sharded:
                self._unsubscribing[channel] += 1
            try:
                await self._subscriber_for(channel).unsubscribe(channel)
            except REDIS_ERRORS as exc:
                # The subscription ended with the connection, which the supervisor replaces.
                logger.debug("could not unsubscribe from %s: %s", channel, exc)

    async def snapshot(self, job_id: str, after: Cursor | None = None) -> Snapshot:
        return await self.history.snapshot(job_id, after)

    async def positions(self, job_ids: Sequence[str]) -> list[Cursor]:
        return await self.history.positions(job_ids)

    async def info(self, job_id: str) -> JobInfo:
        return await self.history.info(job_id)

    def watch_feeds(self, on_change: Callable[[str, FeedChange], None]) -> None:
        self._on_change = on_change

    async def subscribe_feed(self, feed: str) -> None:
        channels = [keys.channel for keys in self._names.parts_of(feed)]
        handlers = (partial(self._deliver_changes, feed, channel) for channel in channels)
        await asyncio.gather(*map(self._subscribe, channels, handlers))

    async def unsubscribe_feed(self, feed: str) -> None:
        for keys in self._names.parts_of(feed):
            await self._unsubscribe(keys.channel)

    async def read_feed(self, feed: str) -> list[JobSummary]:
        self._enter_loop()
        return await self._feeds.read(feed)

    async def scan(self, terms: LeaseTimeouts) -> list[Finding]:
        return await scan_leases(self.client, self._names, self._publisher.publisher_id, terms)

    async def acknowledge(self, findings: Sequence[Finding], terms: LeaseTimeouts) -> None:
        await acknowledge_findings(self.client, self._names, findings, terms)

    async def publish(self, batch: Sequence[Outgoing]) -> list[Outgoing]:
        return await self._calls.run(self._publisher.store, batch)

    async def cancel(self, cancellation: Cancellation) -> CancelAnswer:
        self._enter_loop()
        if self._cancelling.locked():
            raise TransportUnavailable(f"{MAX_CANCELLING} requests to cancel jobs wait for Redis")
        async with self._cancelling:
            try:
                async with asyncio.timeout(CANCEL_TIMEOUT):
                    answer = await self._calls.begin(self._publisher.cancel, cancellation)
            except TimeoutError:
                raise TransportUnavailable(
                    f"the request to cancel a job waited for {CANCEL_TIMEOUT:.0f} s, because Redis"
                    " does not answer earlier requests"
                ) from None
            return await answer

    def watch_revocations(self, on_revocation: Callable[[Revocation], None]) -> None:
        self._on_revocation = on_revocation

    async def revocations(self) -> list[Revocation]:
        return await read_revocations(self.client, self._names)

    async def _supervise(self) -> None:
        interrupted, backoff = False, Backoff(FIRST_DELAY, LONGEST_DELAY)
        while True:
            try:
                await self._receive(interrupted)
            except REDIS_ERRORS as exc:
                was_online = self.ready
                self._disconnected(exc)
                if was_online:
                    backoff.reset()
                backoff.failed()
                if isinstance(exc, ChannelMoved):
                    logger.info("looking up the nodes of the cluster: %s", exc)
                elif backoff.failures == 1:
                    logger.warning("the connection to Redis is down, reconnecting: %s", exc)
            except Exception as exc:
                # The source has to survive any error, or the process would receive nothing more.
                self._disconnected(exc)
                backoff.failed()
                logger.exception("receiving from Redis failed")
            interrupted = True
            await asyncio.sleep(backoff.delay())

    async def _receive(self, interrupted: bool) -> None:
        """Subscribe to all channels, and read until the first connection ends."""
        subscribers: list[Subscriber] = []
        tasks: list[asyncio.Task[None]] = []
        try:
            for pool in await self._servers.subscriber_pools(self.client):
                subscriber = Subscriber(pool, sharded=self._servers.sharded)
                subscriber.on_answer = partial(self._dispatch, interrupted, subscriber.name)
                subscribers.append(subscriber)
                await subscriber.connect()
            self._subscribers = subscribers
            self._unsubscribing.clear()
            self._canaries = canary_channels(
                self.client,
                f"{self._names.canary}:{self._publisher.publisher_id}",
                [subscriber.name for subscriber in subscribers],
            )
            self.canary.watch(self._canaries.values())
            channels = [*self._canaries, *self._handlers]
            self._unconfirmed = {self._names.bus, self._names.revocations, *channels}
            tasks = [asyncio.create_task(subscriber.run()) for subscriber in subscribers]
            tasks.append(asyncio.create_task(self._subscribe_all(channels)))
            tasks.append(asyncio.create_task(self._run_canary()))
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        finally:
            self._subscribers = []
            try:
                await cancel_and_wait(*tasks)
            finally:
                await close_all(subscribers)

    async def _subscribe_all(self, channels: Sequence[str]) -> None:
        by_subscriber: defaultdict[Subscriber, list[str]] = defaultdict(list)
        for channel in channels:
            by_subscriber[self._subscriber_for(channel)].append(channel)
        for channel in (self._names.bus, self._names.revocations):
            await self._subscribers[0].subscribe_everywhere(channel)
        await asyncio.gather(
            *(subscriber.subscribe(some) for subscriber, some in by_subscriber.items())
        )

    async def _run_canary(self) -> None:
        """Send canaries until they no longer arrive.

        Raises:
            RedisConnectionError: the connections no longer receive messages.
        """
        try:
            await self.canary.run()
        except NotReceiving as exc:
            raise RedisConnectionError(str(exc)) from exc

    async def _send_canary(self, name: str) -> bool:
        [channel] = [
            channel for channel, subscriber in self._canaries.items() if subscriber == name
        ]
        return await send_canary(self.client, channel)

    def _subscriber_for(self, channel: str) -> Subscriber:
        """Return the connection for a channel's subscription.

        Raises:
            ChannelMoved: no connection serves the channel now.
        """
        if isinstance(self.client, RedisCluster):
            name = node_name(self.client, channel)
            subscribers = [
                subscriber for subscriber in self._subscribers if subscriber.name == name
            ]
        else:
            subscribers = self._subscribers
        if not subscribers:
            raise ChannelMoved(f"no connection serves {channel} now")
        return subscribers[0]

    def _dispatch(self, interrupted: bool, name: str, answer: list[Any]) -> None:
        match answer:
            case [b"message" | b"smessage", channel, data]:
                self.canary.message_arrived(name)
                self._deliver(channel.decode(), data)
            case [b"subscribe" | b"ssubscribe", channel, _]:
                self._confirm(channel.decode(), interrupted)
            case [b"sunsubscribe", channel, _]:
                self._unsubscribed(channel.decode())

    def _deliver(self, channel: str, data: bytes) -> None:
        if channel == self._names.bus:
            self.bus.put_nowait(data)
        elif channel == self._names.revocations:
            revocation = parse_revocation(channel, data)
            if revocation is not None and self._on_revocation is not None:
                self._on_revocation(revocation)
        elif (handler := self._handlers.get(channel)) is not None:
            handler(data)

    def _deliver_messages(self, job_id: str, data: bytes) -> None:
        try:
            messages = parse_messages(data)
        except ValueError:
            logger.warning(
                "ignored a message on %s that is not jobcast's", self._names.of(job_id).channel
            )
            return
        for message in messages:
            self._on_message(job_id, message)

    def _deliver_changes(self, feed: str, channel: str, data: bytes) -> None:
        try:
            changes = parse_changes(data)
        except ValueError:
            logger.warning("ignored a message on %s that is not jobcast's", channel)
            return
        if self._on_change is not None:
            for change in changes:
                self._on_change(feed, change)

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
            logger.info("receiving events from Redis")
            if interrupted:
                self._resuming.spawn(self._report_resumed())

    async def _report_resumed(self) -> None:
        await self._on_resumed()

    def _unsubscribed(self, channel: str) -> None:
        due = self._unsubscribing.pop(channel, 0)
        if due > 1:
            self._unsubscribing[channel] = due - 1
        elif not due and (channel in self._handlers or channel in self._canaries):
            # The node sent this without a request, because it no longer serves the slot.
            raise ChannelMoved(f"{channel} is served by another node now")

    def _disconnected(self, exc: Exception) -> None:
        self._online.clear()
        for waiting in self._confirmations.values():
            for confirmed in waiting:
                if not confirmed.done():
                    confirmed.set_exception(TransportUnavailable(str(exc)))
        self._confirmations.clear()
