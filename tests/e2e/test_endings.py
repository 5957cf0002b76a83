"""However a task ends, whoever follows it sees how, once, and nothing after it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest
import redis
from celery import Celery
from celery.result import AsyncResult
from kombu.connection import Connection

from jobcast import owned_by
from jobcast.celery.headers import OWNER_HEADER
from jobcast.liveness import sidecar_main
from jobcast.publishing import runtime
from jobcast.transports.leases import LeaseTimeouts
from tests import ending_jobs as jobs
from tests.conftest import Valkey
from tests.support import (
    COUNTDOWN,
    Follower,
    Server,
    Worker,
    call_in_thread,
    eventually,
    following,
    new_id,
    restore_unacknowledged,
    running,
)

Token = Callable[..., str]

BEGUN = ["queued", "started 1/1", "log"]
DONE = "complete 'done'"
NOT_ACCEPTED = "The job was not sent in a way that the worker accepts"


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
            result: AsyncResult[Any] = call_in_thread(signature.apply_async, **options)
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
        await self.alice.transcript.wait_logged(job_id, count)

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
        patch.setenv("JOBCAST_URL", valkey.url)
        runtime.close()
        yield
        runtime.close()


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
        ("prefork",), Row(jobs.notices_the_limit, [*BEGUN, "complete 'partial result'"]),
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
    "child killed twice, run again": (
        ("prefork",),
        Row(
            jobs.is_killed_twice,
            [
                *BEGUN, "retrying 1 WorkerLostError", "started 1/2", "log",
                "retrying 1 WorkerLostError", "started 1/3", "log", DONE,
            ],
            marked=True,
        ),
    ),
    "child killed twice, retried": (
        ("prefork",),
        Row(
            jobs.is_killed_and_retried_twice,
            [
                *BEGUN, "retrying 2 WorkerLostError", "started 2/2", "log",
                "retrying 3 WorkerLostError", "started 3/3", "log", DONE,
            ],
            marked=True,
        ),
    ),
    "child killed, retried in vain": (
        ("prefork",),
        Row(
            jobs.is_killed_and_retried_in_vain,
            [
                *BEGUN, "retrying 2 WorkerLostError", "started 2/2", "log",
                "error WorkerLostError worker_lost",
            ],
        ),
    ),
    "before_start": (
        ANY,
        Row(
            jobs.fails_before_it_starts, [*BEGUN[:-1], "error LookupError failure"],
            "nothing to begin with",
        ),
    ),
    "cancelled within": (
        ("threads", "gevent", "eventlet"),
        Row(jobs.is_cancelled_within, [*BEGUN, "error CancelledError failure"]),
    ),
    "a group of exceptions": (
        ("threads", "gevent", "eventlet"),
        Row(
            jobs.fails_in_a_group, [*BEGUN, "error BaseExceptionGroup failure"],
            "several (2 sub-exceptions)",
        ),
    ),
    "a timeout of its own": (
        ("gevent",), Row(jobs.runs_out_of_patience, [*BEGUN, "error Timeout failure"]),
    ),
    "a greenlet of its own": (
        ("gevent",), Row(jobs.leaves_its_greenlet, [*BEGUN, "error GreenletExit failure"]),
    ),
    "KeyboardInterrupt": (
        ("prefork",), Row(jobs.is_interrupted, [*BEGUN, "error WorkerLostError worker_lost"]),
    ),
    "os._exit": (
        ("prefork",),
        Row(
            jobs.exits_at_once, [*BEGUN, "error WorkerLostError worker_lost"],
            "The worker process running this job ended unexpectedly (exitcode 5)",
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
    "replaced by what is nobody's job": (
        ("prefork", "threads"),
        Row(jobs.is_replaced_by_a_plain_task, [*BEGUN, "queued", "started 1/2", "complete 7"]),
    ),
    "replaced by a group": (
        ("prefork", "threads"),
        Row(jobs.is_replaced_by_a_group, [*BEGUN, "queued", "started 1/2", "complete [1, 2]"]),
    ),
    "what calls back fails": (
        ("prefork", "threads", "gevent", "eventlet"),  # a solo worker does not survive it
        Row(
            jobs.fails, [*BEGUN, "error TypeError failure"],
            options={"link_error": jobs.cannot_be_called_back.s()},
        ),
    ),
    "not accepted": (
        ("prefork", "gevent", "solo"),
        Row(
            jobs.succeeds, ["queued", "error Unacceptable rejected"], NOT_ACCEPTED,
            options={"serializer": "yaml"},
        ),
    ),
    "no task's message": (
        ("prefork",),
        Row(
            jobs.succeeds, ["queued", "error Unacceptable rejected"], NOT_ACCEPTED,
            options={"eta": "some day"},
        ),
    ),
    "at a time that there is not": (
        ("prefork",),
        Row(
            jobs.succeeds, ["queued", "error Unacceptable rejected"], NOT_ACCEPTED,
            options={"eta": datetime.max.replace(tzinfo=timezone(-timedelta(hours=12)))},
        ),
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


@pytest.mark.parametrize("pool", ANY)
async def test_an_id_that_is_no_text_is_followed_as_its_text_and_disturbs_nobody(
    pool: str,
    server: Server,
    workers: Workers,
    sends: None,
    token: Token,
    tmp_path: Path,
) -> None:
    async with following(server.url, token()) as alice:
        scene = Scene(workers.of(pool), alice, tmp_path)
        other = new_id()
        for task, end in (
            (jobs.succeeds, [DONE]),
            (jobs.fails, ["error LookupError failure"]),
            (jobs.retries_once, ["retrying 2 ConnectionError", "started 2/2", "log", DONE]),
        ):
            args = (scene.marker(),) if task is jobs.retries_once else ()
            job_id = scene.send(task, *args, task_id=uuid4())
            await scene.follow(job_id)
            assert await scene.story(job_id) == [*BEGUN, *end]
        scene.send(jobs.succeeds, task_id=other)
        await scene.follow(other)
        assert await scene.story(other) == [*BEGUN, DONE]


FIRST_PROTOCOL = {
    "success": (jobs.succeeds, [*BEGUN, DONE]),
    "failure": (jobs.fails, [*BEGUN, "error LookupError failure"]),
    "retry": (
        jobs.retries_once,
        [*BEGUN, "retrying 2 ConnectionError", "started 2/2", "log", DONE],
    ),
    "unknown": ("nowhere.task", ["queued", "error NotRegistered rejected"]),
}


@pytest.mark.parametrize("ending", FIRST_PROTOCOL)
async def test_the_first_version_of_celerys_protocol_is_followed_too(
    ending: str,
    server: Server,
    workers: Workers,
    sends: None,
    token: Token,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    task, story = FIRST_PROTOCOL[ending]
    monkeypatch.setitem(jobs.app.amqp.__dict__, "create_task_message", jobs.app.amqp.as_task_v1)
    async with following(server.url, token()) as alice:
        scene = Scene(workers.of("threads"), alice, tmp_path)
        args = [scene.marker()] if ending == "retry" else []
        signature = jobs.app.signature(task, args) if isinstance(task, str) else task.si(*args)
        job_id = scene.dispatch(owned_by(signature, "alice"), headers={"x": 1})
        assert (await alice.join(job_id))["ok"]
        await alice.transcript.end(job_id)
        assert await scene.told(job_id) == story
    assert "Traceback" not in caplog.text


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


@pytest.fixture
def scene_of(
    server: Server, workers: Workers, sends: None, token: Token, tmp_path: Path
) -> Callable[[str], AbstractAsyncContextManager[Scene]]:
    @asynccontextmanager
    async def scene(pool: str) -> AsyncIterator[Scene]:
        # What comes later in a chain is nobody's before it is sent.
        async with following(server.url, token(jobs=["*"])) as alice:
            yield Scene(workers.of(pool), alice, tmp_path)

    return scene


SceneOf = Callable[[str], AbstractAsyncContextManager[Scene]]


@pytest.mark.parametrize("pool", ANY)
async def test_revoked_before_it_starts(pool: str, scene_of: SceneOf) -> None:
    async with scene_of(pool) as scene:
        job_id = scene.send(jobs.succeeds, countdown=COUNTDOWN)
        await scene.follow(job_id)
        scene.revoke(job_id)
        assert await scene.story(job_id) == ["queued", "error TaskRevokedError revoked"]
        assert (await scene.alice.transcript.end(job_id))["message"] == "The job was cancelled"


@pytest.mark.parametrize(
    ("pool", "how"), [("prefork", "SIGTERM"), ("prefork", "SIGKILL"), ("gevent", "SIGTERM")]
)
async def test_terminated_while_it_runs(pool: str, how: str, scene_of: SceneOf) -> None:
    async with scene_of(pool) as scene:
        job_id = scene.send(jobs.hangs)
        await scene.follow(job_id)
        await scene.runs(job_id)
        scene.revoke(job_id, terminate=True, signal=how)
        assert await scene.story(job_id) == [*BEGUN, "error Terminated revoked"]


@pytest.mark.parametrize("pool", ["threads", "gevent", "eventlet"])
async def test_sys_exit_where_there_is_no_process_to_end(pool: str, scene_of: SceneOf) -> None:
    async with scene_of(pool) as scene:
        job_id = scene.send(jobs.exits)
        await scene.follow(job_id)
        assert await scene.story(job_id) == [*BEGUN, "error SystemExit worker_lost"]


async def test_a_task_that_no_worker_knows(scene_of: SceneOf) -> None:
    async with scene_of("prefork") as scene:
        job_id = scene.dispatch(jobs.app.signature("tests.nobody_knows_it"))
        await scene.follow(job_id)
        assert await scene.story(job_id) == ["queued", "error NotRegistered rejected"]


@pytest.mark.parametrize(
    ("chain", "end"),
    [
        (jobs.chained, "error LookupError failure"),
        (jobs.ignored_in_a_chain, "error Ignore rejected"),
    ],
    ids=["failed", "ignored"],
)
async def test_steps_after_one_that_did_not_succeed(
    chain: Callable[[], Any], end: str, scene_of: SceneOf
) -> None:
    async with scene_of("prefork") as scene:
        last = scene.apply(chain())
        ids = [last.parent.parent.id, last.parent.id, last.id]
        for job_id in ids:
            await scene.follow(job_id)
        stories = [await scene.story(job_id) for job_id in ids]
        assert stories[0] == [*BEGUN, end]
        assert stories[1:] == [["error StepFailed failure"]] * 2


async def test_the_body_of_a_chord_whose_header_failed(scene_of: SceneOf) -> None:
    async with scene_of("prefork") as scene:
        starter = scene.send(jobs.starts_a_chord)
        await scene.follow(starter)
        body, *parts = (await scene.alice.transcript.end(starter))["result"]
        for job_id in (body, *parts):
            await scene.follow(job_id)
        assert await scene.story(body) == ["error StepFailed failure"]
        assert sorted([(await scene.story(part))[-1] for part in parts]) == [
            DONE, "error LookupError failure",
        ]  # fmt: skip


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


@pytest.fixture
def quick(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Quick]:
    """Its parameter is how long things may take."""
    terms: LeaseTimeouts = getattr(request, "param", LeaseTimeouts(lease=9, lost_after=300))
    env = {
        "JOBCAST_LEASE": str(terms.lease), "JOBCAST_LOST_AFTER": str(terms.lost_after),
        "JOBCAST_LEASE_SIDECAR": "true",
    }  # fmt: skip
    with running(Valkey(tmp_path)) as valkey:
        valkey.ready()
        monkeypatch.setenv("JOBCAST_URL", valkey.url)
        runtime.close()
        with running(Server(tmp_path / "server.log", valkey.url, env)) as server:
            quick = Quick(valkey, server.ready(), tmp_path, env)
            with quick.stack:
                yield quick
        runtime.close()


@asynccontextmanager
async def at(quick: Quick, worker: Worker, token: Token) -> AsyncIterator[Scene]:
    async with following(quick.server.url, token()) as alice:
        yield Scene(worker, alice, quick.folder)


@pytest.mark.parametrize("pool", ANY)
@pytest.mark.parametrize("quick", [LeaseTimeouts(lease=3, lost_after=3)], indirect=True)
async def test_a_worker_that_is_killed_is_missed(pool: str, quick: Quick, token: Token) -> None:
    worker = quick.worker(pool=pool)
    async with at(quick, worker, token) as scene:
        job_id, waiting = scene.send(jobs.hangs), scene.send(jobs.succeeds, queue="nobody")
        await scene.follow(job_id)
        await scene.follow(waiting)
        await scene.runs(job_id)
        worker.kill()
        end = await scene.alice.transcript.end(job_id)
        story = [*BEGUN, "stalled", "error WorkerLostError worker_lost"]
        assert await scene.told(job_id) == story
        assert "is gone" in end["message"]
        # What was sent and never begun is in nobody's hands yet.
        assert await scene.told(waiting) == ["queued"]


async def test_a_job_whose_worker_is_gone_goes_on_at_another(quick: Quick, token: Token) -> None:
    worker = quick.worker()
    async with at(quick, worker, token) as scene:
        job_id = scene.send(jobs.hangs_at_first, scene.marker())
        await scene.follow(job_id)
        await scene.runs(job_id)
        worker.kill()
        await eventually(lambda: "stalled" in story_of(scene.alice, job_id), "stalled job")
        restore_unacknowledged(quick.valkey.url)
        scene.worker = await quick.another(worker)
        assert await scene.story(job_id) == [*BEGUN, "stalled", "started 1/2", "log", DONE]


async def test_a_living_job_whose_process_does_not_answer(quick: Quick, token: Token) -> None:
    """Another process of its worker speaks for it."""
    worker = quick.worker()
    async with at(quick, worker, token) as scene:
        job_id = scene.send(jobs.holds_the_interpreter, 14)
        await scene.follow(job_id)
        assert await scene.story(job_id) == [*BEGUN, DONE]
        assert sidecars_of(worker) == []


def sidecars_of(worker: Worker) -> list[psutil.Process]:
    children = psutil.Process(worker.popen.pid).children()
    return [child for child in children if sidecar_main.__file__ in child.cmdline()]


@pytest.mark.parametrize("pool", ["threads", "gevent", "eventlet"])
@pytest.mark.parametrize("quick", [LeaseTimeouts(lease=24, lost_after=1)], indirect=True)
async def test_a_living_job_that_keeps_its_whole_worker_from_answering(
    pool: str, quick: Quick, token: Token
) -> None:
    """Nor are those that run beside it missed."""
    worker = quick.worker(pool=pool)
    gate = Path(quick.folder / "gate")
    async with at(quick, worker, token) as scene:
        beside = scene.send(jobs.waits, str(gate))
        await scene.follow(beside)
        await scene.runs(beside)
        job_id = scene.send(jobs.holds_the_interpreter, 32)
        await scene.follow(job_id)
        assert await scene.story(job_id) == [*BEGUN, DONE], worker.log
        gate.touch()
        assert await scene.story(beside) == [*BEGUN, "log", DONE]


@pytest.mark.parametrize("quick", [LeaseTimeouts(lease=3, lost_after=1)], indirect=True)
async def test_nobody_speaks_for_a_worker_that_is_gone(quick: Quick, token: Token) -> None:
    worker = quick.worker(pool="threads")
    async with at(quick, worker, token) as scene:
        job_id = scene.send(jobs.hangs)
        await scene.follow(job_id)
        await scene.runs(job_id)
        [sidecar] = await eventually(lambda: sidecars_of(worker), "process that keeps jobs alive")
        # What it has started stays.
        os.kill(worker.popen.pid, signal.SIGKILL)
        await scene.alice.transcript.end(job_id)
        assert await scene.told(job_id) == [*BEGUN, "stalled", "error WorkerLostError worker_lost"]
        await eventually(lambda: not sidecar.is_running(), "end of that process")


async def test_a_worker_that_stops_leaves_nothing_behind(quick: Quick, token: Token) -> None:
    worker = quick.worker(pool="threads")
    async with at(quick, worker, token) as scene:
        job_id = scene.send(jobs.succeeds)
        await scene.follow(job_id)
        assert await scene.story(job_id) == [*BEGUN, DONE]
        [sidecar] = await eventually(lambda: sidecars_of(worker), "process that keeps jobs alive")
        # As supervisors do; it is the worker that decides when it ends.
        os.killpg(worker.popen.pid, signal.SIGTERM)
        assert await worker.wait_exit() == 0
        await eventually(lambda: not sidecar.is_running(), "end of that process")
        assert "Traceback" not in worker.log


async def test_worker_has_no_sidecar_by_default(quick: Quick, token: Token) -> None:
    worker = quick.worker(pool="threads", JOBCAST_LEASE_SIDECAR="")
    gate = Path(quick.folder / "gate")
    async with at(quick, worker, token) as scene:
        done, waiting = scene.send(jobs.succeeds), scene.send(jobs.waits, str(gate))
        await scene.follow(done)
        await scene.follow(waiting)
        assert await scene.story(done) == [*BEGUN, DONE]
        await scene.runs(waiting)
        assert sidecars_of(worker) == []
        gate.touch()
        assert await scene.story(waiting) == [*BEGUN, "log", DONE]


async def test_a_worker_that_was_only_asleep(quick: Quick, token: Token) -> None:
    worker = quick.worker()
    gate = Path(quick.folder / "gate")
    async with at(quick, worker, token) as scene:
        job_id = scene.send(jobs.waits, str(gate))
        await scene.follow(job_id)
        await scene.runs(job_id)
        os.killpg(worker.popen.pid, signal.SIGSTOP)
        await eventually(lambda: "stalled" in story_of(scene.alice, job_id), "stalled job")
        os.killpg(worker.popen.pid, signal.SIGCONT)
        await eventually(
            lambda: story_of(scene.alice, job_id)[-1] == "started 1/1", "job that is there again"
        )
        gate.touch()
        assert await scene.story(job_id) == [*BEGUN, "stalled", "started 1/1", "log", DONE]


async def ends_during(
    quick: Quick, worker: Worker, token: Token, how: signal.Signals, word: str
) -> None:
    """A job ends well after its worker was told to stop, and has said ``word`` of that."""
    gate = Path(quick.folder / "gate")
    async with at(quick, worker, token) as scene:
        job_id = scene.send(jobs.waits, str(gate))
        await scene.follow(job_id)
        await scene.runs(job_id)
        worker.popen.send_signal(how)
        await eventually(lambda: word in worker.log, word)
        gate.touch()
        await scene.alice.transcript.end(job_id)
        await worker.wait_exit()
        assert await scene.told(job_id) == [*BEGUN, "log", DONE]


async def test_a_warm_shutdown_waits_for_the_end(quick: Quick, token: Token) -> None:
    await ends_during(quick, quick.worker(), token, signal.SIGTERM, "Warm shutdown")


@pytest.mark.parametrize("soft", ["0", "1"])
async def test_a_cold_shutdown_ends_what_nobody_will_run_again(
    soft: str, quick: Quick, token: Token
) -> None:
    worker = quick.worker(SOFT_SHUTDOWN=soft)
    async with at(quick, worker, token) as scene:
        job_id = scene.send(jobs.hangs)
        await scene.follow(job_id)
        await scene.runs(job_id)
        worker.popen.send_signal(signal.SIGQUIT)
        end = await scene.alice.transcript.end(job_id)
        await worker.wait_exit()
        assert await scene.told(job_id) == [*BEGUN, "error WorkerShutdown worker_lost"]
        assert end["message"] == "The worker was stopped while it ran this job"


@pytest.mark.parametrize("soft", ["0", "1"])
async def test_a_cold_shutdown_gives_back_what_another_can_run(
    soft: str, quick: Quick, token: Token
) -> None:
    worker = quick.worker(SOFT_SHUTDOWN=soft)
    async with at(quick, worker, token) as scene:
        job_id = scene.send(jobs.hangs_at_first, scene.marker())
        await scene.follow(job_id)
        await scene.runs(job_id)
        worker.popen.send_signal(signal.SIGQUIT)
        await worker.wait_exit()
        scene.worker = await quick.another(worker)
        story = [*BEGUN, "retrying 1 WorkerShutdown", "started 1/2", "log", DONE]
        assert await scene.story(job_id) == story


async def test_a_connection_to_the_broker_that_is_lost_takes_its_jobs_along(
    quick: Quick, token: Token
) -> None:
    """If Celery is told to stop what it will be given again."""
    worker = quick.worker(CANCEL_ON_LOSS="1")
    async with at(quick, worker, token) as scene:
        job_id = scene.send(jobs.hangs_at_first, scene.marker())
        await scene.follow(job_id)
        await scene.runs(job_id)
        with redis.Redis.from_url(quick.valkey.url) as client:
            client.client_kill_filter(_type="normal", skipme=True)
        await scene.alice.transcript.end(job_id)
        story = [*BEGUN, "retrying 1 BrokerLost", "started 1/2", "log", DONE]
        assert await scene.told(job_id) == story
        [retrying, *_] = [
            event for event in scene.alice.transcript.of(job_id, "job_status")
            if event["status"] == "retrying"
        ]  # fmt: skip
        message = "The worker that ran this job lost its connection to the queue"
        assert retrying["message"] == message


@pytest.mark.parametrize("task", [jobs.hangs, jobs.hangs_late], ids=["early", "late"])
@pytest.mark.parametrize("pool", ["solo", "gevent", "eventlet"])
async def test_a_cold_shutdown_of_a_pool_that_gives_nothing_back(
    pool: str, task: Any, quick: Quick, token: Token
) -> None:
    """Here Celery acknowledges what it stops, also what it would acknowledge late."""
    worker = quick.worker(pool=pool)
    async with at(quick, worker, token) as scene:
        job_id = scene.send(task)
        await scene.follow(job_id)
        await scene.runs(job_id)
        worker.popen.send_signal(signal.SIGQUIT)
        end = await scene.alice.transcript.end(job_id)
        error = "NotImplementedError" if pool == "solo" else "WorkerShutdown"
        assert await scene.told(job_id) == [*BEGUN, f"error {error} worker_lost"]
        assert end["message"] == "The worker was stopped while it ran this job"


async def test_a_cold_shutdown_cannot_end_a_thread(quick: Quick, token: Token) -> None:
    worker = quick.worker(pool="threads")
    await ends_during(quick, worker, token, signal.SIGQUIT, "NotImplementedError")


async def test_a_soft_shutdown_leaves_time_to_end(quick: Quick, token: Token) -> None:
    worker = quick.worker(SOFT_SHUTDOWN="3")
    await ends_during(quick, worker, token, signal.SIGQUIT, "Soft Shutdown")


async def test_a_task_without_memory_takes_its_worker_along(quick: Quick, token: Token) -> None:
    worker = quick.worker()
    async with at(quick, worker, token) as scene:
        job_id = scene.send(jobs.has_no_memory)
        await scene.follow(job_id)
        await scene.alice.transcript.end(job_id)
        await worker.wait_exit()
        assert await scene.told(job_id) == [*BEGUN, "error MemoryError failure"]


async def test_sys_exit_where_it_ends_the_worker(quick: Quick, token: Token) -> None:
    worker = quick.worker(pool="solo")
    async with at(quick, worker, token) as scene:
        job_id = scene.send(jobs.exits)
        await scene.follow(job_id)
        await scene.alice.transcript.end(job_id)
        await worker.wait_exit()
        assert await scene.told(job_id) == [*BEGUN, "error SystemExit worker_lost"]


async def test_a_result_that_the_backend_does_not_take(quick: Quick, token: Token) -> None:
    worker = quick.worker("--concurrency=1")
    async with at(quick, worker, token) as scene:
        job_id = scene.send(jobs.breaks_the_backend)
        await scene.follow(job_id)
        await scene.alice.transcript.end(job_id)
        assert await scene.told(job_id) == [*BEGUN, "error OSError failure"]
