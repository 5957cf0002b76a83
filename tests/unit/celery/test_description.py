"""The title and the tags of a job: from its sender, from its task's class, and from inside."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery, chain, chord, group
from celery.app.task import Context
from celery.canvas import Signature
from celery.exceptions import NotRegistered, SoftTimeLimitExceeded, TaskRevokedError

from jobcast import ProgressTask, as_job, current_job, job_headers, open_job, submit
from jobcast.celery import description
from jobcast.celery.background import background
from jobcast.celery.canvas import fail_steps
from jobcast.celery.description import info_of_run, queue_of_message
from jobcast.celery.enqueue import announce, reserve
from jobcast.celery.failures import NotSent
from jobcast.celery.headers import headers_of, headers_of_info, info_of
from jobcast.celery.jobs import job_of_run
from jobcast.celery.refused_messages import refuse
from jobcast.events import NO_INFO, JobEvent, JobInfo
from jobcast.publishing import runtime
from jobcast.publishing.job import Job, use_job
from jobcast.transports import Origin
from jobcast.transports.memory import MemoryBroker
from tests.support import new_id

NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def fresh_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(description, "_warned", set())


@pytest.fixture
def app() -> Iterator[Celery]:
    with Celery(
        "described", broker="memory://", backend="cache+memory://", set_as_current=False
    ) as app:
        yield app


@pytest.fixture
def define(app: Celery) -> Callable[..., Any]:
    """Return a function that defines a task with options."""

    def define(function: Any = None, **options: Any) -> Any:
        def build(self: ProgressTask, customer: Any = None, pages: int = 1) -> None: ...

        options = {"base": ProgressTask, "bind": True, "shared": False, **options}
        return app.task(name=f"described.{new_id()}", **options)(function or build)

    return define


def stored(broker: MemoryBroker, job_id: str) -> JobInfo:
    """Return the description in the record of a job, after everything is published."""
    here = runtime.get_runtime()
    assert here is not None
    here.publisher.flush()
    return broker.info(job_id)


SPELLINGS: dict[str, Callable[[Any, dict[str, Any]], Signature]] = {
    "plain": lambda task, given: task.as_job(**given),
    "headers set": lambda task, given: task.as_job(**given).set(headers={"x": 1}),
    "countdown": lambda task, given: task.as_job(**given).set(countdown=60),
    "arguments": lambda task, given: task.as_job(**given).s(1),
    "in steps": lambda task, given: as_job(
        as_job(task.as_job(tags=given["tags"]), title=given["title"]), owner=given["owner"]
    ),
    "owned first": lambda task, given: as_job(task.owned_by("alice").s(1), **given),
    "function": lambda task, given: as_job(task.s(1), **given),
    "in a group": lambda task, given: group([task.as_job(**given).s(n) for n in range(2)]),
    "a group": lambda task, given: as_job(group(task.s(n) for n in range(2)), **given),
    "a chain": lambda task, given: as_job(chain(task.s(1), task.s()), **given),
    "a chord": lambda task, given: as_job(chord([task.s(1), task.s(2)], task.s()), **given),
}


@pytest.mark.parametrize("options", [{}, {"headers": {"y": 2}}], ids=["alone", "headers"])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_description_of_the_sender_is_stored_with_queued(
    spelling: str,
    options: Any,
    define: Callable[..., Any],
    broker: MemoryBroker,
    sent: list[dict[str, Any]],
) -> None:
    task = define()
    given = {"owner": "alice", "title": "March report", "tags": ["project:7", "urgent"]}
    SPELLINGS[spelling](task, given).apply_async(**options)
    assert sent
    for headers in sent:
        info = stored(broker, headers["id"])
        assert (info.title, info.tags) == ("March report", ("project:7", "urgent"))
        assert (info.owner, info.task, info.queue) == ("alice", task.name, "celery")
        assert info.created_at is not None
        assert info_of(headers).created_at == info.created_at
        assert headers.get("y") == options.get("headers", {}).get("y")


def test_description_survives_a_signature_as_json(define: Callable[..., Any], app: Celery) -> None:
    signature = define().as_job(title="ü", tags=["a"]).s(1)
    again = Signature.from_dict(json.loads(json.dumps(signature)), app=app)
    assert info_of(again.options) == JobInfo(title="ü", tags=("a",))


@pytest.mark.parametrize(
    ("title", "args", "kwargs", "shown"),
    [
        ("Report for {0}", (7,), {}, "Report for 7"),
        ("Report for {0}", (), {"customer": 7}, "Report for 7"),
        ("Report for {customer}", (7,), {}, "Report for 7"),
        ("Report for {customer}, {pages} pages", (7,), {}, "Report for 7, 1 pages"),
        ("Report for {customer}", (), {"customer": "Ålesund"}, "Report for Ålesund"),
        (lambda self, customer, **_: f"{self.name[:9]} {customer}", (7,), {}, "described 7"),
        (lambda _, __: None, (7,), {}, None),
        ("", (7,), {}, None),
    ],
)
def test_title_of_the_class_is_made_from_the_arguments(
    title: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    shown: str | None,
    define: Callable[..., Any],
    broker: MemoryBroker,
) -> None:
    task = define(job_title=title)
    assert stored(broker, task.apply_async(args, kwargs).id).title == shown
    by_sender = task.as_job(title="by its sender").apply_async(args, kwargs)
    assert stored(broker, by_sender.id).title == "by its sender"


def test_tags_of_the_class_follow_those_of_the_sender(
    define: Callable[..., Any], broker: MemoryBroker
) -> None:
    fixed = define(job_tags=("nightly", "a"))
    made = define(job_tags=lambda _, customer: [f"customer:{customer}"])
    assert stored(broker, fixed.as_job(tags=["a"]).delay(1).id).tags == ("a", "nightly")
    assert stored(broker, made.delay(7).id).tags == ("customer:7",)


@pytest.mark.parametrize(
    "options",
    [
        {"job_title": "Report for {9}"},
        {"job_title": "Report for {missing.name}"},
        {"job_title": lambda _, __: 1 / 0},
        {"job_tags": ["x" * 200]},
        {"job_tags": "project"},
        {"job_tags": lambda _, __: 7},
    ],
)
def test_failing_default_is_logged_once_and_fails_nothing(
    options: Any, define: Callable[..., Any], broker: MemoryBroker, caplog: pytest.LogCaptureFixture
) -> None:
    task = define(**options)
    ids = [task.delay(1).id for _ in range(3)]
    task.apply(args=[1])
    infos = [stored(broker, job_id) for job_id in ids]
    assert [(info.title, info.tags) for info in infos] == [(None, ())] * 3
    [record] = [r for r in caplog.records if "failed; its jobs are shown" in r.getMessage()]
    assert record.levelname == "WARNING"
    assert task.name in record.getMessage()


def test_soft_time_limit_within_a_default_is_not_swallowed(define: Callable[..., Any]) -> None:
    def interrupted(self: Any, *_: Any) -> str:
        raise SoftTimeLimitExceeded

    with pytest.raises(SoftTimeLimitExceeded):
        description.with_defaults(JobInfo(), define(job_title=interrupted), (1,), {})


def test_eager_run_has_a_description_and_the_job_that_calls_it_as_parent(
    define: Callable[..., Any], broker: MemoryBroker
) -> None:
    task = define(job_title="Report for {customer}", job_tags=["nightly"])
    with open_job(new_id()) as job:
        result = task.as_job(tags=["a"]).apply(args=(7,))
    info = stored(broker, result.id)
    assert (info.title, info.tags, info.parent) == ("Report for 7", ("a", "nightly"), job.job_id)
    assert (info.task, info.queue, info.worker) == (task.name, None, None)


def test_job_that_sends_a_task_is_its_parent(
    define: Callable[..., Any], broker: MemoryBroker, sent: list[dict[str, Any]]
) -> None:
    task = define()
    assert stored(broker, task.delay().id).parent is None
    with open_job(new_id()) as job:
        child = task.delay()
    assert stored(broker, child.id).parent == job.job_id
    assert info_of(sent[-1]).parent == job.job_id


def test_title_and_tags_change_while_the_job_runs(
    define: Callable[..., Any], broker: MemoryBroker
) -> None:
    def build(self: ProgressTask) -> None:
        self.set_title("Report for Alice")
        self.add_tags("customer:7", "urgent")
        current_job().add_tags("urgent")
        with pytest.raises(ValueError, match="at most 10 tags"):
            self.add_tags(*(f"tag {n}" for n in range(9)))
        with pytest.raises(TypeError):
            self.add_tags(7)  # type: ignore[arg-type]

    result = define(build).as_job(title="Report", tags=["a"]).apply()
    assert result.successful(), result.traceback
    info = stored(broker, result.id)
    assert (info.title, info.tags) == ("Report for Alice", ("a", "customer:7", "urgent"))


def test_retry_keeps_the_title_and_the_tags_that_the_run_has_set(
    define: Callable[..., Any], broker: MemoryBroker, app: Celery
) -> None:
    task = define()
    here = runtime.get_runtime(app.conf)
    assert here is not None
    job = here.job("a", origin=Origin())
    job.info = JobInfo(title="by its sender", tags=("a",), parent="p", created_at=NOON)
    job.set_title("from inside")
    job.add_tags("b")
    message: dict[str, Any] = {"id": "a", "retries": 1, "jobcast_title": "by its sender"}
    with use_job(job):
        announce(task.name, message)
    assert info_of(message) == JobInfo(
        title="from inside", tags=("a", "b"), parent="p", created_at=NOON
    )


def test_replacement_keeps_the_description_of_the_job(
    define: Callable[..., Any], app: Celery, sent: list[dict[str, Any]]
) -> None:
    task = define(job_title="Part {0}")
    here = runtime.get_runtime(app.conf)
    assert here is not None
    job = here.job("a", origin=Origin())
    job.info = JobInfo(title="March report", tags=("a",), worker="celery@a", created_at=NOON)
    job.replaced = True
    with use_job(job):
        task.apply_async((7,), task_id="a")
        task.as_job(title="another").apply_async((7,), task_id="a")
    assert info_of(sent[0]) == JobInfo(title="March report", tags=("a",), created_at=NOON)
    assert info_of(sent[1]).title == "another"


def run_of(task: Any, **message: Any) -> JobInfo:
    """Return the description that a worker makes of a message."""
    request = Context({"id": "a", "retries": 0, "hostname": "celery@a", **message})
    task.request_stack.push(request)
    try:
        return info_of_run(task, task, headers_of(task.request))
    finally:
        task.request_stack.pop()


def test_worker_completes_the_description_of_a_task_sent_by_name(
    define: Callable[..., Any],
) -> None:
    task = define(job_title="Report for {customer}", job_tags=["nightly"])
    headers = job_headers(owner="alice", tags=["a"])
    delivery = {"exchange": "", "routing_key": "slow"}
    assert run_of(task, args=[7], kwargs={}, delivery_info=delivery, **headers) == JobInfo(
        task=task.name, title="Report for 7", tags=("a", "nightly"), queue="slow", worker="celery@a"
    )


def message_of(task: Any, job_id: str) -> dict[str, Any]:
    """Return what a worker's main process knows of a task's message."""
    headers = job_headers(owner="alice", title="March", tags=("a",))
    return {
        "id": job_id, "task": task.name, "retries": 0, "hostname": "worker@here",
        "delivery_info": {"exchange": "", "routing_key": "slow"}, **headers,
    }  # fmt: skip


def test_ending_that_the_main_process_publishes_describes_the_job(
    define: Callable[..., Any], app: Celery, broker: MemoryBroker
) -> None:
    task, job_id = define(), new_id()
    job = job_of_run(Context(message_of(task, job_id)), app, waits=False)
    assert job is not None
    job.fail(TaskRevokedError())
    assert stored(broker, job_id) == JobInfo(
        task=task.name, title="March", tags=("a",), queue="slow", worker="worker@here",
        owner="alice",
    )  # fmt: skip


def test_refused_message_describes_its_job(
    define: Callable[..., Any], app: Celery, broker: MemoryBroker
) -> None:
    fields = message_of(define(), new_id())
    message = SimpleNamespace(
        headers=fields, delivery_info=fields["delivery_info"], payload=([], {}, {})
    )
    refuse(app, message, NotRegistered(fields["task"]))
    background.close()
    assert stored(broker, fields["id"]) == JobInfo(
        task=fields["task"], title="March", tags=("a",), queue="slow", owner="alice"
    )


def test_step_that_never_runs_is_described_by_its_signature(
    define: Callable[..., Any], app: Celery, broker: MemoryBroker
) -> None:
    task, job_id = define(), new_id()
    step = task.as_job(title="second", tags=("b",)).set(task_id=job_id)
    fail_steps(app, [step], None, "alice")
    expected = JobInfo(task=task.name, title="second", tags=("b",), owner="alice")
    assert stored(broker, job_id) == expected


def test_withdrawn_reservation_is_described_by_its_sender(
    define: Callable[..., Any], app: Celery, broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id, added = new_id(), []
    here = runtime.get_runtime(app.conf)
    assert here is not None
    submit_event = here.publisher.add

    def record(job: Job, event: JobEvent, info: JobInfo = NO_INFO) -> Any:
        added.append((event.state, info.title))
        return submit_event(job, event, info)

    monkeypatch.setattr(here.publisher, "add", record)
    reserved = reserve(app, define().name, job_id, job_headers(title="March"))
    assert reserved is not None
    reserved.withdraw(NotSent())
    assert added[-1] == ("error", "March")
    assert stored(broker, job_id).title == "March"


@pytest.mark.parametrize(
    ("exchange", "key", "queue"),
    [("", "slow", "slow"), ("events", "a.b", "bound"), ("events", "a.c", "a.c"), ("", None, None)],
)
def test_queue_of_a_run(
    exchange: str, key: str | None, queue: str | None, define: Callable[..., Any], app: Celery
) -> None:
    app.amqp.queues.add("bound", exchange="events", exchange_type="topic", routing_key="a.b")
    delivery = {"exchange": exchange, "routing_key": key}
    assert run_of(define(), args=(), kwargs={}, delivery_info=delivery).queue == queue


def test_queue_of_a_message_that_is_sent(app: Celery) -> None:
    queue = app.amqp.queues.add("bound", routing_key="a.b")
    assert queue_of_message("a.b", [app.amqp.queues["bound"]]) == "bound", queue
    assert queue_of_message("a.b", None) == "a.b"
    assert queue_of_message(None, []) is None


@pytest.mark.parametrize(
    "headers",
    [
        {"jobcast_title": "\n", "jobcast_tags": "a", "jobcast_parent": "a b"},
        {"jobcast_title": None, "jobcast_tags": [7], "jobcast_created_at": "noon"},
        {"jobcast_tags": {"a": 1}, "jobcast_created_at": 7, "jobcast_parent": 7},
        {"jobcast_tags": ["\n"], "jobcast_created_at": "2026-11-27T12:00:00"},
        None,
    ],
)
def test_invalid_headers_describe_nothing(headers: Any) -> None:
    assert info_of(headers) == JobInfo()


def test_headers_of_a_description_are_read_back() -> None:
    info = JobInfo(title="t", tags=("a", "b"), parent="p", created_at=NOON)
    assert info_of(headers_of_info(info)) == info
    assert headers_of_info(JobInfo()) == {}


@pytest.mark.parametrize("bad", [{"tags": "a"}, {"tags": [""]}, {"owner": ""}, {"owner": 1.5}])
def test_invalid_description_is_refused_when_the_task_is_sent(
    bad: Any, define: Callable[..., Any]
) -> None:
    task = define()
    for send in (task.as_job, lambda **given: as_job(task.s(), **given), job_headers):
        with pytest.raises((TypeError, ValueError)):
            send(**bad)


def test_submission_of_a_signature_keeps_its_title_and_tags(
    define: Callable[..., Any], broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOBCAST_JWT_SECRET", "x" * 32)
    signature = define().as_job(title="March report", tags=["a"])
    submission = submit(signature, 7, owner="alice")
    info = stored(broker, submission.job_id)
    assert (info.title, info.tags, info.owner) == ("March report", ("a",), "alice")


def test_opened_job_has_the_description_of_its_caller(broker: MemoryBroker) -> None:
    outer, inner = new_id(), new_id()
    with open_job(outer, owner=7, title="Nightly", tags=["a"], parent=5, task="reindex"):
        with open_job(inner) as job, open_job(inner):
            assert isinstance(job, Job)
    info = stored(broker, outer)
    assert (info.owner, info.title, info.tags) == ("7", "Nightly", ("a",))
    assert (info.parent, info.task) == ("5", "reindex")
    assert info.created_at is not None
    assert stored(broker, inner).parent == outer
    for bad in ({"tags": "a"}, {"parent": "a b"}, {"parent": True}):
        with pytest.raises((TypeError, ValueError)):
            open_job(inner, **bad)


def test_methods_outside_of_a_job_only_check_their_arguments() -> None:
    current_job().set_title("nothing")
    current_job().add_tags("a")
    with pytest.raises(TypeError):
        current_job().add_tags(7)  # type: ignore[arg-type]
