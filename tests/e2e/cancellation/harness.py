"""Workers whose jobs are cancelled, and the outcomes in jobcast and in Celery."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from celery import Celery, chain
from celery.result import AsyncResult
from kombu.connection import Connection

from jobcast.celery.headers import OWNER_HEADER
from jobcast.transports import open_publisher
from jobcast.transports.cancellation import CancelAnswer, Cancellation
from tests import cancelled_jobs as jobs
from tests.conftest import Valkey
from tests.support import (
    TIMEOUT,
    Follower,
    Server,
    Worker,
    call_in_thread,
    eventually,
    following,
    new_id,
    restore_unacknowledged,
)
from tests.support.sse import http_client

Token = Callable[..., str]
MESSAGE = "no longer needed"
POOLS = ("prefork", "threads", "solo", "gevent", "eventlet")
TERMINATING = ("prefork", "gevent", "eventlet")
OUTAGE = 2.0  # seconds


def in_pools(*names: str) -> pytest.MarkDecorator:
    """Run a test in some of the pools only."""
    return pytest.mark.parametrize("worker", names, indirect=True)


@dataclass
class Harness:
    """A worker, a client that follows its jobs, and the transport that cancels them."""

    worker: PoolWorker
    alice: Follower
    http: httpx.AsyncClient  # also of alice
    folder: Path
    transport: Any
    notes: dict[str, str] = field(default_factory=dict)  # the file of each job

    @property
    def queue(self) -> str:
        return self.worker.name

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

    async def follow_chain(self, *steps: Any) -> tuple[list[str], str]:
        """Send a chain. Return the ids of its steps, and the file of all of them."""
        notes = str(self.folder / new_id("notes"))
        last = self.apply(chain(*(step(notes) for step in steps)), notes)
        results = [last]
        while results[0].parent is not None:
            results.insert(0, results[0].parent)
        for result in results:
            self.notes[result.id] = notes
        return [await self.followed(result) for result in results], notes

    async def start_chord(self, kind: str) -> tuple[str, str, str]:
        """Start a chord in the worker. Return the ids of its body and last member, and its file."""
        starter = await self.followed(self.send(jobs.starts_a_chord, kind))
        body, member = (await self.alice.transcript.end(starter))["result"]
        for job_id in (body, member):
            assert (await self.alice.join(job_id))["ok"]
        return body, member, self.notes[starter]

    def consume(self, queue: str) -> None:
        """Have the worker consume another queue."""
        url, node = self.worker.env["CELERY_BROKER_URL"], f"{self.worker.name}@test"
        with Celery(broker=url, set_as_current=False) as app:
            # A worker logs that it is ready shortly before it receives such commands.
            self.worker.expect(
                lambda: app.control.add_consumer(
                    queue, destination=[node], reply=True, timeout=2, limit=1
                ),
                f"consumer of {queue}",
            )

    def steps(self, job_id: str) -> list[str]:
        return jobs.steps(self.notes[job_id])

    async def wait_received(self, job_id: str) -> None:
        """Wait until the worker has received the message of a job."""
        await eventually(lambda: f"[{job_id}] received" in self.worker.log, f"message of {job_id}")

    async def wait_steps(self, job_id: str, steps: list[str]) -> None:
        """Wait until the tasks of a job have added exactly these lines."""
        wanted = f"{steps} of {job_id}"
        await eventually(lambda: len(self.steps(job_id)) >= len(steps), wanted)
        assert self.steps(job_id) == steps

    def release(self, job_id: str) -> None:
        """Let a run that waits for this end."""
        Path(f"{self.notes[job_id]}.released").touch()

    async def begun(self, result: AsyncResult[Any]) -> str:
        """Follow a job, and wait until its task runs."""
        job_id = await self.followed(result)
        await eventually(lambda: "began" in self.steps(job_id), f"start of {job_id}")
        # A run begins after two seconds even if the store has not confirmed its start.
        await eventually(lambda: self.statuses(job_id) - {"queued"}, f"stored start of {job_id}")
        return job_id

    async def wait_status(self, job_id: str, status: str) -> None:
        """Wait until the followers of the job have received a status."""
        await eventually(lambda: status in self.statuses(job_id), f"{status} of {job_id}")

    def statuses(self, job_id: str) -> set[str]:
        """Return the statuses of a job that its followers have received."""
        return {event["status"] for event in self.alice.transcript.of(job_id, "job_status")}

    async def followed(self, result: AsyncResult[Any]) -> str:
        job_id = str(result.id)
        assert (await self.alice.join(job_id))["ok"]
        return job_id

    def cancel(self, job_id: str) -> CancelAnswer:
        answer: CancelAnswer = self.transport.cancel(
            Cancellation(job_id=job_id, by="alice", message=MESSAGE)
        )
        return answer

    async def cancel_when_available(self, job_id: str) -> str:
        """Repeat the request until the server can reach the store. Return the outcome."""
        while (answer := await self.ask_socketio(job_id)).get("code") == "unavailable":
            continue
        return str(answer["outcome"])

    async def cancel_twice(self, job_id: str) -> list[dict[str, Any]]:
        """Cancel a job over Socket.IO and over HTTP at the same moment. Return the answers."""
        return [*await asyncio.gather(self.ask_socketio(job_id), self.ask_http(job_id))]

    async def ask_socketio(self, job_id: str) -> dict[str, Any]:
        return await self.alice.request("cancel_job", {"job_id": job_id, "message": MESSAGE})

    async def ask_http(self, job_id: str) -> dict[str, Any]:
        response = await self.http.post(f"/jobs/{job_id}/cancel", json={"message": MESSAGE})
        answer: dict[str, Any] = response.json()
        return answer

    async def wait_failed(self, job_id: str) -> None:
        """Wait until a step has failed for its followers and in Celery, without having run."""
        end = await self.alice.transcript.end(job_id)
        assert (end["error"], end["reason"]) == ("StepFailed", "failure")
        await self.wait_state(job_id, "FAILURE")

    async def wait_cancelled(self, job_id: str) -> None:
        """Wait until the job is cancelled for its followers and in Celery, and stays so."""
        end = await self.alice.transcript.end(job_id)
        shown = {name: end.get(name) for name in ("error", "reason", "message", "by")}
        assert shown == {
            "error": "JobCancelled", "reason": "cancelled", "message": MESSAGE, "by": "alice",
        }  # fmt: skip
        if self.worker.pool != "prefork":
            # Without an event loop, Celery acts on requests after a message or two seconds.
            self.send(jobs.runs)
        await self.wait_state(job_id, "REVOKED")
        await self.settle()
        assert len(self.alice.transcript.of(job_id, "job_error", "job_complete")) == 1
        assert self.state(job_id) == "REVOKED"

    async def wait_outcome(self, job_id: str, state: str, **fields: Any) -> None:
        """Wait until the job has ended with an outcome of its task, and stays so in Celery."""
        end = await self.alice.transcript.end(job_id)
        assert {name: end.get(name) for name in fields} == fields
        await self.wait_state(job_id, state)
        await self.settle()
        assert len(self.alice.transcript.of(job_id, "job_error", "job_complete")) == 1
        assert self.state(job_id) == state

    def state(self, job_id: str) -> str:
        [state] = self.states([job_id])
        return state

    def states(self, job_ids: list[str]) -> set[str]:
        env = self.worker.env
        url = env.get("CELERY_RESULT_BACKEND", env["CELERY_BROKER_URL"])
        with Celery(backend=url, set_as_current=False) as app:
            # A result of Celery would subscribe to the backend.
            backend = app.backend
            stored = backend.mget([backend.get_key_for_task(job_id) for job_id in job_ids])
            backend.client.close()
            return {
                "PENDING" if meta is None else str(backend.decode_result(meta)["status"])
                for meta in stored
            }

    async def wait_state(self, job_id: str, state: str) -> None:
        await self.wait_states([job_id], state)

    async def wait_states(self, job_ids: list[str], state: str) -> None:
        """Wait until all of these jobs have a state in Celery."""
        wanted = f"{state} of {', '.join(job_ids[:3])}"
        await eventually(lambda: self.states(job_ids) == {state}, wanted)

    def ping(self) -> bool:
        """Return whether the loop of the worker's main process answers."""
        name = f"{self.worker.name}@test"
        with Celery(broker=self.worker.env["CELERY_BROKER_URL"], set_as_current=False) as app:
            return bool(app.control.ping(destination=[name], timeout=TIMEOUT))

    async def settle(self) -> None:
        """Wait until the worker has handled all that it was sent before."""
        for _ in range(2):
            job_id = await self.followed(self.send(jobs.runs))
            await self.alice.transcript.end(job_id)


