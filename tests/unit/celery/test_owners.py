"""The owner of a job reaches the run from the signature, whichever headers are added between."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
from celery import Celery, chain, chord, group
from celery.app.task import Context
from celery.canvas import Signature

from jobcast import ProgressTask, owned_by
from jobcast.celery.canvas import fail_later_steps
from jobcast.celery.enqueue import announce
from jobcast.celery.headers import headers_of, origin_of_run
from jobcast.celery.jobs import job_of_run
from jobcast.publishing import runtime
from jobcast.publishing.job import Job, use_job
from jobcast.transports.memory import MemoryBroker
from tests.support import new_id

TRACED = {"sentry-trace": "1", "headers": {"sentry-trace": "1"}}


@pytest.fixture
def app() -> Iterator[Celery]:
    with Celery(
        "owners", broker="memory://", backend="cache+memory://", set_as_current=False
    ) as app:
        yield app


@pytest.fixture
def task(app: Celery) -> Any:
    @app.task(base=ProgressTask, bind=True, shared=False, name="owners.convert")
    def convert(self: ProgressTask, *_: Any) -> None: ...

    return convert


SPELLINGS: dict[str, Callable[[Any], Signature]] = {
    "plain": lambda task: task.owned_by("alice"),
    "headers set": lambda task: task.owned_by("alice").set(headers={"x": 1}),
    "headers cloned": lambda task: task.owned_by("alice").clone(headers={"x": 1}),
    "traced": lambda task: task.owned_by("alice").set(headers=TRACED),
    "arguments": lambda task: task.owned_by("alice").s(1),
    "immutable arguments": lambda task: task.owned_by("alice").si(1),
    "function": lambda task: owned_by(task.s(1), "alice"),
    "function and headers": lambda task: owned_by(task.s(1), "alice").set(headers={"x": 1}),
    "owned again": lambda task: owned_by(task.owned_by("bob"), "alice"),
    "by name": lambda task: owned_by(task.app.signature("elsewhere.task"), "alice"),
    "in a group": lambda task: group([task.owned_by("alice").s(n) for n in range(2)]),
    "a group": lambda task: owned_by(group(task.s(n) for n in range(2)), "alice"),
    "in a chain": lambda task: chain(task.owned_by("alice").s(1), task.s()),
    "a chain": lambda task: owned_by(chain(task.s(1), task.s()), "alice"),
    "a chord": lambda task: owned_by(chord([task.s(1), task.s(2)], task.s()), "alice"),
}


@pytest.mark.parametrize("options", [{}, {"headers": {"y": 2}}], ids=["alone", "headers"])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_owner_survives_merged_options(
    spelling: str, options: Any, task: Any, broker: MemoryBroker, sent: list[dict[str, Any]]
) -> None:
    SPELLINGS[spelling](task).apply_async(**options)
    assert sent
    for headers in sent:
        assert headers["jobcast_owner"] == "alice"
        assert headers.get("y") == options.get("headers", {}).get("y")
    here = runtime.get_runtime()
    assert here is not None
    here.publisher.flush()
    assert {broker.snapshot(headers["id"], None).owner for headers in sent} == {"alice"}


def test_every_step_of_a_chord_and_a_chain_has_the_owner(task: Any) -> None:
    steps = owned_by(chain(task.s(1), group(task.s(2), task.s(3)), task.s()), "alice")
    assert json.dumps(steps).count('"jobcast_owner": "alice"') == 4


@pytest.mark.parametrize(
    ("owner", "subject"),
    [(UUID(int=7), "00000000-0000-0000-0000-000000000007"), (7, "7"), ("alice", "alice")],
)
def test_owner_is_converted_to_text(task: Any, owner: Any, subject: str) -> None:
    assert task.owned_by(owner).options == {"jobcast_owner": subject}
    assert owned_by(task.s(), owner).options == {"jobcast_owner": subject}


def test_owned_by_does_not_modify_the_signature(task: Any) -> None:
    signature = task.s(1)
    owned_by(signature, "alice")
    assert signature.options == {}


def test_owner_reaches_an_eager_run(app: Celery, task: Any, broker: MemoryBroker) -> None:
    app.conf.task_always_eager = True
    job_id = new_id()
    task.owned_by("alice").apply_async(task_id=job_id, headers={"x": 1})
    other = new_id()
    task.owned_by("alice").apply(task_id=other)
    assert {broker.snapshot(one, None).owner for one in (job_id, other)} == {"alice"}


def test_owner_header_takes_precedence(task: Any, sent: list[dict[str, Any]]) -> None:
    task.owned_by("alice").apply_async(headers={"jobcast_owner": "bob"})
    assert sent[0]["jobcast_owner"] == "bob"


def context(**message: Any) -> Context:
    """Return the request of a run, as a worker creates it from a message."""
    own = {"jobcast_owner": "alice", "jobcast_sending": "abcdefabcdef"}
    return Context({"id": "a", "task": "owners.convert", "retries": 0, **own, **message})


@pytest.mark.parametrize(
    "headers", [None, {"sentry-trace": "1"}, {}, "no mapping"],
    ids=["none", "traced", "empty", "odd"],
)  # fmt: skip
def test_run_is_identified_by_top_level_headers(headers: Any) -> None:
    request = context() if headers is None else context(headers=headers)
    origin = origin_of_run(request)
    assert (origin.owner, origin.run.sending) == ("alice", "abcdefabcdef")


@pytest.mark.parametrize("headers", [None, {"sentry-trace": "1"}], ids=["none", "traced"])
def test_retry_message_gets_the_headers_that_celery_omits(
    headers: Any, app: Celery, broker: MemoryBroker
) -> None:
    request = context(headers=headers, jobcast_stands_in="owners.convert")
    job = job_of_run(request, app)
    assert job is not None
    # Celery's retry copies the nested headers alone.
    message = {"id": "a", "retries": 1, **(request.headers or {})}
    with use_job(job):
        announce("owners.convert", message)
    assert headers_of(Context(message)).keys() >= {
        "jobcast_owner", "jobcast_sending", "jobcast_stands_in", "jobcast_after",
    }  # fmt: skip


@pytest.mark.parametrize("headers", [None, {"sentry-trace": "1"}], ids=["none", "traced"])
def test_sent_and_skipped_steps_belong_to_the_owner_of_the_run(
    headers: Any, app: Celery, task: Any, broker: MemoryBroker, sent: list[dict[str, Any]]
) -> None:
    step = task.s().set(task_id="step")
    request = context(headers=headers, chain=[step])
    job = job_of_run(request, app)
    assert isinstance(job, Job)
    with use_job(job):
        task.delay()
    assert sent[0]["jobcast_owner"] == "alice"
    fail_later_steps(app, request)
    job.flush()
    assert broker.snapshot("step", None).owner == "alice"


@pytest.mark.parametrize("bad", ["not a good id", "ä" * 3])
def test_sender_of_a_job_with_invalid_id_is_warned(
    bad: str, task: Any, broker: MemoryBroker, caplog: pytest.LogCaptureFixture
) -> None:
    task.apply_async(task_id=bad)
    [record] = [r for r in caplog.records if r.levelname == "WARNING"]
    assert repr(bad) in record.getMessage()
    assert "1 to 128 characters" in record.getMessage()


@pytest.mark.parametrize("task_id", [UUID(int=5), 12345])
def test_task_id_of_another_type_becomes_a_text(
    task_id: Any, app: Celery, task: Any, broker: MemoryBroker, sent: list[dict[str, Any]]
) -> None:
    task.owned_by("alice").apply_async(task_id=task_id)
    with runtime.open_job(task_id, owner="alice") as job:
        assert job.job_id == str(task_id)
    here = runtime.get_runtime()
    assert here is not None
    here.publisher.flush()
    assert broker.snapshot(str(task_id), None).state == "complete"
