"""Redis and Valkey in a soak: standalone, behind Sentinels and as a cluster, with their faults."""

from __future__ import annotations

import asyncio
import random
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final

from bench.servers import DURABLE, RestartableValkey
from bench.soak.failover import Failovers
from bench.soak.faults import Fault, FaultKinds
from bench.soak.job_tracker import JobTracker
from bench.soak.process_faults import stop_processes
from bench.soak.redis_writes import PublishedJobs, writes_paused
from jobcast.errors import PublishFailed
from jobcast.events import JobComplete, JobLog
from jobcast.transports import Outgoing, open_publisher
from tests.support import Process, wait_for
from tests.support.redis_family import Cluster, RedisProcess, Sentinels
from tests.support.refusals import BUSY, MISCONF, NOREPLICAS, refusing

KILL: Final = "server killed"
FAIL_OVER: Final = "master killed, replica promoted"
PAUSE: Final = "server paused (SIGSTOP)"
PAUSE_MASTER: Final = "master paused until a replica is promoted"
CUT_PUBSUB: Final = "CLIENT KILL TYPE pubsub"
CUT_NORMAL: Final = "CLIENT KILL TYPE normal"
RESTORE: Final = "old backup restored"
SECOND: Final = "second deployment with the same job ids"
MOVE: Final = "slot moved"
REFUSALS: Final = (MISCONF, NOREPLICAS, BUSY)

# Shorter and longer than the 5 seconds that a worker waits for an answer.
PAUSE_SECONDS: Final = (3.0, 12.0)

# A former master has no replica when it resumes, and confirms nothing.
WITH_REPLICA: Final = ("--min-replicas-to-write", "1", "--min-replicas-max-lag", "2")

Server = RedisProcess


class RedisFaults:
    """Faults of Redis servers.

    Args:
        choose: return a running server.
        repair_lock: held while a server is broken.
        rng: the source of all choices.
        jobs: the jobs of the run.
    """

    def __init__(
        self,
        choose: Callable[[], Server],
        repair_lock: asyncio.Lock,
        rng: random.Random,
        jobs: JobTracker,
    ) -> None:
        self._choose = choose
        self._repair_lock = repair_lock
        self._rng = rng
        self._jobs = jobs

    @property
    def refusals(self) -> FaultKinds:
        kinds: dict[str, Fault] = {code: partial(self._refuse, code) for code in REFUSALS}
        kinds[CUT_PUBSUB] = partial(self._kill_clients, "pubsub")
        kinds[CUT_NORMAL] = partial(self._kill_clients, "normal")
        return kinds

    async def kill(self) -> bool:
        pause = self._rng.uniform(0, 1)
        async with self._repair_lock:
            server = self._choose()
            await asyncio.to_thread(server.kill)
            await asyncio.sleep(pause)
            server.start()
            await asyncio.to_thread(server.ready)
        return True

    async def pause(self) -> bool:
        async with self._repair_lock:
            await stop_processes([self._choose().popen.pid], self._rng.uniform(0.5, 3))
        return True

    async def restore(self) -> bool:
        """Restart a server with an old backup, which loses the latest events."""
        async with self._repair_lock:
            server = self._choose()
            lost = await asyncio.to_thread(_restore, server, self._rng.uniform(0.2, 0.5))
            self._jobs.mark_incomplete(lost)
        return True

    async def publish_as_another(self, url: str) -> bool:
        """Publish and end jobs with the same ids on another database of the server."""
        job_ids = sorted(self._jobs.running)
        publisher = open_publisher(url)
        try:
            for _ in range(20):
                for job_id in job_ids:
                    line = JobLog(job_id=job_id, level="info", message="from another deployment")
                    end = JobComplete(job_id=job_id, result="from another deployment")
                    batch = [Outgoing.of(line), Outgoing.of(end)]
                    await asyncio.to_thread(_publish, publisher.publish, batch)
        finally:
            publisher.close()
        return bool(job_ids)

    async def _refuse(self, code: str) -> bool:
        async with self._repair_lock:
            refusal = refusing(self._choose(), code)
            await asyncio.to_thread(refusal.__enter__)
            try:
                await asyncio.sleep(self._rng.uniform(0.5, 2))
            finally:
                await asyncio.to_thread(refusal.__exit__, None, None, None)
        return True

    async def _kill_clients(self, kind: str) -> bool:
        async with self._repair_lock:
            server = self._choose()
            return bool(await asyncio.to_thread(server.command, "CLIENT", "KILL", "TYPE", kind))


