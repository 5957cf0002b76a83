"""Pause the writes of a Redis server, and record the jobs that it publishes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final, Protocol

import redis
from redis.connection import Connection

from jobcast.transports.redis.names import Keys
from tests.support import TIMEOUT

ALL_JOBS: Final = Keys.of("*").channel


class Server(Protocol):
    port: int


@contextmanager
def writes_paused(server: Server) -> Iterator[None]:
    """Make a server delay all writes until the context ends.

    A server that is stopped meanwhile runs them when it resumes; a killed server never does.
    """
    connection = _connection(server)
    connection.send_command("CLIENT", "PAUSE", round(2000 * TIMEOUT), "WRITE")
    connection.read_response()
    try:
        yield
    finally:
        with suppress(redis.ConnectionError):  # the server was killed
            # A stopped server answers only when it resumes.
            connection.send_command("CLIENT", "UNPAUSE")
        connection.disconnect()


class PublishedJobs:
    """Record of the jobs whose events a server stores and publishes within the context."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._jobs: set[str] = set()

    def __enter__(self) -> PublishedJobs:
        # redis-py's PubSub would subscribe again when the server closes the connection.
        self._connection = _connection(self._server)
        self._connection.send_command("PSUBSCRIBE", ALL_JOBS)
        self._connection.read_response()
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.disconnect()

    def so_far(self) -> set[str]:
        """Return the jobs published so far."""
        self._connection.send_command("PING")
        while self._read():
            pass
        return self._jobs

    def until_demoted(self) -> set[str]:
        """Return the jobs published until the Sentinels demote the server.

        A demoted server closes all connections.
        """
        with suppress(redis.ConnectionError):
            while True:
                self._read()
        return self._jobs

    def _read(self) -> bool:
        """Read one answer, and return whether it was an event."""
        try:
            kind, *words = self._connection.read_response()
        except redis.TimeoutError:
            raise AssertionError(f"no answer from the server for {TIMEOUT:.0f} s") from None
        if kind != b"pmessage":
            return False
        _, channel, _ = words
        self._jobs.add(channel.decode().partition("{")[2].partition("}")[0])
        return True


def _connection(server: Server) -> Connection:
    connection = Connection(port=server.port, socket_timeout=TIMEOUT, protocol=2)
    connection.connect()
    return connection
