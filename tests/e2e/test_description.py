"""The description of a job: from its sender, its class and its run to every follower."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from celery import chain, chord

from jobcast import as_job
from jobcast.client import JobClient
from jobcast.events import JobLog
from tests import jobs
from tests.conftest import Valkey
from tests.e2e.services import join_until_accepted, services
from tests.support import TIMEOUT, Follower, Server, Worker, call_in_thread, following, new_id

Token = Callable[..., str]


@pytest.fixture(params=["redis", "rabbitmq"])
def processes(
    request: pytest.FixtureRequest, sender: None, valkey: Valkey, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[tuple[Server, Worker]]:  # fmt: skip
    """Run a server and a worker on each transport."""
    redis = request.param == "redis"
    events = valkey.url if redis else request.getfixturevalue("rabbitmq").url
    with services(tmp_path, events, valkey.url, valkey.url, monkeypatch) as running:
        yield running


def send(worker: Worker, task: Any, *args: Any, **description: Any) -> str:
    signature = task.as_job(**description)
    options = {"queue": worker.name, "task_id": new_id()}
    return str(call_in_thread(signature.apply_async, args, **options).id)


def statuses(follower: Follower, job_id: str) -> list[dict[str, Any]]:
    return follower.transcript.of(job_id, "job_status")


def described(message: dict[str, Any]) -> dict[str, Any]:
    """Return the description in a message, without the time."""
    names = ("task", "title", "tags", "queue", "worker", "parent", "owner")
    return {name: message[name] for name in names if name in message}


async def test_description_reaches_early_and_late_followers_over_every_interface(
    processes: tuple[Server, Worker], token: Token, tmp_path: Path
) -> None:
    server, worker = processes
    gate, child = tmp_path / "gate", new_id()
    by_sender = {
        "task": "tests.jobs.report", "title": "Report for Ålesund",
        "tags": ["project:7", "reports"], "queue": worker.name,
    }  # fmt: skip
    async with (
        following(server.url, token("ops", jobs=["*"])) as early,
        following(server.url, token()) as late,
    ):
        job_id = send(
            worker, jobs.report, "Ålesund", str(gate), child, owner="alice", tags=["project:7"]
        )
        await early.join(job_id)
        await early.transcript.wait_logged(job_id, 2)
        queued, started = statuses(early, job_id)
        assert described(queued) == by_sender
        assert described(started) == by_sender | {"worker": f"{worker.name}@test"}
        assert started["created_at"] == queued["created_at"]

        now = by_sender | {
            "title": "Ålesund: 3 pages", "tags": ["project:7", "reports", "urgent"],
            "worker": f"{worker.name}@test", "owner": "alice",
        }  # fmt: skip
        await join_until_accepted(late, job_id)
        [joined] = late.transcript.of(job_id, "joined")
        assert described(joined) == now
        assert joined["created_at"] == queued["created_at"]
        latest = early.transcript.of(job_id, "job_info", "joined")[-1]
        assert (latest["title"], latest["tags"]) == (now["title"], now["tags"])

        authorization = {"Authorization": f"Bearer {token()}"}
        state = f"{server.url}/jobs/{job_id}"
        async with httpx.AsyncClient(headers=authorization, timeout=TIMEOUT) as client:
            assert described((await client.get(state)).json()) == now

        gate.touch()
        await late.transcript.end(job_id)
        await join_until_accepted(late, child)
        [joined] = late.transcript.of(child, "joined")
        assert (joined["parent"], joined["owner"]) == (job_id, "alice")
        assert joined["task"] == "tests.jobs.count"
        assert not {"title", "tags"} & joined.keys()


async def test_python_client_merges_the_description(
    processes: tuple[Server, Worker], token: Token, tmp_path: Path
) -> None:
    server, worker = processes
    gate = tmp_path / "gate"
    job_id = send(worker, jobs.report, "Alice", str(gate), new_id(), owner="alice")
    async with JobClient(server.url, token(jobs=["*"])) as client:
        async for event in client.follow(job_id):
            info = client.info(job_id)
            if isinstance(event, JobLog) and event.message == "titled by itself":
                gate.touch()
        assert (info.title, info.tags) == ("Alice: 3 pages", ("reports", "urgent"))
        assert (info.worker, info.queue) == (f"{worker.name}@test", worker.name)
        assert info.created_at is not None


async def test_retry_has_the_title_and_the_tags_of_the_attempt_before(
    processes: tuple[Server, Worker], token: Token
) -> None:
    server, worker = processes
    async with following(server.url, token("ops", jobs=["*"])) as follower:
        job_id = send(worker, jobs.retitled, "Alice")
        await follower.join(job_id)
        await follower.transcript.end(job_id)
        queued, *_, started = statuses(follower, job_id)
        assert started["attempt"] == 2
        assert (started["title"], started["tags"]) == ("Alice, again", ["reports", "retried"])
        assert started["created_at"] == queued["created_at"]


# Tracers such as Sentry's nest headers in the headers of a message.
@pytest.mark.parametrize(
    "options", [{}, {"headers": {"headers": {"sentry-trace": "1"}}}], ids=["plain", "traced"]
)
async def test_steps_of_a_canvas_have_the_description_and_the_step_before_as_parent(
    server: Server, worker: Worker, sender: None, token: Token, options: dict[str, Any]
) -> None:
    first, linked, second, body = (new_id() for _ in range(4))

    def step(job_id: str) -> Any:
        return jobs.count.si(1).set(task_id=job_id, queue=worker.name, **options)

    first_step = step(first)
    first_step.link(as_job(step(linked), title="March report", tags=["project:7"]))
    canvas = chain(first_step, chord([step(second)], step(body)))
    described = as_job(canvas, owner="alice", title="March report", tags=["project:7"])
    call_in_thread(described.apply_async)
    async with following(server.url, token(jobs=["*"])) as follower:
        for job_id, parent in ((first, None), (linked, first), (second, first), (body, second)):
            await follower.join(job_id)
            await follower.transcript.end(job_id)
            await follower.leave(job_id)
            await follower.join(job_id)
            joined = follower.transcript.of(job_id, "joined")[-1]
            assert (joined["title"], joined["tags"]) == ("March report", ["project:7"])
            assert (joined["owner"], joined.get("parent")) == ("alice", parent)
