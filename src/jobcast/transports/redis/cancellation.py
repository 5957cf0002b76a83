"""Requests to cancel jobs in Redis: the script's call, the control channel, and its listeners."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from typing import Any, Final, cast

from msgspec import Struct, structs
from redis.exceptions import ConnectionError as RedisConnectionError

from jobcast.aio import Backoff
from jobcast.transports.cancellation import (
    Answer,
    CancelAnswer,
    Cancellation,
    OnCancellation,
    notify,
)
from jobcast.transports.redis.lua import script
from jobcast.transports.redis.names import Keys, Names
from jobcast.transports.redis.servers import REDIS_ERRORS, Client, Servers

NOTED_FOR: Final = 24 * 3600  # seconds that renewals tell workers of a request
MAX_NOTED: Final = 10_000  # requests that renewals tell workers of
POLL_INTERVAL: Final = 1.0  # seconds until a listener sees that it is closed, at most
PING_INTERVAL: Final = 15.0  # seconds of silence before a PING, and until its answer is overdue
FIRST_DELAY: Final = 0.5  # seconds after a failure
LONGEST_DELAY: Final = 10.0  # seconds between two attempts at most

NOTE_SCRIPT: Final = script("note_cancellation")

logger = logging.getLogger(__name__)


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
    return structs.replace(Cancellation.decode(request), sending=sending.decode().removeprefix("-"))


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
        client.eval(NOTE_SCRIPT, len(keys), *keys, *values, str(NOTED_FOR), str(MAX_NOTED))
    client.publish(names.cancellations, cancellation.encode())


class RedisListener:
    """A subscription to the control channel, in a daemon thread of this process."""

    def __init__(self, servers: Servers, names: Names, on_cancellation: OnCancellation) -> None:
        self._servers = servers
        self._channel = names.cancellations
        self._on_cancellation = on_cancellation
        self._closed = threading.Event()
        threading.Thread(target=self._run, name="jobcast-cancellations", daemon=True).start()

    def close(self) -> None:
        self._closed.set()

    def _run(self) -> None:
        backoff = Backoff(FIRST_DELAY, LONGEST_DELAY)
        while not self._closed.is_set():
            try:
                self._receive(backoff)
            except REDIS_ERRORS as exc:
                backoff.failed()
                logger.log(
                    logging.WARNING if backoff.failures == 1 else logging.DEBUG,
                    "lost the connection on which this process hears of cancelled jobs (%s);"
                    " reconnecting; until then jobs learn of it by their events and leases", exc,
                )  # fmt: skip
            except Exception:
                backoff.failed()
                logger.exception("could not receive the requests to cancel jobs; reconnecting")
            self._closed.wait(backoff.delay())

    def _receive(self, backoff: Backoff) -> None:
        client: Any = self._servers.client()
        try:
            pubsub = client.pubsub(ignore_subscribe_messages=True)
            pubsub.subscribe(self._channel)
            backoff.reset()
            self._read(pubsub)
        finally:
            client.close()

    def _read(self, pubsub: Any) -> None:
        """Read until the listener is closed.

        Raises:
            RedisError, OSError: the connection has ended.
        """
        heard_at, has_asked = time.monotonic(), False
        while not self._closed.is_set():
            message = pubsub.get_message(timeout=POLL_INTERVAL)
            silence = time.monotonic() - heard_at
            if message is not None:
                heard_at, has_asked = time.monotonic(), False
                self._deliver(message)
            elif silence > 2 * PING_INTERVAL:
                raise RedisConnectionError(f"no answer to a PING within {PING_INTERVAL:.0f} s")
            elif silence > PING_INTERVAL and not has_asked:
                pubsub.ping()
                has_asked = True

    def _deliver(self, message: dict[str, Any]) -> None:
        if message["type"] != "message" or self._closed.is_set():
            return
        try:
            cancellation = Cancellation.decode(message["data"])
        except ValueError as exc:
            logger.warning("ignored a message on %s that is not jobcast's: %s", self._channel, exc)
            return
        notify(self._on_cancellation, cancellation)