def _restore(server: Server, seconds: float) -> set[str]:
    """Copy a server's data, and restart the server with the copy after a number of seconds.

    Returns:
        The jobs with events that the server confirmed in between.
    """
    data, backup = (server.folder / name for name in ("appendonlydir", "backup"))
    with ExitStack() as stack:
        with writes_paused(server):
            published = stack.enter_context(PublishedJobs(server))
            shutil.copytree(data, backup)
        time.sleep(seconds)
        with writes_paused(server):
            lost = published.so_far()
            server.kill()
    shutil.rmtree(data)
    backup.rename(data)
    server.start()
    server.ready()
    return lost


def _publish(publish: Callable[[Sequence[Outgoing]], None], batch: Sequence[Outgoing]) -> None:
    try:
        publish(batch)
    except PublishFailed:
        time.sleep(0.05)  # another fault affects the server


class StandaloneRedis:
    """One Valkey server that keeps confirmed writes."""

    def __init__(self, folder: Path) -> None:
        self._valkey = RestartableValkey(folder / "events", *DURABLE)
        self.url = self._valkey.url
        self.port: int | None = self._valkey.port
        self.processes: list[Process] = [self._valkey]

    def ready(self) -> None:
        self._valkey.ready()

    def kinds(
        self, rng: random.Random, jobs: JobTracker, all_ready: Callable[[], bool]
    ) -> FaultKinds:
        del all_ready
        faults = RedisFaults(lambda: self._valkey, asyncio.Lock(), rng, jobs)
        other_url = self.url.removesuffix("/0") + "/1"
        return {
            KILL: faults.kill,
            PAUSE: faults.pause,
            RESTORE: faults.restore,
            SECOND: partial(faults.publish_as_another, other_url),
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

    def kinds(
        self, rng: random.Random, jobs: JobTracker, all_ready: Callable[[], bool]
    ) -> FaultKinds:
        del all_ready
        self._repair_lock = asyncio.Lock()
        self._rng, self._jobs = rng, jobs
        faults = RedisFaults(lambda: self._failovers.master, self._repair_lock, rng, jobs)
        return {FAIL_OVER: self._fail_over, PAUSE_MASTER: self._pause_master, **faults.refusals}

    def kill(self) -> None:
        self._servers.kill()

    async def _fail_over(self) -> bool:
        async with self._repair_lock:
            await asyncio.to_thread(self._failovers.kill_master)
        return True

    async def _pause_master(self) -> bool:
        async with self._repair_lock:
            seconds = self._rng.uniform(*PAUSE_SECONDS)
            lost = await asyncio.to_thread(self._failovers.stop_master, seconds)
            self._jobs.mark_incomplete(lost)
        return True


class RedisCluster:
    """Three masters without replicas, which keep confirmed writes."""

    def __init__(self, folder: Path) -> None:
        self._cluster = Cluster(folder / "cluster", options=DURABLE)
        self.url = self._cluster.url
        self.port: int | None = None

    def ready(self) -> None:
        self._cluster.ready()

    def kinds(
        self, rng: random.Random, jobs: JobTracker, all_ready: Callable[[], bool]
    ) -> FaultKinds:
        del all_ready
        self._repair_lock = asyncio.Lock()
        self._rng, self._jobs = rng, jobs
        choose = partial(rng.choice, self._cluster.nodes)
        faults = RedisFaults(choose, self._repair_lock, rng, jobs)
        return {KILL: faults.kill, PAUSE: faults.pause, MOVE: self._move, **faults.refusals}

    def kill(self) -> None:
        self._cluster.kill()

    async def _move(self) -> bool:
        running = sorted(self._jobs.running)
        if not running:
            return False
        async with self._repair_lock:
            key = f"{{{self._rng.choice(running)}}}"
            await asyncio.to_thread(wait_for, self._cluster.complete, "complete cluster")
            await asyncio.to_thread(self._cluster.move_slot_of, key)
        return True
