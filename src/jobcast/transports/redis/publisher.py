"""The worker side of the Redis transport: one script call per run of a job, in pipelines."""

from __future__ import annotations

import logging
import secrets
import time
import weakref
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any, Final, NamedTuple, TypeVar

import redis
import socketio
from msgspec import Struct, structs
from redis.cluster import RedisCluster
from redis.exceptions import NoScriptError, ResponseError

from jobcast.errors import PublishFailed
from jobcast.events import TERMINAL
from jobcast.transports.base import Outgoing, Predecessor, Retention
from jobcast.transports.cancellation import (
    CancelAnswer,
    Cancellation,
    OnCancellation,
    notify,
)
from jobcast.transports.leases import Lease
from jobcast.transports.prefix import DEFAULT_PREFIX
from jobcast.transports.redis.cancellation import (
    CancelCall,
    RedisListener,
    parse_answer,
    parse_cancellation,
    send_notice,
)
from jobcast.transports.redis.feed_writer import FeedWriter
from jobcast.transports.redis.leases import release_leases, renew_leases
from jobcast.transports.redis.lua import script
from jobcast.transports.redis.names import Keys, Names
from jobcast.transports.redis.nodes import group_by_node, reload_slots
from jobcast.transports.redis.refusals import (
    describe_error,
    is_caused_by_the_events,
    waits_for_others,
)
from jobcast.transports.redis.servers import REDIS_ERRORS, Client, Servers
from jobcast.transports.revocations import Revocation
from jobcast.transports.socketio_managers import JobEventManagerMixin

MAX_MESSAGE: Final = 256 * 1024  # characters per script call with several events
NO_DEADLINE: Final = "1e15"
CLOCK_CHECK: Final = 300.0  # seconds until a server's clock is read again
JOBS_REMEMBERED: Final = 10_000  # jobs whose latest seq a publisher remembers

PUBLISH_SCRIPT: Final = script("publish")

logger = logging.getLogger(__name__)


class Position(NamedTuple):
    """The latest position of a job's record that a publisher knows."""

    epoch: str | bytes
    seq: int


NO_POSITION: Final = Position("", 0)


class Call(Struct, frozen=True):
    """Events of one run to be stored together. ``follows`` is the number before the first one."""

    keys: Keys
    follows: int
    events: list[Outgoing]

    @property
    def job_id(self) -> str:
        return self.events[0].job_id


AnyCall = TypeVar("AnyCall", Call, CancelCall)


def calls(batch: Sequence[Outgoing], names: Names, limit: int = MAX_MESSAGE) -> Iterator[Call]:
    """Yield the script calls that store a batch; the calls of a job keep its order."""
    of_job: defaultdict[str, list[Outgoing]] = defaultdict(list)
    for outgoing in batch:
        of_job[outgoing.job_id].append(outgoing)
    for job_id, events in of_job.items():
        keys, follows, some, size = names.of(job_id), 0, list[Outgoing](), 0
        for outgoing in events:
            if some and (
                outgoing.after
                or (outgoing.info and not _fits(outgoing, some))
                or outgoing.requires
                or some[-1].requires
                or outgoing.run != some[-1].run
                or outgoing.owner != some[-1].owner
                or size + len(outgoing.head) > limit
            ):
                yield Call(keys, follows, some)
                follows, some, size = some[-1].number, [], 0
            some.append(outgoing)
            size += len(outgoing.head)
        yield Call(keys, follows, some)


def _ending_leases(call: Call) -> Iterator[Lease]:
    """Yield the leases of the runs that end with a call."""
    return (Lease(event.job_id, event.run) for event in call.events if event.kind == TERMINAL)


def _fits(described: Outgoing, events: Sequence[Outgoing]) -> bool:
    """Return whether an event with a description may follow others in a call.

    A call has the description of its first event, and that of its first ending or retry.
    """
    return described.completes_info and not any(event.completes_info for event in events)


def arguments(
    call: Call | CancelCall, publisher: str, known: Position, deadline: str
) -> Iterator[Any]:
    """Return the ARGV of ``publish.lua``."""
    if isinstance(call, CancelCall):
        return call.arguments(publisher, deadline)
    first = call.events[0]
    run = str(first.run) if first.run.is_known else ""
    owner = first.owner or ""
    after = str(Predecessor.parse(first.after)) if first.after else ""
    added = "" if first.completes_info else first.info
    missing = next((event.info for event in call.events if event.completes_info), "")
    info = added, missing
    head = publisher, call.follows, owner, after, run, first.requires, *known, deadline, *info
    events = ((o.number, o.kind, o.state or "", o.head) for o in call.events)
    return chain(head, chain.from_iterable(events))


