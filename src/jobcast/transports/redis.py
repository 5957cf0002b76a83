"""Redis and Valkey, the worker's side: one script call an event, in pipelines."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any, Final, NamedTuple

import redis
import socketio
from redis.backoff import NoBackoff
from redis.exceptions import (
    ClusterDownError,
    MasterDownError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    TryAgainError,
)
from redis.retry import Retry

from jobcast.errors import PublishFailed
from jobcast.transports.base import Outgoing, Retention
from jobcast.transports.rooms import JobRooms

CHANNEL: Final = "jobcast"  # python-socketio's own traffic between processes
CONNECT_TIMEOUT: Final = 2.0  # seconds
ANSWER_TIMEOUT: Final = 5.0  # seconds

PUBLISH_SCRIPT: Final = files("jobcast.transports").joinpath("publish.lua").read_text("utf-8")

# Answers that another try may change: the server is moving, full, or its rights are being set.
_TRANSIENT: Final = (
    ClusterDownError, MasterDownError, NoPermissionError, OutOfMemoryError, ReadOnlyError,
    TryAgainError,
)  # fmt: skip

logger = logging.getLogger(__name__)


class Keys(NamedTuple):
    """Where a job lives. The braces put all of it into one cluster slot."""

    state: str
    events: str
    channel: str

    @classmethod
    def of(cls, job_id: str) -> Keys:
        stem = f"jobcast:{{{job_id}}}:"
        return cls(stem + "state", stem + "events", stem + "live")


def redis_url(url: str) -> str:
    """The URL as redis-py knows it: Valkey speaks the same protocol."""
    return "redis" + url.removeprefix("valkey") if url.startswith("valkey") else url


def client_options(overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Bounded waits, and no retries of redis-py's own: jobcast tries again as a whole."""
    return {
        "socket_connect_timeout": CONNECT_TIMEOUT,
        "socket_timeout": ANSWER_TIMEOUT,
        "retry": Retry(NoBackoff(), 0),
        **(overrides or {}),
    }


def publish_arguments(outgoing: Outgoing, kept: Retention) -> tuple[Keys, tuple[str | int, ...]]:
    """KEYS and ARGV of ``publish.lua``."""
    return Keys.of(outgoing.job_id), (
        outgoing.head,
        outgoing.kind,
        outgoing.state or "",
        outgoing.owner or "",
        kept.ttl,
        kept.active_ttl,
        kept.size,
    )


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
        super().__init__(
            redis_url(url),
            channel=CHANNEL,
            write_only=True,
            redis_options=client_options(redis_options),
        )
        self._retention = retention or Retention()
        self._client: redis.Redis | None = None
        self._sha = ""

    def publish(self, batch: Sequence[Outgoing]) -> None:
        """Store and send the events in one round trip.

        Raises:
            PublishFailed: some or all of them could not be stored now.
        """
        try:
            answers = self._call(batch)
        except (RedisError, OSError) as exc:
            raise PublishFailed(str(exc), batch) from exc
        unsent: list[Outgoing] = []
        problem: Exception | None = None
        for outgoing, answer in zip(batch, answers, strict=True):
            if isinstance(answer, _TRANSIENT):
                unsent.append(outgoing)
                problem = answer
            elif isinstance(answer, Exception):
                # Sending it again would fail again, and hold up everything behind it.
                logger.error("an event of job %s was refused: %s", outgoing.job_id, answer)
        if unsent:
            raise PublishFailed(str(problem), unsent) from problem

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def _call(self, batch: Sequence[Outgoing]) -> list[Any]:
        client = self._connected()
        if not self._sha:
            self._sha = client.script_load(PUBLISH_SCRIPT)
        answers = self._pipeline(client, batch)
        if any(isinstance(answer, NoScriptError) for answer in answers):
            # A restarted server has forgotten it.
            self._sha = client.script_load(PUBLISH_SCRIPT)
            missing = [i for i, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
            again = self._pipeline(client, [batch[i] for i in missing])
            for i, answer in zip(missing, again, strict=True):
                answers[i] = answer
        return answers

    def _pipeline(self, client: redis.Redis, batch: Sequence[Outgoing]) -> list[Any]:
        pipeline = client.pipeline(transaction=False)
        for outgoing in batch:
            keys, arguments = publish_arguments(outgoing, self._retention)
            pipeline.evalsha(self._sha, len(keys), *keys, *arguments)
        return pipeline.execute(raise_on_error=False)

    def _connected(self) -> redis.Redis:
        if self._client is None:
            self._redis_connect()
            self._client = self.redis
        return self._client
