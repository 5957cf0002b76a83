"""Requests to cancel jobs in Redis: the script's call, the control channel, and its listeners."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, Final, cast

from msgspec import UNSET, Struct, structs
from redis.exceptions import ConnectionError as RedisConnectionError

from jobcast.transports.cancellation import (
    KEPT_FOR,
    MAX_KEPT,
    Answer,
    CancelAnswer,
    Cancellation,
    OnCancellation,
)
from jobcast.transports.listener import POLL_INTERVAL, ReconnectingListener
from jobcast.transports.redis.lua import script
from jobcast.transports.redis.names import Keys, Names
from jobcast.transports.redis.servers import REDIS_ERRORS, Client, Servers

PING_INTERVAL: Final = 15.0  # seconds of silence before a PING, and until its answer is overdue

NOTE_SCRIPT: Final = script("note_cancellation")


class CancelCall(Struct, frozen=True):
    """A request to cancel a job, which is one event to ``publish.lua``."""

    keys: Keys
    cancellation: Cancellation

    @property
    def job_id(self) -> str:
        return self.cancellation.job_id

    def arguments(self, publisher: str, deadline: str) -> Iterator[Any]:
        """Return the ARGV of ``publish.lua``."""
        request = self.cancellation
        heads = f"{request.request_head}\n{request.ending_head}"
        yield from (publisher, 0, "", "", "", "", "", 0, deadline, "", "")
        yield from (0, "c", request.encode(), heads)


def parse_cancellation(data: bytes) -> Cancellation:
    """Parse a stored request: the sending that it covers, a space, and the request as JSON.

    Raises:
        ValueError: the data has another format.
    """
    sending, _, request = data.partition(b" ")
    return structs.replace(
        Cancellation.decode(request), sending=sending.decode().removeprefix("-"), owner=UNSET
    )


def parse_answer(answer: Any) -> tuple[CancelAnswer, Cancellation | None]:
    """Parse the script's answer to a request, with the request that is in force."""
    outcome, terminates, kept, task = answer
    cancelled = CancelAnswer(outcome=cast("Answer", outcome.decode()), terminates=bool(terminates))
    if not kept:
        return cancelled, None
    return cancelled, structs.replace(parse_cancellation(kept), task=task.decode())


def send_notice(client: Client, names: Names, cancellation: Cancellation) -> None:
    """Tell workers of an accepted request.

    Raises:
        RedisError, OSError: as raised by redis-py's client.
    """
    if cancellation.outcome == "requested":
        kept = structs.replace(cancellation, sending="", outcome=None).encode().decode()
        keys = names.cancelling, names.cancelling_since
        values = cancellation.job_id, f"{cancellation.sending or '-'} {kept}"
        client.eval(NOTE_SCRIPT, len(keys), *keys, *values, str(KEPT_FOR), str(MAX_KEPT))
    client.publish(names.cancellations, cancellation.encode())


class RedisListener(ReconnectingListener):
    """A subscription to the channel in Redis."""

    errors = REDIS_ERRORS
    meanwhile = "until then jobs learn of requests by their events and leases"

    def __init__(self, servers: Servers, names: Names, on_cancellation: OnCancellation) -> None:
        self._servers = servers
        super().__init__(names.cancellations, on_cancellation)

    def receive(self, on_subscribed: Callable[[], None]) -> None:
        client: Any = self._servers.client()
        try:
            pubsub = client.pubsub(ignore_subscribe_messages=True)
            pubsub.subscribe(self._channel)
            on_subscribed()
            self._read(pubsub)
        finally:
            client.close()

    def _read(self, pubsub: Any) -> None:
        """Read until the listener is closed.

        Raises:
            RedisError, OSError: the connection has ended.
        """
        heard_at, has_asked = time.monotonic(), False
        while not self.is_closed:
            message = pubsub.get_message(timeout=POLL_INTERVAL)
            silence = time.monotonic() - heard_at
            if message is not None:
                heard_at, has_asked = time.monotonic(), False
                if message["type"] == "message":
                    self.deliver(message["data"])
            elif silence > 2 * PING_INTERVAL:
                raise RedisConnectionError(f"no answer to a PING within {PING_INTERVAL:.0f} s")
            elif silence > PING_INTERVAL and not has_asked:
                pubsub.ping()
                has_asked = True