class PoolWorker(Worker):
    """A worker of a queue with its name, which the test may restart.

    The store is also the broker, unless another one is given.
    """

    def __init__(
        self, folder: Path, url: str, pool: str, *arguments: str,
        app: str = "tests.cancelled_jobs", broker: str = "", concurrency: int = 2,
        env: dict[str, str] | None = None,
    ) -> None:  # fmt: skip
        self.pool = pool
        self.concurrency = 1 if pool == "solo" else concurrency
        self._starts = 0
        name = new_id("worker")
        super().__init__(
            folder / new_id("log"), url, broker or url, f"--pool={pool}",
            f"--concurrency={self.concurrency}", *arguments, app=app, name=name,
            env={"TASK_QUEUE": name, **(env or {})},
        )  # fmt: skip

    def start(self) -> None:
        self._starts += 1
        super().start()

    def ready(self) -> PoolWorker:
        self.expect(
            lambda: self.log.count(f"{self.name}@test ready") == self._starts, "ready worker"
        )
        return self

    async def restart(self) -> None:
        """Start the killed worker, which receives the messages of the killed one again."""
        restore_unacknowledged(self.env["CELERY_BROKER_URL"])
        self.start()
        await asyncio.to_thread(self.ready)


class Workers:
    """Workers of one store, which end with the module."""

    def __init__(self, url: str, folder: Path) -> None:
        self._url = url
        self._folder = folder
        self.stack = ExitStack()

    def create(self, pool: str, *arguments: str, **options: Any) -> PoolWorker:
        worker = PoolWorker(self._folder, self._url, pool, *arguments, **options)
        self.stack.callback(worker.kill)
        return worker


@asynccontextmanager
async def harness_of(
    worker: PoolWorker, server: Server, url: str, folder: Path, token: Token
) -> AsyncIterator[Harness]:
    transport = open_publisher(url)
    try:
        async with (
            following(server.url, token(jobs=["*"])) as alice,
            http_client(server.url, token()) as http,
        ):
            yield Harness(worker, alice, http, folder, transport)
    finally:
        transport.close()


@contextmanager
def paused(valkey: Valkey) -> Iterator[None]:
    """Pause the store for two seconds, from the beginning of the block."""
    os.kill(valkey.popen.pid, signal.SIGSTOP)
    end = threading.Timer(OUTAGE, os.kill, (valkey.popen.pid, signal.SIGCONT))
    end.start()
    try:
        yield
    finally:
        end.join()
