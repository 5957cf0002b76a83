"""Redis and Valkey, the worker's side: one script call for the events of a job, in pipelines."""

from __future__ import annotations

import logging
import secrets
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.resources import files
from itertools import chain, islice
from typing import Any, Final, NamedTuple, TypeVar

import redis
import socketio
from msgspec import Struct
from redis.cluster import RedisCluster
from redis.exceptions import NoScriptError

from jobcast.errors import PublishFailed
from jobcast.transports.base import Outgoing, Retention, named
from jobcast.transports.leases import Lease
from jobcast.transports.redis_refusals import (
    described,
    is_caused_by_the_events,
    waits_for_others,
)
from jobcast.transports.redis_servers import REDIS_ERRORS, Client, Servers
from jobcast.transports.rooms import JobRooms

CHANNEL: Final = "jobcast"  # python-socketio's own traffic between processes
MAX_MESSAGE: Final = 256 * 1024  # characters that are published at once, if it is several events

LEASES_AT_ONCE: Final = 1000  # that are renewed or released by one command
# One slot of a cluster has all leases.
RUNNING: Final = "jobcast:{leases}:running"
STALLED: Final = "jobcast:{leases}:stalled"


def script(name: str) -> str:
    """The text of a Lua script of this package."""
    return files("jobcast.transports").joinpath(f"{name}.lua").read_text("utf-8")


PUBLISH_SCRIPT: Final = script("publish")
RENEW_SCRIPT: Final = script("renew")

T = TypeVar("T")

logger = logging.getLogger(__name__)


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """The items, so many at a time."""
    remaining = iter(items)
    while batch := list(islice(remaining, size)):
        yield batch


class Keys(NamedTuple):
    """Where a job lives. The braces put all of it into one cluster slot."""

    state: str
    events: str
    channel: str

    @classmethod
    def of(cls, job_id: str) -> Keys:
        stem = f"jobcast:{{{job_id}}}:"
        return cls(stem + "state", stem + "events", stem + "live")


class Call(Struct, frozen=True):
    """Events of one run that are stored together. ``follows`` is the number before the first."""

    keys: Keys
    follows: int
    events: list[Outgoing]

    @property
    def after(self) -> tuple[str, int]:
        """What another publisher says before: its id and the number; 0 if it is nothing."""
        return named(self.events[0].after)


def calls(batch: Sequence[Outgoing], limit: int = MAX_MESSAGE) -> Iterator[Call]:
    """The calls of the script that store a batch; those of a job are in its order."""
    of_job: defaultdict[str, list[Outgoing]] = defaultdict(list)
    for outgoing in batch:
        of_job[outgoing.job_id].append(outgoing)
    for job_id, events in of_job.items():
        keys, follows, some, size = Keys.of(job_id), 0, list[Outgoing](), 0
        for outgoing in events:
            if some and (
                outgoing.after
                or outgoing.requires
                or some[-1].requires
                or outgoing.run != some[-1].run
                or size + len(outgoing.head) > limit
            ):
                yield Call(keys, follows, some)
                follows, some, size = some[-1].number, [], 0
            some.append(outgoing)
            size += len(outgoing.head)
        yield Call(keys, follows, some)


def arguments(call: Call, publisher: str, retention: Retention, *, sharded: bool) -> list[Any]:
    """ARGV of ``publish.lua``."""
    first = call.events[0]
    return [
        "SPUBLISH" if sharded else "PUBLISH",
        publisher,
        call.follows,
        next((outgoing.owner for outgoing in call.events if outgoing.owner), ""),
        retention.ttl,
        retention.active_ttl,
        retention.size,
        *call.after,
        str(first.run) if first.run.is_known else "",
        first.requires,
        *chain.from_iterable((o.number, o.kind, o.state or "", o.head) for o in call.events),
    ]


@contextmanager
def _asking() -> Iterator[None]:
    try:
        yield
    except REDIS_ERRORS as exc:
        raise PublishFailed(described(exc), ()) from exc


def _advice(info: Mapping[str, Any]) -> list[str]:
    """What is wrong with a server that says this of itself."""
    found = []
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        # All keys of jobcast expire, so that the volatile policies take them as well.
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


def script_for(run_id: object) -> str:
    """The script for one run of one server: see the head of ``publish.lua``."""
    node = "".join(character for character in str(run_id) if character.isalnum())
    return f"local node = '{node}'\n{PUBLISH_SCRIPT}"


