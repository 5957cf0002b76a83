"""Redis and Valkey in a soak: alone, behind Sentinels, as a cluster; and what happens to them."""

from __future__ import annotations

import asyncio
import random
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final

from bench.servers import DURABLE, RestartableValkey
from bench.soak.failover import Failovers
from bench.soak.faults import Fault, Kinds
from bench.soak.job_tracker import Sent
from bench.soak.process_faults import stopped
from bench.soak.redis_writes import PublishedJobs, writes_held
from jobcast.errors import PublishFailed
from jobcast.events import JobComplete, JobLog
from jobcast.transports import Outgoing, open_publisher
from tests.support import Process, wait_for
from tests.support.redis_family import Cluster, Sentinels
from tests.support.refusals import BUSY, MISCONF, NOREPLICAS, refusing

KILL: Final = "server killed"
FAIL_OVER: Final = "master killed, a replica takes over"
PAUSE: Final = "server paused (SIGSTOP)"
PAUSE_MASTER: Final = "master paused until a replica has taken over"
CUT_PUBSUB: Final = "CLIENT KILL TYPE pubsub"
CUT_NORMAL: Final = "CLIENT KILL TYPE normal"
RESTORE: Final = "older copy restored"
SECOND: Final = "second deployment with the same job ids"
MOVE: Final = "slot moved"
REFUSALS: Final = (MISCONF, NOREPLICAS, BUSY)

# Shorter and longer than a worker waits for an answer, which is 5 seconds.
PAUSED: Final = (3.0, 12.0)  # seconds

# A master that wakes up after a replica has taken over has none itself, and confirms nothing.
WITH_REPLICA: Final = ("--min-replicas-to-write", "1", "--min-replicas-max-lag", "2")

Server = Any  # a Valkey or a RedisProcess, with a lock ``mending``


class RedisFaults:
    """Faults of servers that one chooses among.

    Args:
        choose: a server that is there.
        mending: held while one of them is broken.
        rng: chooses.
        sent: the jobs of the run.
    """

    def __init__(
        self, choose: Callable[[], Server], mending: asyncio.Lock, rng: random.Random, sent: Sent
    ) -> None:
        self._choose = choose
        self._mending = mending
        self._rng = rng
        self._sent = sent

    @property
    def refusals(self) -> Kinds:
        kinds: dict[str, Fault] = {code: partial(self._refuse, code) for code in REFUSALS}
        kinds[CUT_PUBSUB] = partial(self._kill_clients, "pubsub")
        kinds[CUT_NORMAL] = partial(self._kill_clients, "normal")
        return kinds

    async def kill(self) -> bool:
        pause = self._rng.uniform(0, 1)
        async with self._mending:
            server = self._choose()
            await asyncio.to_thread(server.kill)
            await asyncio.sleep(pause)
            server.start()
            await asyncio.to_thread(server.ready)
        return True

    async def pause(self) -> bool:
        async with self._mending:
            await stopped([self._choose().popen.pid], self._rng.uniform(0.5, 3))
        return True

    async def restore(self) -> bool:
        """Let a server come back as it was a moment ago: what it has forgotten is lost."""
        async with self._mending:
            server = self._choose()
            forgotten = await asyncio.to_thread(_restore, server, self._rng.uniform(0.2, 0.5))
            # Nobody can send again what the server had confirmed.
            self._sent.excuse(forgotten)
        return True

    async def publish_as_another(self, url: str) -> bool:
        """Publish, and end, jobs of the same ids on another database of the server."""
        job_ids = sorted(self._sent.running)
        publisher = open_publisher(url)
        try:
            for _ in range(20):
                for job_id in job_ids:
                    line = JobLog(job_id=job_id, level="info", message="of another deployment")
                    end = JobComplete(job_id=job_id, result="of another deployment")
                    batch = [Outgoing.of(line), Outgoing.of(end)]
                    await asyncio.to_thread(_publish, publisher.publish, batch)
        finally:
            publisher.close()
        return bool(job_ids)

    async def _refuse(self, code: str) -> bool:
        async with self._mending:
            refusal = refusing(self._choose(), code)
            await asyncio.to_thread(refusal.__enter__)
            try:
                await asyncio.sleep(self._rng.uniform(0.5, 2))
            finally:
                await asyncio.to_thread(refusal.__exit__, None, None, None)
        return True

    async def _kill_clients(self, kind: str) -> bool:
        async with self._mending:
            server = self._choose()
            return bool(await asyncio.to_thread(server.command, "CLIENT", "KILL", "TYPE", kind))


