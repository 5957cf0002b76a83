"""Faults of jobcast's processes and of their clients' connections."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import psutil

from bench.servers import RestartableServer
from bench.soak.faults import FaultKinds
from tests.support import Process
from tests.support.proxy import Proxy

KILL_REALTIME: Final = "Socket.IO process killed"
STOP_REALTIME: Final = "Socket.IO process stopped (SIGSTOP)"
STOP_WORKER: Final = "worker process stopped (SIGSTOP)"
LOAD: Final = "CPU overload"
RESET_ONE: Final = "client connection reset in mid-frame"
RESET_ALL: Final = "all client connections of a process reset"
CUT_SENDER: Final = "sender disconnected from the transport"
BUSY_LOOP: Final = "while True: pass"


class ProcessFaults:
    """Faults of processes, for every transport.

    Args:
        servers: Socket.IO processes, each behind a proxy.
        workers: Celery workers.
        sender: the proxy between this process, which sends the jobs, and the transport, if any.
        rng: the source of all choices.
    """

    def __init__(
        self,
        servers: Sequence[tuple[RestartableServer, Proxy]],
        workers: Sequence[Process],
        sender: Proxy | None,
        rng: random.Random,
    ) -> None:
        self._servers = servers
        self._workers = workers
        self._sender = sender
        self._rng = rng

    @property
    def kinds(self) -> FaultKinds:
        kinds = {
            KILL_REALTIME: self._kill_realtime,
            STOP_REALTIME: self._stop_realtime,
            STOP_WORKER: self._stop_worker,
            LOAD: self._load,
        }
        return {**kinds, CUT_SENDER: self._cut_sender} if self._sender is not None else kinds

    @property
    def resets(self) -> FaultKinds:
        return {RESET_ONE: self._reset_one, RESET_ALL: self._reset_all}

    async def _kill_realtime(self) -> bool:
        server, proxy = self._rng.choice(self._servers)
        pause = self._rng.uniform(0, 1)
        async with server.repair_lock:
            await asyncio.to_thread(server.kill)
            proxy.target = None
            await asyncio.sleep(pause)
            server.start()
            await asyncio.to_thread(server.ready)
            proxy.target = server.port
        return True

    async def _stop_realtime(self) -> bool:
        server, _ = self._rng.choice(self._servers)
        async with server.repair_lock:
            await stop_processes([server.popen.pid], self._rng.uniform(0.5, 2))
        return True

    async def _stop_worker(self) -> bool:
        """Stop the main process of a worker or one of its children."""
        worker = self._rng.choice(self._workers)
        main = psutil.Process(worker.popen.pid)
        chosen = self._rng.choice([main, *main.children()])
        await stop_processes([chosen.pid], self._rng.uniform(0.5, 3))
        return True

    async def _load(self) -> bool:
        with busy_processes(2 * (os.cpu_count() or 1)):
            await asyncio.sleep(self._rng.uniform(1, 3))
        return True

    async def _reset_one(self) -> bool:
        links = [link for _, proxy in self._servers for link in proxy.links]
        if not links:
            return False
        await self._rng.choice(links).cut_in_frame(self._rng.random(), timeout=2)
        return True

    async def _reset_all(self) -> bool:
        _, proxy = self._rng.choice(self._servers)
        return proxy.reset_all() > 0

    async def _cut_sender(self) -> bool:
        assert self._sender is not None
        target, self._sender.target = self._sender.target, None
        self._sender.reset_all()
        await asyncio.sleep(self._rng.uniform(0.5, 3))
        self._sender.target = target
        return True


async def stop_processes(pids: Sequence[int], seconds: float) -> None:
    """Stop processes for a number of seconds."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(seconds)
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Run a number of processes that only compute."""
    processes = [subprocess.Popen([sys.executable, "-c", BUSY_LOOP]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()