class _ServerInfo(NamedTuple):
    """The script's digest on a server, and the offset of the server's clock."""

    sha: str
    ahead: float  # lower bound of the server's clock minus this process's monotonic clock, seconds
    since: float  # when this was read, by the monotonic clock

    @property
    def is_recent(self) -> bool:
        return time.monotonic() - self.since < CLOCK_CHECK

    def deadline(self, timeout: float | None) -> str:
        """Return the server's time, in seconds, at which a timeout that begins now expires."""
        if timeout is None:
            return NO_DEADLINE
        return f"{time.monotonic() + self.ahead + timeout:.3f}"


def _is_late(answer: object) -> bool:
    """Return whether the server received a call after its deadline."""
    return isinstance(answer, ResponseError) and str(answer).startswith("LATE")


@contextmanager
def _translated_errors() -> Iterator[None]:
    try:
        yield
    except REDIS_ERRORS as exc:
        raise PublishFailed(describe_error(exc), ()) from exc


def _advice(info: Mapping[str, Any]) -> list[str]:
    """Return warnings about a server's ``INFO``."""
    found = []
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        # All keys of jobcast expire, so the volatile policies evict them too.
        found.append(
            f"maxmemory-policy is {policy}: under memory pressure the server evicts histories, and"
            " the states of running jobs. Use noeviction, or a server of jobcast's own"
        )
    if info.get("rdb_last_bgsave_status", "ok") != "ok":
        found.append(
            "the last snapshot to disk failed: with stop-writes-on-bgsave-error the server refuses"
            " events (MISCONF). Make room on its disk"
        )
    if info.get("aof_last_write_status", "ok") != "ok":
        found.append("the append-only file cannot be written: the server refuses events (MISCONF)")
    return found


def script_for(run_id: object, retention: Retention, *, sharded: bool) -> str:
    """Return the script for one server process; the head of ``publish.lua`` says why."""
    node = "".join(character for character in str(run_id) if character.isalnum())
    command = "SPUBLISH" if sharded else "PUBLISH"
    values = f"'{node}', '{command}', {retention.ttl}, {retention.active_ttl}"
    bounds = f"{retention.size}, {retention.statuses}"
    names = "node, publish, ttl, active_ttl, max_lines, max_statuses"
    return f"local {names} = {values}, {bounds}\n{PUBLISH_SCRIPT}"