class RedisPublisher(JobRooms, socketio.RedisManager):
    """A write-only ``socketio.RedisManager`` whose job rooms have order and history.

    Any process may use it to address a job's followers:

    >>> manager = RedisPublisher("redis://localhost:6379/0")
    >>> manager.emit("job_log", {"level": "info", "message": "nearly there"}, room="job_42")
    """

    def __init__(
        self,
        url: str = "redis://localhost:6379/0",
        *,
        retention: Retention | None = None,
        redis_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(url, channel=CHANNEL, write_only=True)
        self._servers = Servers.at(url, redis_options)
        self._retention = retention or Retention()
        self._client: Client | None = None
        self._shas: dict[str, str] = {}  # node of a cluster: the script as it knows it
        self.publisher_id = secrets.token_hex(6)

    def publish(self, batch: Sequence[Outgoing]) -> None:
        """Store and send the events in one round trip to each server.

        Raises:
            PublishFailed: some or all of them could not be stored now.
        """
        unsent: list[Outgoing] = []
        problem: Exception | None = None
        held: Exception | None = None
        for call, answer in self._send(list(calls(batch))):
            if not isinstance(answer, Exception):
                continue
            if is_caused_by_the_events(answer):
                # Sending it again would fail again, and hold up everything behind it.
                logger.error(
                    "job %s: dropped %d events that Redis refuses (%s)",
                    call.events[0].job_id, len(call.events), described(answer),
                )  # fmt: skip
                continue
            unsent += call.events
            if waits_for_others(answer):
                held = held or answer
            else:
                problem = problem or answer
        if problem is not None:
            self._look_again()
            raise PublishFailed(described(problem), unsent) from problem
        if held is not None:
            raise PublishFailed(str(held), unsent, held=True) from held

    def renew(self, leases: Sequence[Lease], seconds: float) -> None:
        """Let leases run for so long from now on.

        Raises:
            PublishFailed: they could not be renewed now.
        """
        for some in batched(leases, LEASES_AT_ONCE):
            with _asking():
                self._connected().eval(RENEW_SCRIPT, 1, RUNNING, str(seconds), *map(str, some))

    def release(self, leases: Sequence[Lease]) -> None:
        """Forget the leases of runs that have ended.

        Raises:
            PublishFailed: it could not be done; they run out.
        """
        for some in batched(leases, LEASES_AT_ONCE):
            with _asking():
                pipeline = self._connected().pipeline(transaction=False)
                for key in (RUNNING, STALLED):
                    pipeline.zrem(key, *map(str, some))
                pipeline.execute()

    def advice(self) -> list[str]:
        """What of the configuration or state of a server breaks what jobcast promises.

        Raises:
            PublishFailed: a server cannot be asked.
        """
        with _asking():
            client = self._connected()
            if isinstance(client, RedisCluster):
                nodes = [client.get_redis_connection(node) for node in client.get_primaries()]
            else:
                nodes = [client]
            found = [line for node in nodes for line in _advice(node.info())]
        return [*dict.fromkeys(found)]

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def _send(self, to_send: Sequence[Call]) -> list[tuple[Call, Any]]:
        """Each call with its answer, or with what went wrong."""
        try:
            by_node = self._by_node(to_send)
        except REDIS_ERRORS as exc:
            return [(call, exc) for call in to_send]
        answered: list[tuple[Call, Any]] = []
        for name, (client, here) in by_node.items():
            try:
                answered += zip(here, self._run(name, client, here), strict=True)
            except REDIS_ERRORS as exc:
                answered += [(call, exc) for call in here]
        return answered

    def _by_node(self, to_send: Sequence[Call]) -> dict[str, tuple[redis.Redis, list[Call]]]:
        client = self._connected()
        if not isinstance(client, RedisCluster):
            return {"": (client, list(to_send))}
        grouped: dict[str, tuple[redis.Redis, list[Call]]] = {}
        for call in to_send:
            node = client.get_node_from_key(call.keys.state)
            if node.name not in grouped:
                grouped[node.name] = client.get_redis_connection(node), []
            grouped[node.name][1].append(call)
        return grouped

    def _run(self, name: str, client: redis.Redis, here: Sequence[Call]) -> list[Any]:
        if name not in self._shas:
            self._teach(name, client)
        answers = self._pipeline(name, client, here)
        unknown = [i for i, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if unknown:
            # It was restarted, or is another server than before.
            self._teach(name, client)
            again = self._pipeline(name, client, [here[i] for i in unknown])
            for i, answer in zip(unknown, again, strict=True):
                answers[i] = answer
        return answers

    def _teach(self, name: str, client: redis.Redis) -> None:
        run_id = client.info("server")["run_id"]
        self._shas[name] = client.script_load(script_for(run_id))

    def _pipeline(self, name: str, client: redis.Redis, here: Sequence[Call]) -> list[Any]:
        pipeline = client.pipeline(transaction=False)
        for call in here:
            argv = arguments(
                call, self.publisher_id, self._retention, sharded=self._servers.sharded
            )
            pipeline.evalsha(self._shas[name], len(call.keys), *call.keys, *argv)
        return pipeline.execute(raise_on_error=False)

    def _connected(self) -> Client:
        if self._client is None:
            self._redis_connect()
            self._client = self.redis
        return self._client

    def _look_again(self) -> None:
        """Ask a cluster who serves what; something of what was known is not true any more."""
        if isinstance(self._client, RedisCluster):
            try:
                self._client.nodes_manager.initialize()
            except REDIS_ERRORS as exc:
                logger.debug("the cluster does not say who serves what: %s", exc)

    def _redis_connect(self) -> None:
        self.redis = self._servers.client()
        self.connected = True
