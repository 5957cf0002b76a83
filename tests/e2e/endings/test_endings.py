"""Each ending of a task is reported exactly once, as the last event of its job."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from celery import VERSION as CELERY_VERSION

from jobcast import owned_by
from jobcast.publishing import runtime
from tests import ending_jobs as jobs
from tests.conftest import Valkey
from tests.e2e.endings.harness import ALL_POOLS, DONE, STARTED, Harness, Token, Workers
from tests.support import COUNTDOWN, Server, following, new_id

NOT_ACCEPTED = "The job was not sent in a way that the worker accepts"
OUT_OF_RANGE = datetime.max.replace(tzinfo=timezone(-timedelta(hours=12)))


@pytest.fixture(scope="module")
def sending_process(valkey: Valkey) -> Iterator[None]:
    """Configure this process as the sender of the tasks."""
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
class Ending:
    """An ending: the task to send and the events that followers see."""

    task: Any
    timeline: list[str]
    message: str | None = None
    args: tuple[Any, ...] = ()
    needs_marker: bool = False
    options: dict[str, Any] = field(default_factory=dict)


def since(version: tuple[int, int], ending: Ending, *, before: Ending) -> Ending:
    """Return the ending of a task with the installed Celery, which changed in a version."""
    return ending if version <= CELERY_VERSION else before


KILLED_WITHOUT_RETRY = [*STARTED, "error WorkerLostError worker_lost"]

ENDINGS = {
    "success": (ALL_POOLS, Ending(jobs.succeeds, [*STARTED, DONE])),
    "exception": (
        ALL_POOLS, Ending(jobs.fails, [*STARTED, "error LookupError failure"], "no such row"),
    ),
    "wrong arguments": (
        ALL_POOLS,
        Ending(jobs.takes_nothing, [*STARTED[:-1], "error TypeError failure"], args=(1,)),
    ),
    "result that does not encode": (
        ALL_POOLS,
        Ending(jobs.returns_what_does_not_encode, [*STARTED, "error EncodeError failure"]),
    ),
    "retry": (
        ALL_POOLS,
        Ending(
            jobs.retries_once,
            [*STARTED, "retrying 2 ConnectionError", "started 2/2", "log", DONE],
            needs_marker=True,
        ),
    ),
    "autoretry": (
        ALL_POOLS,
        Ending(
            jobs.retries_by_itself,
            [*STARTED, "retrying 2 ConnectionError", "started 2/2", "log", DONE],
            needs_marker=True,
        ),
    ),
    "retries exhausted": (
        ALL_POOLS,
        Ending(
            jobs.retries_in_vain,
            [
                *STARTED, "retrying 2 ConnectionError", "started 2/2", "log",
                "error ConnectionError failure",
            ],
        ),
    ),
    "soft time limit": (
        ("prefork",),
        Ending(
            jobs.exceeds_softly, [*STARTED, "error SoftTimeLimitExceeded time_limit"],
            "The job took longer than it may",
        ),
    ),
    "soft time limit, noticed": (
        ("prefork",),
        Ending(jobs.notices_the_limit, [*STARTED, "complete 'partial result'"]),
    ),
    "hard time limit": (
        ("prefork", "gevent"),
        Ending(
            jobs.exceeds, [*STARTED, "error TimeLimitExceeded time_limit"],
            f"The job was stopped: it took longer than {jobs.TIME_LIMIT} s",
        ),
    ),
    "hard time limit, run again": (
        ("prefork",),
        Ending(
            jobs.exceeds_at_first,
            [*STARTED, "retrying 1 TimeLimitExceeded", "started 1/2", "log", DONE],
            needs_marker=True,
        ),
    ),
    "child killed": (
        ("prefork",),
        Ending(
            jobs.is_killed, [*STARTED, "error WorkerLostError worker_lost"],
            "The worker process running this job was killed (out of memory?)",
        ),
    ),
    "child killed, acknowledged late": (
        ("prefork",), Ending(jobs.is_killed_late, [*STARTED, "error WorkerLostError worker_lost"]),
    ),
    "child killed, run again": (
        ("prefork",),
        Ending(
            jobs.is_killed_at_first,
            [*STARTED, "retrying 1 WorkerLostError", "started 1/2", "log", DONE],
            needs_marker=True,
        ),
    ),
    "child killed, retried": (
        ("prefork",),
        since(
            (5, 7),
            Ending(
                jobs.is_killed_and_retried,
                [*STARTED, "retrying 2 WorkerLostError", "started 2/2", "log", DONE],
                needs_marker=True,
            ),
            before=Ending(jobs.is_killed_and_retried, KILLED_WITHOUT_RETRY, needs_marker=True),
        ),
    ),
    "child killed twice, run again": (
        ("prefork",),
        Ending(
            jobs.is_killed_twice,
            [
                *STARTED, "retrying 1 WorkerLostError", "started 1/2", "log",
                "retrying 1 WorkerLostError", "started 1/3", "log", DONE,
            ],
            needs_marker=True,
        ),
    ),
    "child killed twice, retried": (
        ("prefork",),
        since(
            (5, 7),
            Ending(
                jobs.is_killed_and_retried_twice,
                [
                    *STARTED, "retrying 2 WorkerLostError", "started 2/2", "log",
                    "retrying 3 WorkerLostError", "started 3/3", "log", DONE,
                ],
                needs_marker=True,
            ),
            before=Ending(
                jobs.is_killed_and_retried_twice, KILLED_WITHOUT_RETRY, needs_marker=True
            ),
        ),
    ),
    "child killed, retried in vain": (
        ("prefork",),
        since(
            (5, 7),
            Ending(
                jobs.is_killed_and_retried_in_vain,
                [
                    *STARTED, "retrying 2 WorkerLostError", "started 2/2", "log",
                    "error WorkerLostError worker_lost",
                ],
            ),
            before=Ending(jobs.is_killed_and_retried_in_vain, KILLED_WITHOUT_RETRY),
        ),
    ),
    "before_start": (
        ALL_POOLS,
        Ending(
            jobs.fails_before_it_starts, [*STARTED[:-1], "error LookupError failure"],
            "nothing to begin with",
        ),
    ),
    "cancelled within": (
        ("threads", "gevent", "eventlet"),
        Ending(jobs.is_cancelled_within, [*STARTED, "error CancelledError failure"]),
    ),
    "a group of exceptions": (
        ("threads", "gevent", "eventlet"),
        Ending(
            jobs.fails_in_a_group, [*STARTED, "error BaseExceptionGroup failure"],
            "several (2 sub-exceptions)",
        ),
    ),
    "gevent timeout": (
        ("gevent",), Ending(jobs.runs_out_of_patience, [*STARTED, "error Timeout failure"]),
    ),
    "greenlet exit": (
        ("gevent",), Ending(jobs.leaves_its_greenlet, [*STARTED, "error GreenletExit failure"]),
    ),
    "KeyboardInterrupt": (
        ("prefork",), Ending(jobs.is_interrupted, [*STARTED, "error WorkerLostError worker_lost"]),
    ),
    "os._exit": (
        ("prefork",),
        Ending(
            jobs.exits_at_once, [*STARTED, "error WorkerLostError worker_lost"],
            "The worker process running this job ended unexpectedly (exitcode 5)",
        ),
    ),
    "sys.exit": (
        ("prefork",),
        Ending(
            jobs.exits, [*STARTED, "error WorkerLostError worker_lost"],
            "The worker process running this job ended unexpectedly (exitcode 3)",
        ),
    ),
    "ignored": (
        ALL_POOLS,
        Ending(
            jobs.ignores, [*STARTED, "error Ignore rejected"], "The job gave up without a result",
        ),
    ),
    "rejected": (ALL_POOLS, Ending(jobs.rejects, [*STARTED, "error Reject rejected"], "not today")),
    "rejected for another, too late": (
        ALL_POOLS,
        Ending(jobs.rejects_for_another, [*STARTED, "error Reject rejected"], "not here"),
    ),
    "rejected for another": (
        ALL_POOLS,
        Ending(
            jobs.rejects_at_first, [*STARTED, "retrying 1 Reject", "started 1/2", "log", DONE],
            needs_marker=True,
        ),
    ),
    "replaced": (
        ALL_POOLS, Ending(jobs.is_replaced, [*STARTED, "queued", "started 1/2", "log", DONE]),
    ),
    "replaced by several": (
        ALL_POOLS,
        Ending(
            jobs.is_replaced_by_several, [*STARTED, "queued", "queued", "started 1/2", "log", DONE],
        ),
    ),
    "replaced by a task that is no job": (
        ("prefork", "threads"),
        Ending(jobs.is_replaced_by_a_plain_task, [*STARTED, "queued", "started 1/2", "complete 7"]),
    ),
    "replaced by a group": (
        ("prefork", "threads"),
        Ending(jobs.is_replaced_by_a_group, [*STARTED, "queued", "started 1/2", "complete [1, 2]"]),
    ),
    "error callback fails": (
        ("prefork", "threads", "gevent", "eventlet"),  # a solo worker does not survive it
        Ending(
            jobs.fails, [*STARTED, "error TypeError failure"],
            options={"link_error": jobs.cannot_be_called_back.s()},
        ),
    ),
    "not accepted": (
        ("prefork", "gevent", "solo"),
        Ending(
            jobs.succeeds, ["queued", "error Unacceptable rejected"], NOT_ACCEPTED,
            options={"serializer": "yaml"},
        ),
    ),
    "invalid eta": (
        ("prefork",),
        Ending(
            jobs.succeeds, ["queued", "error Unacceptable rejected"], NOT_ACCEPTED,
            options={"eta": "some day"},
        ),
    ),
    "eta out of range": (
        ("prefork",),
        since(
            (5, 7),
            Ending(
                jobs.succeeds, ["queued", "error Unacceptable rejected"], NOT_ACCEPTED,
                options={"eta": OUT_OF_RANGE},
            ),
            # Here Celery rejects the message, and runs the task at once.
            before=Ending(jobs.succeeds, [*STARTED, DONE], options={"eta": OUT_OF_RANGE}),
        ),
    ),
    "expired": (
        ALL_POOLS,
        Ending(
            jobs.succeeds, ["queued", "error Expired expired"],
            "The job expired before a worker was free to start it",
            options={"expires": -1},
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("pool", ALL_POOLS)
async def test_non_string_task_id_is_followed_as_a_string(
    pool: str,
    server: Server,
    workers: Workers,
    sending_process: None,
    token: Token,
    tmp_path: Path,
) -> None:
    async with following(server.url, token()) as alice:
        harness = Harness(workers.for_pool(pool), alice, tmp_path)
        other = new_id()
        for task, end in (
            (jobs.succeeds, [DONE]),
            (jobs.fails, ["error LookupError failure"]),
            (jobs.retries_once, ["retrying 2 ConnectionError", "started 2/2", "log", DONE]),
        ):
            args = (harness.marker(),) if task is jobs.retries_once else ()
            job_id = harness.send(task, *args, task_id=uuid4())
            await harness.follow(job_id)
            assert await harness.final_timeline(job_id) == [*STARTED, *end]
        harness.send(jobs.succeeds, task_id=other)
        await harness.follow(other)
        assert await harness.final_timeline(other) == [*STARTED, DONE]


FIRST_PROTOCOL = {
    "success": (jobs.succeeds, [*STARTED, DONE]),
    "failure": (jobs.fails, [*STARTED, "error LookupError failure"]),
    "retry": (
        jobs.retries_once,
        [*STARTED, "retrying 2 ConnectionError", "started 2/2", "log", DONE],
    ),
    "unknown": ("nowhere.task", ["queued", "error NotRegistered rejected"]),
}


@pytest.mark.parametrize("ending", FIRST_PROTOCOL)
async def test_version_1_of_celerys_protocol_is_supported(
    ending: str,
    server: Server,
    workers: Workers,
    sending_process: None,
    token: Token,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    task, timeline = FIRST_PROTOCOL[ending]
    monkeypatch.setitem(jobs.app.amqp.__dict__, "create_task_message", jobs.app.amqp.as_task_v1)
    async with following(server.url, token()) as alice:
        harness = Harness(workers.for_pool("threads"), alice, tmp_path)
        args = [harness.marker()] if ending == "retry" else []
        signature = jobs.app.signature(task, args) if isinstance(task, str) else task.si(*args)
        job_id = harness.send_signature(owned_by(signature, "alice"), headers={"x": 1})
        assert (await alice.join(job_id))["ok"]
        await alice.transcript.end(job_id)
        assert await harness.timeline(job_id) == timeline
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize(
    ("name", "pool"), [(name, pool) for name, (pools, _) in ENDINGS.items() for pool in pools]
)
async def test_each_ending_is_reported(
    name: str,
    pool: str,
    server: Server,
    workers: Workers,
    sending_process: None,
    token: Token,
    tmp_path: Path,
) -> None:
    _, ending = ENDINGS[name]
    async with following(server.url, token()) as alice:
        harness = Harness(workers.for_pool(pool), alice, tmp_path)
        args = (harness.marker(),) if ending.needs_marker else ending.args
        job_id = harness.send(ending.task, *args, **ending.options)
        await harness.follow(job_id)
        assert await harness.final_timeline(job_id) == ending.timeline
        if ending.message is not None:
            assert (await alice.transcript.end(job_id))["message"] == ending.message


@pytest.fixture
def harness_for(
    server: Server, workers: Workers, sending_process: None, token: Token, tmp_path: Path
) -> Callable[[str], AbstractAsyncContextManager[Harness]]:
    @asynccontextmanager
    async def harness(pool: str) -> AsyncIterator[Harness]:
        # Later steps of a chain have no owner before they are sent.
        async with following(server.url, token(jobs=["*"])) as alice:
            yield Harness(workers.for_pool(pool), alice, tmp_path)

    return harness


HarnessFor = Callable[[str], AbstractAsyncContextManager[Harness]]


@pytest.mark.parametrize("pool", ALL_POOLS)
async def test_job_revoked_before_its_start_ends_as_revoked(
    pool: str, harness_for: HarnessFor
) -> None:
    async with harness_for(pool) as harness:
        job_id = harness.send(jobs.succeeds, countdown=COUNTDOWN)
        await harness.follow(job_id)
        harness.revoke(job_id)
        assert await harness.final_timeline(job_id) == ["queued", "error TaskRevokedError revoked"]
        assert (await harness.alice.transcript.end(job_id))["message"] == "The job was cancelled"


@pytest.mark.parametrize(
    ("pool", "signal"), [("prefork", "SIGTERM"), ("prefork", "SIGKILL"), ("gevent", "SIGTERM")]
)
async def test_job_terminated_while_it_runs_ends_as_revoked(
    pool: str, signal: str, harness_for: HarnessFor
) -> None:
    async with harness_for(pool) as harness:
        job_id = harness.send(jobs.hangs)
        await harness.follow(job_id)
        await harness.wait_until_running(job_id)
        harness.revoke(job_id, terminate=True, signal=signal)
        assert await harness.final_timeline(job_id) == [*STARTED, "error Terminated revoked"]


@pytest.mark.parametrize("pool", ["threads", "gevent", "eventlet"])
async def test_sys_exit_in_a_pool_without_child_processes_ends_the_job(
    pool: str, harness_for: HarnessFor
) -> None:
    async with harness_for(pool) as harness:
        job_id = harness.send(jobs.exits)
        await harness.follow(job_id)
        assert await harness.final_timeline(job_id) == [*STARTED, "error SystemExit worker_lost"]


async def test_unregistered_task_is_rejected(harness_for: HarnessFor) -> None:
    async with harness_for("prefork") as harness:
        job_id = harness.send_signature(jobs.app.signature("tests.unregistered"))
        await harness.follow(job_id)
        assert await harness.final_timeline(job_id) == ["queued", "error NotRegistered rejected"]


@pytest.mark.parametrize(
    ("chain", "end"),
    [
        (jobs.chained, "error LookupError failure"),
        (jobs.ignored_in_a_chain, "error Ignore rejected"),
    ],
    ids=["failed", "ignored"],
)
async def test_later_steps_of_a_failed_chain_end_as_failed(
    chain: Callable[[], Any], end: str, harness_for: HarnessFor
) -> None:
    async with harness_for("prefork") as harness:
        last = harness.apply(chain())
        ids = [last.parent.parent.id, last.parent.id, last.id]
        for job_id in ids:
            await harness.follow(job_id)
        timelines = [await harness.final_timeline(job_id) for job_id in ids]
        assert timelines[0] == [*STARTED, end]
        assert timelines[1:] == [["error StepFailed failure"]] * 2


async def test_body_of_a_chord_with_a_failed_header_ends_as_failed(harness_for: HarnessFor) -> None:
    async with harness_for("prefork") as harness:
        starter = harness.send(jobs.starts_a_chord)
        await harness.follow(starter)
        body, *parts = (await harness.alice.transcript.end(starter))["result"]
        for job_id in (body, *parts):
            await harness.follow(job_id)
        assert await harness.final_timeline(body) == ["error StepFailed failure"]
        assert sorted([(await harness.final_timeline(part))[-1] for part in parts]) == [
            DONE, "error LookupError failure",
        ]  # fmt: skip
