"""Workers whose jobs are cancelled, and the outcomes in jobcast and in Celery."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from celery import Celery
from celery.result import AsyncResult
from kombu.connection import Connection

from jobcast.celery.headers import OWNER_HEADER
from jobcast.errors import TransportUnavailable
from jobcast.transports import open_publisher
from jobcast.transports.cancellation import CancelAnswer, Cancellation
from tests import cancelled_jobs as jobs
from tests.support import Follower, Server, Worker, call_in_thread, eventually, following, new_id

Token = Callable[..., str]
MESSAGE = "no longer needed"


@dataclass
class Harness:
    """A worker, a client that follows its jobs, and the transport that cancels them."""

    worker: Worker
    alice: Follower
    folder: Path
    transport: Any
    queue: str = ""
    notes: dict[str, str] = field(default_factory=dict)  # the file of each job

    def __post_init__(self) -> None:
        self.queue = self.queue or self.worker.name

    def send(self, task: Any, *args: Any, **options: Any) -> AsyncResult[Any]:
        notes = str(self.folder / new_id("notes"))
        result = self.apply(task.si(*args, notes), notes, **options)
        self.notes[result.id] = notes
        return result

    def apply(self, signature: Any, notes: str, **options: Any) -> AsyncResult[Any]:
        options = {
            "queue": self.queue, "headers": {OWNER_HEADER: "alice"},
            "link_error": jobs.called_back.s(notes).set(queue=self.queue), **options,
        }  # fmt: skip
        with Connection(self.worker.env["CELERY_BROKER_URL"]) as connection:
            options["connection"] = connection
            result: AsyncResult[Any] = call_in_thread(signature.apply_async, **options)
        return result

    async def start_chord(self, kind: str) -> tuple[str, str, str]:
        """Start a chord in the worker. Return the ids of its body and last member, and its file."""
        starter = await self.followed(self.send(jobs.starts_a_chord, kind))
        body, member = (await self.alice.transcript.end(starter))["result"]
        for job_id in (body, member):
            assert (await self.alice.join(job_id))["ok"]
        return body, member, self.notes[starter]

    def consume(self, queue: str) -> None:
        """Have the worker consume another queue."""
        url = self.worker.env["CELERY_BROKER_URL"]
        with Celery(broker=url, set_as_current=False) as app:
            app.control.add_consumer(queue, destination=[f"{self.worker.name}@test"])

    def steps(self, job_id: str) -> list[str]:
        return jobs.steps(self.notes[job_id])

    async def begun(self, result: AsyncResult[Any]) -> str:
        """Follow a job, and wait until its task runs."""
        job_id = await self.followed(result)
        await eventually(lambda: "began" in self.steps(job_id), f"start of {job_id}")
        return job_id

    async def followed(self, result: AsyncResult[Any]) -> str:
        job_id = str(result.id)
        assert (await self.alice.join(job_id))["ok"]
        return job_id

    def cancel(self, job_id: str) -> CancelAnswer:
        answer: CancelAnswer = self.transport.cancel(
            Cancellation(job_id=job_id, by="alice", message=MESSAGE)
        )
        return answer

    def cancel_when_available(self, job_id: str) -> CancelAnswer:
        """Repeat the request until the transport can be reached."""
        while True:
            try:
                return self.cancel(job_id)
            except TransportUnavailable:
                continue

    async def wait_cancelled(self, job_id: str) -> None:
        """Wait until the job is cancelled for its followers and in Celery, and stays so."""
        end = await self.alice.transcript.end(job_id)
        shown = {name: end.get(name) for name in ("error", "reason", "message", "by")}
        assert shown == {
            "error": "JobCancelled", "reason": "cancelled", "message": MESSAGE, "by": "alice",
        }  # fmt: skip
        await self.wait_state(job_id, "REVOKED")
        await self.settle()
        assert len(self.alice.transcript.of(job_id, "job_error", "job_complete")) == 1
        assert self.state(job_id) == "REVOKED"

    def state(self, job_id: str) -> str:
        with Celery(backend=self.worker.env["CELERY_BROKER_URL"], set_as_current=False) as app:
            # A result of Celery would subscribe to the backend.
            state = str(app.backend.get_state(job_id))
            app.backend.client.close()
            return state

    async def wait_state(self, job_id: str, state: str) -> None:
        await eventually(lambda: self.state(job_id) == state, f"{state} of {job_id}")

    async def settle(self) -> None:
        """Wait until the worker has handled all that it was sent before."""
        for _ in range(2):
            job_id = await self.followed(self.send(jobs.runs))
            await self.alice.transcript.end(job_id)


class Workers:
    """Workers by pool, started on first use."""

    def __init__(self, url: str, folder: Path) -> None:
        self._url = url
        self._folder = folder
        self._workers: dict[str, Worker] = {}
        self.stack = ExitStack()

    def for_pool(self, pool: str) -> Worker:
        if pool not in self._workers:
            worker = self.create(f"--pool={pool}", "--concurrency=2")
            self._workers[pool] = worker.ready()
        return self._workers[pool]

    def create(self, *arguments: str, env: dict[str, str] | None = None) -> Worker:
        name = new_id("worker")
        worker = Worker(
            self._folder / new_id("log"), self._url, self._url, *arguments,
            app="tests.cancelled_jobs", name=name, env={"TASK_QUEUE": name, **(env or {})},
        )  # fmt: skip
        self.stack.callback(worker.kill)
        return worker


@asynccontextmanager
async def harness_of(
    worker: Worker, server: Server, url: str, folder: Path, token: Token, queue: str = ""
) -> AsyncIterator[Harness]:
    transport = open_publisher(url)
    try:
        async with following(server.url, token(jobs=["*"])) as alice:
            yield Harness(worker, alice, folder, transport, queue)
    finally:
        transport.close()
