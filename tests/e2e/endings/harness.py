"""Workers, servers and clients with which the tests in this folder observe how a job ends."""

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
from tests.support import Follower, Server, Worker, following, new_id, outside_of_the_loop, running

Token = Callable[..., str]
BEGUN = ["queued", "started 1/1", "log"]
DONE = "complete 'done'"
ANY = ("prefork", "threads", "solo", "gevent", "eventlet")


@dataclass
class Scene:
    """A worker, and a client that follows what is sent to it."""

    worker: Worker
    alice: Follower
    folder: Path

    def __post_init__(self) -> None:
        self.queue = self.worker.name

    def send(self, task: Any, *args: Any, **options: Any) -> str:
        return self.dispatch(task.si(*args), **options)

    def dispatch(self, signature: Any, **options: Any) -> str:
        return str(self.apply(signature, **options).id)

    def apply(self, signature: Any, **options: Any) -> AsyncResult[Any]:
        options = {"queue": self.queue, "headers": {OWNER_HEADER: "alice"}, **options}
        with self.broker() as connection:
            options["connection"] = connection
            result: AsyncResult[Any] = outside_of_the_loop(signature.apply_async, **options)
        return result

    def broker(self) -> Connection:
        """A connection of one's own: an app keeps those to the broker that it had first."""
        return Connection(self.worker.env["CELERY_BROKER_URL"])

    def marker(self) -> str:
        return str(self.folder / new_id("marker"))

    def revoke(self, job_id: str, **options: Any) -> None:
        url = self.worker.env["CELERY_BROKER_URL"]
        with Celery(broker=url, set_as_current=False) as app:
            app.control.revoke(job_id, destination=[f"{self.worker.name}@test"], **options)

    async def runs(self, job_id: str, count: int = 1) -> None:
        """Wait until so many runs of the job are under way."""
        await self.alice.transcript.logged(job_id, count)

    async def follow(self, job_id: str) -> None:
        assert (await self.alice.join(job_id))["ok"]

    async def story(self, job_id: str) -> list[str]:
        """What was sent of the job up to its end, and a moment longer."""
        await self.alice.transcript.end(job_id)
        # Whatever else the worker had to say of it, it has said before the end of another job.
        for _ in range(2):
            other = self.send(jobs.succeeds)
            await self.follow(other)
            await self.alice.transcript.end(other)
        return await self.told(job_id)

    async def told(self, job_id: str) -> list[str]:
        told = story_of(self.alice, job_id)
        kept = len(self.alice.transcript.names(job_id))
        await self.follow(job_id)
        again = self.alice.transcript.events[-1]
        assert story_of(self.alice, job_id, kept)[-1] == told[-1], again
        return told


def story_of(follower: Follower, job_id: str, start: int = 0) -> list[str]:
    events = [(n, d) for n, d in follower.transcript.events if d.get("job_id") == job_id][start:]
    return [line for name, data in events if (line := brief(name, data))]


def brief(name: str, data: dict[str, Any]) -> str:
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
    """A worker for each pool, started when it is asked for."""

    def __init__(self, url: str, folder: Path) -> None:
        self._url = url
        self._folder = folder
        self._workers: dict[str, Worker] = {}
        self.stack = ExitStack()

    def of(self, pool: str) -> Worker:
        if pool not in self._workers:
            self._workers[pool] = self.stack.enter_context(running(self.start(pool))).ready()
        return self._workers[pool]

    def start(self, pool: str, *arguments: str, env: dict[str, str] | None = None) -> Worker:
        log_path = self._folder / new_id(pool)
        name = new_id("worker")
        return Worker(
            log_path, self._url, self._url, f"--pool={pool}", "--concurrency=2", *arguments,
            app="tests.ending_jobs", name=name, env={"TASK_QUEUE": name, **(env or {})},
        )  # fmt: skip


class Quick:
    """A transport whose leases run out soon, and workers that a test may kill."""

    def __init__(self, valkey: Valkey, server: Server, folder: Path, env: dict[str, str]) -> None:
        self._env = env
        self.valkey = valkey
        self.server = server
        self.folder = folder
        self.stack = ExitStack()
        self._workers = Workers(valkey.url, folder)

    def worker(self, *arguments: str, pool: str = "prefork", **env: str) -> Worker:
        worker = self._workers.start(pool, *arguments, env={**self._env, **env})
        return self.stack.enter_context(running(worker)).ready()

    async def another(self, former: Worker) -> Worker:
        """A worker that takes over from one that is gone. Clients go on meanwhile."""
        worker = self._workers.start("prefork", "-Q", former.name, env=self._env)
        return await asyncio.to_thread(self.stack.enter_context(running(worker)).ready)


@asynccontextmanager
async def at(quick: Quick, worker: Worker, token: Token) -> AsyncIterator[Scene]:
    async with following(quick.server.url, token()) as alice:
        yield Scene(worker, alice, quick.folder)