def _restore(server: Server, seconds: float) -> set[str]:
    """Copy a server's data, and restart the server with the copy after so many seconds.

    Returns:
        The jobs of which it has confirmed events in between.
    """
    here, copy = (server.folder / name for name in ("appendonlydir", "older"))
    with ExitStack() as stack:
        with writes_held(server):
            published = stack.enter_context(PublishedJobs(server))
            shutil.copytree(here, copy)
        time.sleep(seconds)
        with writes_held(server):
            forgotten = published.so_far()
            server.kill()
    shutil.rmtree(here)
    copy.rename(here)
    server.start()
    server.ready()
    return forgotten


def _publish(publish: Callable[[Sequence[Outgoing]], None], batch: Sequence[Outgoing]) -> None:
    try:
        publish(batch)
    except PublishFailed:
        time.sleep(0.05)  # another fault has hit this deployment, too


class RedisAlone:
    """One Valkey that keeps what it has confirmed."""

    def __init__(self, folder: Path) -> None:
        self._valkey = RestartableValkey(folder / "events", *DURABLE)
        self.url = self._valkey.url
        self.port: int | None = self._valkey.port
        self.processes: list[Process] = [self._valkey]

    def ready(self) -> None:
        self._valkey.ready()

    def kinds(self, rng: random.Random, sent: Sent, are_ready: Callable[[], bool]) -> Kinds:
        del are_ready
        faults = RedisFaults(lambda: self._valkey, asyncio.Lock(), rng, sent)
        other = self.url.removesuffix("/0") + "/1"
        return {
            KILL: faults.kill,
            PAUSE: faults.pause,
            RESTORE: faults.restore,
            SECOND: partial(faults.publish_as_another, other),
            **faults.refusals,
        }

    def kill(self) -> None:
        self._valkey.kill()


class RedisSentinel:
    """A master, a replica, and three Sentinels."""

    def __init__(self, folder: Path) -> None:
        self._servers = Sentinels(folder / "sentinels", WITH_REPLICA)
        self._failovers = Failovers(self._servers)
        self.url = self._servers.url
        self.port: int | None = None

    def ready(self) -> None:
        self._failovers.ready()

    def kinds(self, rng: random.Random, sent: Sent, are_ready: Callable[[], bool]) -> Kinds:
        del are_ready
        self._mending = asyncio.Lock()
        self._rng, self._sent = rng, sent
        faults = RedisFaults(lambda: self._failovers.master, self._mending, rng, sent)
        return {FAIL_OVER: self._fail_over, PAUSE_MASTER: self._pause_master, **faults.refusals}

    def kill(self) -> None:
        self._servers.kill()

    async def _fail_over(self) -> bool:
        async with self._mending:
            await asyncio.to_thread(self._failovers.kill_master)
        return True

    async def _pause_master(self) -> bool:
        async with self._mending:
            seconds = self._rng.uniform(*PAUSED)
            forgotten = await asyncio.to_thread(self._failovers.stop_master, seconds)
            self._sent.excuse(forgotten)
        return True


class RedisCluster:
    """Three masters without replicas, which keep what they have confirmed."""

    def __init__(self, folder: Path) -> None:
        self._cluster = Cluster(folder / "cluster", options=DURABLE)
        self.url = self._cluster.url
        self.port: int | None = None

    def ready(self) -> None:
        self._cluster.ready()

    def kinds(self, rng: random.Random, sent: Sent, are_ready: Callable[[], bool]) -> Kinds:
        del are_ready
        self._mending = asyncio.Lock()
        self._rng, self._sent = rng, sent
        choose = partial(rng.choice, self._cluster.nodes)
        faults = RedisFaults(choose, self._mending, rng, sent)
        return {KILL: faults.kill, PAUSE: faults.pause, MOVE: self._move, **faults.refusals}

    def kill(self) -> None:
        self._cluster.kill()

    async def _move(self) -> bool:
        running = sorted(self._sent.running)
        if not running:
            return False
        async with self._mending:
            key = f"{{{self._rng.choice(running)}}}"
            await asyncio.to_thread(wait_for, self._cluster.complete, "cluster that is complete")
            await asyncio.to_thread(self._cluster.move_slot_of, key)
        return True
