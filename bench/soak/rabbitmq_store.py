"""RabbitMQ in a soak, and its faults."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from typing import Final

from kombu.connection import Connection

from bench.soak.faults import FaultKinds
from bench.soak.job_tracker import JobTracker
from bench.soak.process_faults import stop_processes
from jobcast.transports.amqp.names import Names
from tests.support import wait_for
from tests.support.rabbitmq import RabbitMQ

CRASH: Final = "broker killed"
PAUSE: Final = "broker paused (SIGSTOP)"
ALARM: Final = "memory alarm"
DETECTION: Final = 8.0  # seconds until every process has detected a deleted exchange
DELETE_EVENTS: Final = f"exchange {Names().events} deleted"
DELETE_SERVERS: Final = f"exchange {Names().servers} deleted"
DELETE_LEASES: Final = f"exchange {Names().leases} deleted"


class RabbitStore:
    """One RabbitMQ node."""

    def __init__(self, folder: Path) -> None:
        data = folder / "rabbitmq"
        data.mkdir()
        self._rabbitmq = RabbitMQ(data)
        self.url = self._rabbitmq.url
        self.port: int | None = self._rabbitmq.port

    def ready(self) -> None:
        self._rabbitmq.ready()

    def kinds(
        self, rng: random.Random, jobs: JobTracker, all_ready: Callable[[], bool]
    ) -> FaultKinds:
        del jobs  # these faults lose no confirmed events
        self._all_ready = all_ready
        self._rng, self._repair_lock = rng, asyncio.Lock()
        return {
            CRASH: self._crash,
            PAUSE: self._pause,
            ALARM: self._alarm,
            DELETE_EVENTS: lambda: self._delete(Names().events),
            DELETE_SERVERS: lambda: self._delete(Names().servers),
            DELETE_LEASES: lambda: self._delete(Names().leases),
        }

    def kill(self) -> None:
        self._rabbitmq.kill()

    async def _crash(self) -> bool:
        async with self._repair_lock:
            await asyncio.to_thread(self._rabbitmq.crash)
            await asyncio.sleep(self._rng.uniform(0, 1))
            self._rabbitmq.start()
            await asyncio.to_thread(self._rabbitmq.ready)
        return True

    async def _pause(self) -> bool:
        async with self._repair_lock:
            await stop_processes([self._rabbitmq.node.popen.pid], self._rng.uniform(0.5, 2))
        return True

    async def _alarm(self) -> bool:
        async with self._repair_lock:
            alarm = self._rabbitmq.alarm()
            await asyncio.to_thread(alarm.__enter__)
            try:
                await asyncio.sleep(self._rng.uniform(0.5, 3))
            finally:
                await asyncio.to_thread(alarm.__exit__, None, None, None)
        return True

    async def _delete(self, exchange: str) -> bool:
        async with self._repair_lock:
            # Events published while only some processes are bound are missing at the others, as
            # documented.
            await asyncio.to_thread(wait_for, self._all_ready, "ready processes")
            await asyncio.to_thread(self._delete_now, exchange)
            await asyncio.sleep(DETECTION)
            await asyncio.to_thread(wait_for, self._all_ready, "ready processes")
        return True

    def _delete_now(self, exchange: str) -> None:
        with Connection(self.url) as operator:
            operator.channel().exchange_delete(exchange)
