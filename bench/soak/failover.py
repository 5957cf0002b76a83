"""Failovers behind Sentinels, and exactly what Redis loses by them.

Replication is asynchronous: what a master has confirmed and not yet passed on is lost when another
takes over. That is documented, and would hide what jobcast loses. So the master is killed or
stopped when the replica has all that it has confirmed, while writes wait in it.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import redis
from redis.connection import Connection

from jobcast.transports.redis_names import Keys
from tests.redis_family import RedisProcess, Sentinels
from tests.support import TIMEOUT, wait_for

DOWN_AFTER: Final = 2.0  # seconds until the Sentinels replace a master that a fault has taken away
NEVER: Final = 24 * 3600.0  # seconds; without a fault nobody takes over, however busy the machine
ALL_JOBS: Final = Keys.of("*").channel


class Failovers:
    """Takes the master away and waits until the replica has taken over."""

    def __init__(self, servers: Sentinels) -> None:
        self._servers = servers

    def ready(self) -> None:
        self._servers.ready()
        self._servers.tolerate(NEVER)

    @property
    def master(self) -> RedisProcess:
        master: RedisProcess = wait_for(lambda: self._servers.master, "master")
        return master

    def kill_master(self) -> None:
        """Kill the master; what it has confirmed is replicated."""
        master = self.master
        with _writes_held(master):
            wait_for(self._servers.in_sync, "replica in sync")
            master.kill()
        self._servers.start_as_replica(master, self._successor_of(master))
        wait_for(self._servers.in_sync, "replica in sync")

    def stop_master(self, seconds: float) -> set[str]:
        """Stop the master for so long at least; what it has confirmed is replicated.

        When it wakes, another has taken over, and it runs what has waited in its sockets.

        Returns:
            The jobs of which it has confirmed events then. They are lost with it.
        """
        master = self.master
        with _writes_held(master) as release, Confirmed(master) as confirmed:
            wait_for(self._servers.in_sync, "replica in sync")
            began = time.monotonic()
            master.popen.send_signal(signal.SIGSTOP)
            try:
                # It reads this when it wakes, together with what others have sent meanwhile.
                release()
                self._successor_of(master)
                time.sleep(max(0.0, began + seconds - time.monotonic()))
            finally:
                master.popen.send_signal(signal.SIGCONT)
            jobs = confirmed.until_demoted()
        wait_for(self._servers.in_sync, "replica in sync")
        return jobs

    def _successor_of(self, master: RedisProcess) -> RedisProcess:
        self._servers.tolerate(DOWN_AFTER)
        try:
            return self._servers.successor_of(master)
        finally:
            self._servers.tolerate(NEVER)


class Confirmed:
    """The jobs of which a server publishes events, from now on until it is demoted."""

    def __init__(self, server: RedisProcess) -> None:
        # Not a PubSub: it would subscribe again, and hear what the next master replicates.
        self._connection = Connection(port=server.port, socket_timeout=TIMEOUT, protocol=2)

    def __enter__(self) -> Confirmed:
        self._connection.connect()
        self._connection.send_command("PSUBSCRIBE", ALL_JOBS)
        self._connection.read_response()
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.disconnect()

    def until_demoted(self) -> set[str]:
        """Read until the Sentinels demote the server: they cut all of its connections."""
        jobs: set[str] = set()
        while True:
            try:
                _, _, channel, _ = self._connection.read_response()
            except redis.TimeoutError:
                raise AssertionError(f"in {TIMEOUT:.0f} s the master was not demoted") from None
            except redis.ConnectionError:
                return jobs
            jobs.add(channel.decode().partition("{")[2].partition("}")[0])


@contextmanager
def _writes_held(server: RedisProcess) -> Iterator[Callable[[], None]]:
    """Let a server hold all writes back, until what is yielded is called or the server is gone."""
    connection = Connection(port=server.port, socket_timeout=TIMEOUT, protocol=2)
    connection.connect()
    connection.send_command("CLIENT", "PAUSE", round(2000 * TIMEOUT), "WRITE")
    connection.read_response()
    try:
        yield lambda: connection.send_command("CLIENT", "UNPAUSE")
    finally:
        connection.disconnect()