class RedisPublisher(JobEventManagerMixin, socketio.RedisManager):
    """A write-only ``socketio.RedisManager`` whose job rooms have order and history.

    Any process may use it to emit to a job's followers:

    >>> manager = RedisPublisher("redis://localhost:6379/0")
    >>> manager.emit("job_log", {"level": "info", "message": "nearly there"}, room="job_42")
    """

    def __init__(
        self,
        url: str = "redis://localhost:6379/0",
        *,
        retention: Retention | None = None,
        prefix: str = DEFAULT_PREFIX,
        redis_options: Mapping[str, Any] | None = None,
    ) -> None:
        self._names = Names(prefix)
        super().__init__(url, channel=self._names.bus, write_only=True)
        self._servers = Servers.at(url, redis_options)
        self._retention = retention or Retention()
        self._client: Client | None = None
        self._server_info: dict[str, _ServerInfo] = {}  # by the name of the cluster node
        # The leases of runs whose ending was refused.
        self._without_ending: deque[Lease] = deque(maxlen=JOBS_REMEMBERED)
        self._positions: OrderedDict[str, Position] = OrderedDict()  # by job id, from the answers
        self.publisher_id = secrets.token_hex(6)
        self.on_cancelled: OnCancellation | None = None
        self._cancelled: dict[str, Cancellation] = {}  # by job, of the publish under way
        self._feeds = FeedWriter(self._servers, self._names, self._retention)
        weakref.finalize(self, self._feeds.stop)

    def publish(self, batch: Sequence[Outgoing]) -> None:
        """Store and send the events in one round trip to each server.

        Raises:
            PublishFailed: some or all events could not be stored.
        """
        self.store(batch)

    def store(self, batch: Sequence[Outgoing]) -> list[Outgoing]:
        """Publish the events as :meth:`publish` does.

        Returns:
            The events without those that require another state of their job.

        Raises:
            PublishFailed: some or all events could not be stored.
        """
        try:
            return self._store(batch)
        finally:
            self._report_cancelled()

    def _store(self, batch: Sequence[Outgoing]) -> list[Outgoing]:
        unsent: list[Outgoing] = []
        handled: list[Outgoing] = []
        stored: list[Outgoing] = []
        problem: Exception | None = None
        held: Exception | None = None
        for call, answer in self._send(list(calls(batch, self._names))):
            if not isinstance(answer, Exception):
                handled += call.events
                stored += call.events if answer is not None else ()
                continue
            if is_caused_by_the_events(answer):
                # Another attempt would fail too, and hold up all later events.
                logger.error(
                    "job %s: dropped %d events that Redis refuses (%s)",
                    call.events[0].job_id, len(call.events), describe_error(answer),
                )  # fmt: skip
                self._without_ending.extend(_ending_leases(call))
                continue
            unsent += call.events
            if waits_for_others(answer):
                held = held or answer
            else:
                problem = problem or answer
        # Dropped events count too: the process that stored others may have ended before it wrote
        # the feeds.
        self._feeds.mark(handled)
        if problem is not None:
            self._reload_slots()
            raise PublishFailed(describe_error(problem), unsent) from problem
        if held is not None:
            raise PublishFailed(str(held), unsent, held=True) from held
        return stored

    def renew(self, leases: Sequence[Lease], seconds: float) -> None:
        """Extend the leases so that they expire after ``seconds`` from now.

        Raises:
            PublishFailed: the leases could not be renewed.
        """
        with _translated_errors():
            found = renew_leases(self._connected(), self._names, leases, seconds)
        for cancellation in found:
            notify(self.on_cancelled, cancellation)

    def release(self, leases: Sequence[Lease]) -> None:
        """Remove the leases of runs that have ended, after the feeds of their jobs are written.

        Raises:
            PublishFailed: the leases could not be removed; they expire.
        """
        # Without an ending, a lease has to expire, so that the monitor ends the job.
        leases = [lease for lease in leases if lease not in self._without_ending]
        if not self._feeds.release(leases):
            with _translated_errors():
                release_leases(self._connected(), self._names, leases)
        self._without_ending.clear()

    def cancel(self, cancellation: Cancellation) -> CancelAnswer:
        """Cancel a job, as :meth:`SupportsCancellation.cancel` does.

        Raises:
            PublishFailed: the request may not have been stored; repeating it does no harm.
        """
        job_id = cancellation.job_id
        [(_, answer)] = self._send([CancelCall(self._names.of(job_id), cancellation)])
        if isinstance(answer, Exception):
            self._reload_slots()
            raise PublishFailed(describe_error(answer), ()) from answer
        cancelled, kept = parse_answer(answer)
        if kept is not None and cancelled.is_accepted:
            self._feeds.mark_job(job_id)
            self._send_notice(structs.replace(kept, outcome=cancelled.outcome))
        return cancelled

    def _send_notice(self, cancellation: Cancellation) -> None:
        try:
            send_notice(self._connected(), self._names, cancellation)
        except REDIS_ERRORS as exc:
            # The record has the request.
            logger.warning(
                "job %s: could not tell the workers that it is cancelled (%s); its worker learns"
                " of it with the job's next event", cancellation.job_id, describe_error(exc),
            )  # fmt: skip

    def listen(self, on_cancellation: OnCancellation) -> RedisListener:
        """Call a function, in a thread of its own, with each accepted request to cancel a job."""
        listener = RedisListener(self._servers, self._names, on_cancellation)
        listener.start()
        return listener

    def revoke(self, revocation: Revocation) -> None:
        """Store a revocation, and send it to every server process.

        Raises:
            PublishFailed: the revocation may not have been stored.
        """
        data = revocation.encode()
        with _translated_errors():
            client = self._connected()
            client.zadd(self._names.revoked, {data: revocation.until})
            client.publish(self._names.revocations, data)

    def advice(self) -> list[str]:
        """Return warnings about configuration or state that weakens the delivery guarantees.

        Raises:
            PublishFailed: a server is unreachable.
        """
        with _translated_errors():
            client = self._connected()
            if isinstance(client, RedisCluster):
                nodes = [client.get_redis_connection(node) for node in client.get_primaries()]
            else:
                nodes = [client]
            found = [line for node in nodes for line in _advice(node.info())]
        return [*dict.fromkeys(found)]

    def close(self) -> None:
        self._feeds.close()
        if self._client is not None:
            self._client.close()

    def _report_cancelled(self) -> None:
        """Tell the application which of the published jobs are cancelled."""
        cancelled, self._cancelled = self._cancelled, {}
        for cancellation in cancelled.values():
            notify(self.on_cancelled, cancellation)

    def _send(self, all_calls: Sequence[AnyCall]) -> list[tuple[AnyCall, Any]]:
        """Send the calls, and return each with its answer or exception."""
        try:
            by_node = group_by_node(self._connected(), all_calls, lambda call: call.keys.state)
        except REDIS_ERRORS as exc:
            return [(call, exc) for call in all_calls]
        answered: list[tuple[AnyCall, Any]] = []
        for name, (client, to_send) in by_node.items():
            try:
                answered += zip(to_send, self._run(name, client, to_send), strict=True)
            except REDIS_ERRORS as exc:
                answered += [(call, exc) for call in to_send]
        return answered

    def _run(self, name: str, client: redis.Redis, to_send: Sequence[AnyCall]) -> list[Any]:
        known = self._server_info.get(name)
        if known is None or not known.is_recent:
            self._read_server_info(name, client)
        answers = self._pipeline(name, client, to_send)
        refused = [
            i for i, answer in enumerate(answers)
            if isinstance(answer, NoScriptError) or _is_late(answer)
        ]  # fmt: skip
        if refused:
            # The server was restarted, replaced or paused.
            self._read_server_info(name, client)
            repeated = self._pipeline(name, client, [to_send[i] for i in refused])
            for i, answer in zip(refused, repeated, strict=True):
                answers[i] = answer
        return answers

    def _read_server_info(self, name: str, client: redis.Redis) -> None:
        run_id = client.info("server")["run_id"]
        text = script_for(run_id, self._retention, sharded=self._servers.sharded)
        sha = client.script_load(text)
        seconds, microseconds = client.time()
        now = time.monotonic()
        self._server_info[name] = _ServerInfo(sha, seconds + microseconds / 1e6 - now, now)

    def _pipeline(self, name: str, client: redis.Redis, to_send: Sequence[AnyCall]) -> list[Any]:
        known = self._server_info[name]
        # After the timeout the events are sent again, perhaps to another server. A paused server
        # must not publish them too.
        deadline = known.deadline(client.get_connection_kwargs().get("socket_timeout"))
        positions = [self._positions.get(call.job_id, NO_POSITION) for call in to_send]
        pipeline = client.pipeline(transaction=False)
        for call, position in zip(to_send, positions, strict=True):
            argv = arguments(call, self.publisher_id, position, deadline)
            pipeline.evalsha(known.sha, len(call.keys), *call.keys, *argv)
        given: list[Any] = pipeline.execute(raise_on_error=False)
        answers: list[Any] = [*map(self._without_cancellation, to_send, given)]
        for call, position, answer in zip(to_send, positions, answers, strict=True):
            if isinstance(answer, int):
                self._remember(call.job_id, Position(position.epoch, answer))
            elif isinstance(answer, list) and not isinstance(call, CancelCall):
                seq, epoch = answer
                self._remember(call.job_id, Position(epoch, seq))
        return answers

    def _without_cancellation(self, call: AnyCall, answer: Any) -> Any:
        """Return the answer about events alone, and note that their job is cancelled."""
        if isinstance(call, CancelCall):
            return answer
        if isinstance(answer, list) and isinstance(answer[0], bytes):
            kept, answer = answer
            self._cancelled[call.job_id] = parse_cancellation(kept)
        else:
            self._cancelled.pop(call.job_id, None)
        return answer

    def _remember(self, job_id: str, position: Position) -> None:
        self._positions[job_id] = position
        self._positions.move_to_end(job_id)
        if len(self._positions) > JOBS_REMEMBERED:
            self._positions.popitem(last=False)

    def _connected(self) -> Client:
        if self._client is None:
            self._redis_connect()
            self._client = self.redis
        return self._client

    def _reload_slots(self) -> None:
        if self._client is not None:
            reload_slots(self._client)

    def _redis_connect(self) -> None:
        self.redis = self._servers.client()
        self.connected = True
