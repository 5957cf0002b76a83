"""However a task ends, whoever follows it sees how, once, and nothing after it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from jobcast import owned_by
from jobcast.publishing import runtime
from tests import ending_jobs as jobs
from tests.conftest import Valkey
from tests.e2e.endings.harness import ANY, BEGUN, DONE, Scene, Token, Workers
from tests.support import AHEAD, Server, following, new_id

NOT_ACCEPTED = "The job was not sent in a way that the worker accepts"


@pytest.fixture(scope="module")
def sends(valkey: Valkey) -> Iterator[None]:
    """Makes this process one that sends the tasks of this module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JOBCAST_URL", valkey.url)
        runtime.close()
        yield
        runtime.close()


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
        job_id = scene.send(jobs.succeeds, countdown=AHEAD)
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
