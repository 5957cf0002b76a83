"""Workers, servers and clients that observe how jobs end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from celery import Celery
from celery.result import AsyncResult
from kombu.connection import Connection

from jobcast.celery.headers import OWNER_HEADER
from tests import ending_jobs as jobs
from tests.conftest import Valkey
from tests.support import Follower, Server, Worker, call_in_thread, following, new_id, running

Token = Callable[..., str]
STARTED = ["queued", "started 1/1", "log"]
DONE = "complete 'done'"
ALL_POOLS = ("prefork", "threads", "solo", "gevent", "eventlet")


@dataclass
class Harness:
    """A worker and a client that follows the jobs sent to it."""

    worker: Worker
    alice: Follower
    folder: Path

    def __post_init__(self) -> None:
        self.queue = self.worker.name

    def send(self, task: Any, *args: Any, **options: Any) -> str:
        return self.send_signature(task.si(*args), **options)

    def send_signature(self, signature: Any, **options: Any) -> str:
        return str(self.apply(signature, **options).id)

    def apply(self, signature: Any, **options: Any) -> AsyncResult[Any]:
        options = {"queue": self.queue, "headers": {OWNER_HEADER: "alice"}, **options}
        with self.broker() as connection:
            options["connection"] = connection
            result: AsyncResult[Any] = call_in_thread(signature.apply_async, **options)
        return result

    def broker(self) -> Connection:
        """Open a connection to the worker's broker. An app keeps using its first broker."""
        return Connection(self.worker.env["CELERY_BROKER_URL"])

    def marker(self) -> str:
        return str(self.folder / new_id("marker"))

    def revoke(self, job_id: str, **options: Any) -> None:
        url = self.worker.env["CELERY_BROKER_URL"]
        with Celery(broker=url, set_as_current=False) as app:
            app.control.revoke(job_id, destination=[f"{self.worker.name}@test"], **options)

    async def wait_until_running(self, job_id: str, count: int = 1) -> None:
        """Wait until the given number of runs of the job have started."""
        await self.alice.transcript.wait_logged(job_id, count)

    async def wait_until_active(self, job_id: str) -> None:
        """Wait until the main process of the worker also knows that the job has started."""
        await self.wait_until_running(job_id)
        await asyncio.to_thread(self.worker.wait_active, job_id)

    async def follow(self, job_id: str) -> None:
        assert (await self.alice.join(job_id))["ok"]

    async def final_timeline(self, job_id: str) -> list[str]:
        """Wait for the end of the job and return its timeline, including events after the end."""
        await self.alice.transcript.end(job_id)
        # Further events of the job arrive before the end of a later job.
        for _ in range(2):
            other = self.send(jobs.succeeds)
            await self.follow(other)
            await self.alice.transcript.end(other)
        return await self.timeline(job_id)

    async def timeline(self, job_id: str) -> list[str]:
        """Return the timeline so far. Check that a new join repeats its last event."""
        lines = timeline_of(self.alice, job_id)
        seen = len(self.alice.transcript.names(job_id))
        await self.follow(job_id)
        last = self.alice.transcript.events[-1]
        assert timeline_of(self.alice, job_id, seen)[-1] == lines[-1], last
        return lines


def timeline_of(follower: Follower, job_id: str, start: int = 0) -> list[str]:
    """Return a line for each event of a job that the follower has received."""
    events = [(n, d) for n, d in follower.transcript.events if d.get("job_id") == job_id][start:]
    return [line for name, data in events if (line := summary(name, data))]


def summary(name: str, data: dict[str, Any]) -> str:
    match name:
        case "job_status":
            match data["status"]:
                case "started":
                    return f"started {data['attempt']}/{data['run']}"
                case "retrying":
                    return f"retrying {data['attempt']} {data.get('error')}"
            return str(data["status"])
        case "job_log":
            return "log"
        case "job_complete":
            return f"complete {data['result']!r}"
        case "job_error":
            return f"error {data['error']} {data['reason']}"
    return ""


class Workers:
    """Workers by pool, started on first use."""

    def __init__(self, url: str, folder: Path) -> None:
        self._url = url
        self._folder = folder
        self._workers: dict[str, Worker] = {}
        self.stack = ExitStack()

    def for_pool(self, pool: str) -> Worker:
        if pool not in self._workers:
            self._workers[pool] = self.stack.enter_context(running(self.create(pool))).ready()
        return self._workers[pool]

    def create(self, pool: str, *arguments: str, env: dict[str, str] | None = None) -> Worker:
        log_path = self._folder / new_id(pool)
        name = new_id("worker")
        return Worker(
            log_path, self._url, self._url, f"--pool={pool}", "--concurrency=2", *arguments,
            app="tests.ending_jobs", name=name, env={"TASK_QUEUE": name, **(env or {})},
        )  # fmt: skip


class Deployment:
    """A transport with short leases, its server, and workers that a test may kill."""

    def __init__(self, valkey: Valkey, server: Server, folder: Path, env: dict[str, str]) -> None:
        self._env = env
        self.valkey = valkey
        self.server = server
        self.folder = folder
        self.stack = ExitStack()
        self._workers = Workers(valkey.url, folder)

    def worker(self, *arguments: str, pool: str = "prefork", **env: str) -> Worker:
        worker = self._workers.create(pool, *arguments, env={**self._env, **env})
        return self.stack.enter_context(running(worker)).ready()

    async def start_replacement(self, former: Worker) -> Worker:
        """Start a worker on the queue of a former one. The event loop continues meanwhile."""
        worker = self._workers.create("prefork", "-Q", former.name, env=self._env)
        return await asyncio.to_thread(self.stack.enter_context(running(worker)).ready)


@asynccontextmanager
async def harness_on(
    deployment: Deployment, worker: Worker, token: Token
) -> AsyncIterator[Harness]:
    async with following(deployment.server.url, token()) as alice:
        yield Harness(worker, alice, deployment.folder)
