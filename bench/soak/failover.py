"""Failovers behind Sentinels in which Redis loses no confirmed write, or only reported ones.

Replication is asynchronous: a failover loses confirmed writes that the master has not replicated.
Such documented losses would hide losses of jobcast. Therefore these failovers pause the master's
writes, wait until the replica is in sync, and only then kill or stop the master.
"""

from __future__ import annotations

import signal
import time
from contextlib import ExitStack

from bench.soak.redis_writes import PublishedJobs, writes_paused
from tests.support import wait_for
from tests.support.redis_family import RedisProcess, Sentinels


class Failovers:
    """Kills or stops the master, and waits for the replica's promotion."""

    def __init__(self, servers: Sentinels) -> None:
        self._servers = servers

    def ready(self) -> None:
        self._servers.ready()

    @property
    def master(self) -> RedisProcess:
        master: RedisProcess = wait_for(lambda: self._servers.master, "master")
        return master

    def kill_master(self) -> None:
        """Kill the master after it has replicated every confirmed write."""
        master = self.master
        with writes_paused(master):
            wait_for(self._servers.in_sync, "replica in sync")
            master.kill()
        self._servers.start_as_replica(master, self._servers.successor_of(master))
        # The replica need not be in sync: new events keep the master ahead.
        wait_for(self._servers.is_followed, "replica")

    def stop_master(self, seconds: float) -> set[str]:
        """Stop the master until the replica is promoted, and for at least ``seconds``.

        The master has replicated every confirmed write before. When it resumes, it runs delayed
        writes and those in its sockets until it is demoted.

        Returns:
            The jobs with events that the master confirms after it resumes. These events are lost.
        """
        master = self.master
        with ExitStack() as stack:
            with writes_paused(master):
                wait_for(self._servers.in_sync, "replica in sync")
                published = stack.enter_context(PublishedJobs(master))
                master.popen.send_signal(signal.SIGSTOP)
            began = time.monotonic()
            try:
                self._servers.successor_of(master)
                time.sleep(max(0.0, began + seconds - time.monotonic()))
            finally:
                master.popen.send_signal(signal.SIGCONT)
            lost = published.until_demoted()
        wait_for(self._servers.is_followed, "replica")
        return lost
