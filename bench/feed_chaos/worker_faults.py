"""Faults of Celery workers and of their child processes."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil

from bench.soak.faults import FaultKinds
from bench.soak.process_faults import STOP_WORKER, stop_processes
from tests.support import Process, eventually

KILL_WORKER: Final = "worker killed"
KILL_CHILD: Final = "child of a worker killed"


class RestartableWorker(Process):
    """A worker with two child processes. Each start has a log of its own."""

    def __init__(self, folder: Path, name: str, env: Mapping[str, str]) -> None:
        self.repair_lock = asyncio.Lock()
        self._folder = folder
        self._name = f"{name}@here"
        self._starts = 0
        arguments = [
            sys.executable, "-m", "celery", "-A", "bench.feed_chaos.jobs", "worker",
            "--loglevel=info", "-n", self._name, "--pool=prefork", "--concurrency=2",
            "--without-mingle", "--without-gossip",
        ]  # fmt: skip
        super().__init__(arguments, folder, env)

    def start(self) -> None:
        self._starts += 1
        self.log_path = self._folder / f"{self._name}-{self._starts}.log"
        super().start()

    async def ready(self) -> None:
        await eventually(lambda: f"{self._name} ready" in self.log, "ready worker")


class WorkerFaults:
    """Faults of workers, one at a time for each worker.

    Args:
        workers: the workers of the run.
        rng: the source of all choices.
    """

    def __init__(self, workers: Sequence[RestartableWorker], rng: random.Random) -> None:
        self._workers = workers
        self._rng = rng

    @property
    def kinds(self) -> FaultKinds:
        return {
            KILL_WORKER: self._kill_worker,
            KILL_CHILD: self._kill_child,
            STOP_WORKER: self._stop_one,
        }

    async def _kill_worker(self) -> bool:
        worker, pause = self._rng.choice(self._workers), self._rng.uniform(0, 1)
        async with worker.repair_lock:
            await asyncio.to_thread(worker.kill)
            await asyncio.sleep(pause)
            worker.start()
            await worker.ready()
        return True

    async def _kill_child(self) -> bool:
        worker, choice = self._rng.choice(self._workers), self._rng.random()
        async with worker.repair_lock:
            children = psutil.Process(worker.popen.pid).children()
            if not children:
                return False
            with suppress(ProcessLookupError):
                os.kill(children[int(choice * len(children))].pid, signal.SIGKILL)
        return True

    async def _stop_one(self) -> bool:
        """Stop the main process of a worker or one of its children for a while."""
        worker, choice = self._rng.choice(self._workers), self._rng.random()
        pause = self._rng.uniform(0.5, 3)
        async with worker.repair_lock:
            main = psutil.Process(worker.popen.pid)
            processes = [main, *main.children()]
            with suppress(ProcessLookupError):
                await stop_processes([processes[int(choice * len(processes))].pid], pause)
        return True
