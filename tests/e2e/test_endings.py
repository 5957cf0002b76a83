"""However a task ends, whoever follows it sees how, once, and nothing after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from jobcast.worker import process
from jobcast.worker.message import OWNER_HEADER
from tests import ending_jobs as jobs
from tests.conftest import Valkey
from tests.support import Follower, Server, Worker, following, new_id, running

Token = Callable[..., str]

BEGUN = ["queued", "started 1/1", "log"]
DONE = "complete 'done'"


@dataclass
class Scene:
    """A worker, and a client that follows what is sent to it."""

    worker: Worker
    alice: Follower
    folder: Path

    def send(self, task: Any, *args: Any, **options: Any) -> str:
        return self.dispatch(task.si(*args), **options)

    def dispatch(self, signature: Any, **options: Any) -> str:
        options = {"queue": self.worker.name, "headers": {OWNER_HEADER: "alice"}, **options}
        return str(signature.apply_async(**options).id)

    def marker(self) -> str:
        return str(self.folder / new_id("marker"))

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


@pytest.fixture(scope="module")
def sends(valkey: Valkey) -> Iterator[None]:
    """Makes this process one that sends the tasks of this module."""
    with pytest.MonkeyPatch.context() as patch:
        jobs.app.conf.broker_url = valkey.url
        patch.setenv("JOBCAST_URL", valkey.url)
        process.close()
        yield
        process.close()


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


@pytest.fixture(scope="module")
def workers(valkey: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    workers = Workers(valkey.url, tmp_path_factory.mktemp("workers"))
    with workers.stack:
        yield workers


@dataclass(frozen=True)
class Row:
    """One ending: what is sent, and what is seen of it."""

    task: Any
    story: list[str]
    message: str | None = None
    args: tuple[Any, ...] = ()
    marked: bool = False
    options: dict[str, Any] = field(default_factory=dict)


ANY = ("prefork", "threads", "solo", "gevent", "eventlet")

SHARED = {
    "success": (ANY, Row(jobs.succeeds, [*BEGUN, DONE])),
    "exception": (
        ANY, Row(jobs.fails, [*BEGUN, "error LookupError failure"], "no such row"),
    ),
    "wrong arguments": (
        ANY, Row(jobs.takes_nothing, [*BEGUN[:-1], "error TypeError failure"], args=(1,)),
    ),
    "result that does not encode": (
        ANY, Row(jobs.returns_what_does_not_encode, [*BEGUN, "error EncodeError failure"]),
    ),
    "retry": (
        ANY,
        Row(
            jobs.retries_once,
            [*BEGUN, "retrying 2 ConnectionError", "started 2/2", "log", DONE],
            marked=True,
        ),
    ),
    "autoretry": (
        ANY,
        Row(
            jobs.retries_by_itself,
            [*BEGUN, "retrying 2 ConnectionError", "started 2/2", "log", DONE],
            marked=True,
        ),
    ),
    "retries exhausted": (
        ANY,
        Row(
            jobs.retries_in_vain,
            [
                *BEGUN, "retrying 2 ConnectionError", "started 2/2", "log",
                "error ConnectionError failure",
            ],
        ),
    ),
    "soft time limit": (
        ("prefork",),
        Row(
            jobs.exceeds_softly, [*BEGUN, "error SoftTimeLimitExceeded time_limit"],
            "The job took longer than it may",
        ),
    ),
    "soft time limit, noticed": (
        ("prefork",), Row(jobs.notices_the_limit, [*BEGUN, "complete 'what there was time for'"]),
    ),
    "hard time limit": (
        ("prefork", "gevent"),
        Row(
            jobs.exceeds, [*BEGUN, "error TimeLimitExceeded time_limit"],
            "The job was stopped: it took longer than 1 s",
        ),
    ),
    "hard time limit, run again": (
        ("prefork",),
        Row(
            jobs.exceeds_at_first,
            [*BEGUN, "retrying 1 TimeLimitExceeded", "started 1/2", "log", DONE],
            marked=True,
        ),
    ),
    "child killed": (
        ("prefork",),
        Row(
            jobs.is_killed, [*BEGUN, "error WorkerLostError worker_lost"],
            "The worker process running this job was killed (out of memory?)",
        ),
    ),
    "child killed, acknowledged late": (
        ("prefork",), Row(jobs.is_killed_late, [*BEGUN, "error WorkerLostError worker_lost"]),
    ),
    "child killed, run again": (
        ("prefork",),
        Row(
            jobs.is_killed_at_first,
            [*BEGUN, "retrying 1 WorkerLostError", "started 1/2", "log", DONE],
            marked=True,
        ),
    ),
    "child killed, retried": (
        ("prefork",),
        Row(
            jobs.is_killed_and_retried,
            [*BEGUN, "retrying 2 WorkerLostError", "started 2/2", "log", DONE],
            marked=True,
        ),
    ),
    "sys.exit": (
        ("prefork",),
        Row(
            jobs.exits, [*BEGUN, "error WorkerLostError worker_lost"],
            "The worker process running this job ended unexpectedly (exitcode 3)",
        ),
    ),
    "ignored": (
        ANY,
        Row(jobs.ignores, [*BEGUN, "error Ignore rejected"], "The job gave up without a result"),
    ),
    "rejected": (ANY, Row(jobs.rejects, [*BEGUN, "error Reject rejected"], "not today")),
    "rejected for another, too late": (
        ANY, Row(jobs.rejects_for_another, [*BEGUN, "error Reject rejected"], "not here"),
    ),
    "rejected for another": (
        ANY,
        Row(
            jobs.rejects_at_first, [*BEGUN, "retrying 1 Reject", "started 1/2", "log", DONE],
            marked=True,
        ),
    ),
    "replaced": (
        ANY, Row(jobs.is_replaced, [*BEGUN, "queued", "started 1/2", "log", DONE]),
    ),
    "replaced by several": (
        ANY,
        Row(jobs.is_replaced_by_several, [*BEGUN, "queued", "queued", "started 1/2", "log", DONE]),
    ),
    "expired": (
        ANY,
        Row(
            jobs.succeeds, ["queued", "error Expired expired"],
            "The job expired before a worker was free to start it",
            options={"expires": -1},
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "pool"), [(name, pool) for name, (pools, _) in SHARED.items() for pool in pools]
)
async def test_an_ending_is_seen(
    name: str,
    pool: str,
    server: Server,
    workers: Workers,
    sends: None,
    token: Token,
    tmp_path: Path,
) -> None:
    _, row = SHARED[name]
    async with following(server.url, token()) as alice:
        scene = Scene(workers.of(pool), alice, tmp_path)
        args = (scene.marker(),) if row.marked else row.args
        job_id = scene.send(row.task, *args, **row.options)
        await scene.follow(job_id)
        assert await scene.story(job_id) == row.story
        if row.message is not None:
            assert (await alice.transcript.end(job_id))["message"] == row.message
