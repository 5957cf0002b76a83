"""Failovers behind Sentinels in which Redis loses nothing, or exactly what is reported.

Replication is asynchronous: what a master has confirmed and not yet passed on is lost when another
takes over. That is documented, and would hide what jobcast loses. So a master is killed or stopped
when the replica has all that it has confirmed, while further writes wait in it.
"""

from __future__ import annotations

import signal
import time
from contextlib import ExitStack
from typing import Final

from bench.soak.redis_writes import PublishedJobs, writes_held
from tests.support import wait_for
from tests.support.redis_family import RedisProcess, Sentinels

DOWN_AFTER: Final = 2.0  # seconds until the Sentinels replace a master that a fault took away
NEVER: Final = 24 * 3600.0  # seconds: no other master is replaced, however busy the machine is


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
        """Kill the master. What it has confirmed is replicated."""
        master = self.master
        with writes_held(master):
            wait_for(self._servers.in_sync, "replica in sync")
            master.kill()
        self._servers.start_as_replica(master, self._successor_of(master))
        # Not in sync: events go on to flow, and the master is ahead.
        wait_for(self._servers.is_followed, "replica")

    def stop_master(self, seconds: float) -> set[str]:
        """Stop the master until the replica has taken over, and for so long at least.

        What it has confirmed by then is replicated. When it wakes it runs what waits in it and in
        its sockets, until it is demoted.

        Returns:
            The jobs of which it confirms events then. These are lost with it.
        """
        master = self.master
        with ExitStack() as stack:
            with writes_held(master):
                wait_for(self._servers.in_sync, "replica in sync")
                published = stack.enter_context(PublishedJobs(master))
                master.popen.send_signal(signal.SIGSTOP)
            began = time.monotonic()
            try:
                self._successor_of(master)
                time.sleep(max(0.0, began + seconds - time.monotonic()))
            finally:
                master.popen.send_signal(signal.SIGCONT)
            forgotten = published.until_demoted()
        wait_for(self._servers.is_followed, "replica")
        return forgotten

    def _successor_of(self, master: RedisProcess) -> RedisProcess:
        self._servers.tolerate(DOWN_AFTER)
        try:
            return self._servers.successor_of(master)
        finally:
            self._servers.tolerate(NEVER)
