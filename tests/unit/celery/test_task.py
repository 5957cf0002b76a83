"""``ProgressTask`` in this process, with Celery's eager mode and the memory transport."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from celery import Celery
from celery.app.task import Context
from celery.exceptions import NotRegistered, Retry
from celery.utils.log import get_task_logger
from celery.utils.serialization import get_pickleable_exception
from kombu.exceptions import OperationalError

from jobcast import ProgressTask, current_job
from jobcast.celery.failures import original_exception
from jobcast.celery.refused_messages import refuse
from jobcast.publishing import runtime
from jobcast.publishing.job import NO_JOB
from jobcast.transports.memory import MemoryBroker
from tests.support import new_id, wait_for
from tests.unpicklable import NoSuchRow, TwoArgs

Event = tuple[str, dict[str, Any]]
History = Callable[[str], list[Event]]


@pytest.fixture
def history(monkeypatch: pytest.MonkeyPatch) -> Iterator[History]:
    url = f"memory://{new_id()}"
    monkeypatch.setenv("JOBCAST_URL", url)
    runtime.close()

    def of(job_id: str) -> list[Event]:
        here = runtime.get_runtime()
        assert here is not None
        here.publisher.flush()
        snapshot = MemoryBroker.at(url).snapshot(job_id, None)
        return [tuple(msgspec.json.decode(message.packet[2:])) for message in snapshot.events]

    yield of
    runtime.close()
    assert current_job() is NO_JOB


class OwnApp(Celery):
    """An app that keeps its tasks to itself; Celery shares tasks with apps finalized later."""

    def __init__(self, **options: Any) -> None:
        super().__init__("unit", broker="memory://", set_as_current=False, **options)

    def task(self, *args: Any, **options: Any) -> Any:
        return super().task(*args, **{**options, "shared": False})


@pytest.fixture
def app() -> Celery:
    return OwnApp(backend="cache+memory://")


def brief(events: list[Event]) -> list[Any]:
    """Return the names of the events, each with its status, message or result."""
    return [
        (name.removeprefix("job_"), data.get("status", data.get("message", data.get("result"))))
        for name, data in events
        if name != "job_progress"
    ]


def test_task_publishes_its_run_without_own_code(app: Celery, history: History) -> None:
    @app.task(base=ProgressTask, bind=True, name="t.add")
    def add(self: ProgressTask, a: int, b: int) -> int:
        return a + b

    result = add.apply((2, 3))
    assert result.get() == 5
    [(_, started), (name, end)] = history(result.id)
    assert (started["status"], started["task"], started["attempt"]) == ("started", "t.add", 1)
    assert (name, end["result"]) == ("job_complete", 5)


def test_task_cls_makes_every_task_a_progress_task(history: History) -> None:
    app = OwnApp(task_cls="jobcast:ProgressTask")

    @app.task
    def plain() -> None:
        current_job().log("from a plain task")

    result = plain.apply()
    assert brief(history(result.id)) == [
        ("status", "started"), ("log", "from a plain task"), ("complete", None),
    ]  # fmt: skip


def test_celerys_own_tasks_are_not_jobs(history: History) -> None:
    app = OwnApp(task_cls=ProgressTask)
    app.finalize()
    accumulate = app.tasks["celery.accumulate"]
    result = accumulate.apply((1, 2))
    assert list(result.get()) == [1, 2]
    assert history(result.id) == []


@pytest.mark.parametrize("name", ["celery.chord_unlock", "celery.map", "celery.backend_cleanup"])
def test_celerys_own_tasks_are_not_queued_as_jobs(name: str, history: History) -> None:
    app = OwnApp(task_cls=ProgressTask, backend="cache+memory://")
    for headers in ({}, {"jobcast_owner": "alice"}):
        for _ in ("before", "after"):
            app.send_task(name, task_id=(job_id := new_id()), headers=headers)
            assert history(job_id) == []
            app.finalize()  # defines the built-in tasks


@pytest.mark.parametrize("name", ["celery.chord_unlock", "celery.nowhere"])
def test_refused_message_of_celerys_own_tasks_is_not_a_job(name: str, history: History) -> None:
    headers = {"id": (job_id := new_id()), "task": name, "jobcast_owner": "alice"}
    message = SimpleNamespace(headers=headers, delivery_info={}, payload=None)
    refuse(OwnApp(), message, NotRegistered(name))
    refuse(
        OwnApp(),
        SimpleNamespace(
            **{
                **vars(message),
                "headers": {**headers, "id": (other := new_id()), "task": "nowhere.task"},
            }
        ),
        NotRegistered(name),
    )
    wait_for(lambda: history(other), "the final event of the other job")
    assert history(job_id) == []


def test_failure_publishes_the_class_of_the_error(app: Celery, history: History) -> None:
    @app.task(base=ProgressTask, bind=True)
    def fails(self: ProgressTask) -> None:
        raise LookupError("no such row")

    result = fails.apply()
    assert result.state == "FAILURE"
    name, end = history(result.id)[-1]
    assert (name, end["error"], end["message"]) == ("job_error", "LookupError", "no such row")
    assert "Traceback" not in str(end)


def test_wrong_arguments_are_published_as_failure(app: Celery, history: History) -> None:
    @app.task(base=ProgressTask, bind=True)
    def none(self: ProgressTask) -> None:
        pass

    result = none.apply((1, 2, 3))
    assert history(result.id)[-1][1]["error"] == "TypeError"


def test_directly_called_task_works_and_publishes_nothing(app: Celery, history: History) -> None:
    @app.task(base=ProgressTask, bind=True)
    def double(self: ProgressTask, items: list[int]) -> list[int]:
        self.progress(50, "half")
        self.progress(current=1, total=2)
        self.log("hello", level="warning")
        with self.stage("only", weight=2):
            return [2 * item for item in self.track(items)]

    assert double([1, 2]) == [2, 4]


def test_directly_called_task_publishes_for_the_calling_job(app: Celery, history: History) -> None:
    @app.task(base=ProgressTask, bind=True)
    def inner(self: ProgressTask) -> None:
        self.log("from within")

    @app.task(base=ProgressTask, bind=True)
    def outer(self: ProgressTask) -> None:
        inner()
        inner.apply(task_id="inner-job")
        self.log("from without")

    result = outer.apply()
    assert brief(history(result.id)) == [
        ("status", "started"), ("log", "from within"), ("log", "from without"), ("complete", None),
    ]  # fmt: skip
    assert brief(history("inner-job"))[1:] == [("log", "from within"), ("complete", None)]


def test_retry_is_published_and_starts_the_next_attempt(app: Celery, history: History) -> None:
    @app.task(base=ProgressTask, bind=True, autoretry_for=(OSError,), retry_backoff=False)
    def flaky(self: ProgressTask) -> str:
        if self.request.retries < 2:
            raise OSError(f"try {self.request.retries}")
        return "at last"

    flaky.default_retry_delay = 0
    result = flaky.apply()
    assert result.get() == "at last"
    events = history(result.id)
    assert [(d["status"], d["attempt"]) for _, d in events[:-1]] == [
        ("started", 1), ("retrying", 2), ("started", 2), ("retrying", 3), ("started", 3),
    ]  # fmt: skip
    assert (events[1][1]["error"], events[1][1]["message"]) == ("OSError", "try 0")
    assert events[-1][1]["result"] == "at last"


def test_hooks_of_a_subclass_need_not_call_super(app: Celery, history: History) -> None:
    calls: list[str] = []

    class Own(ProgressTask):
        abstract = True

        def before_start(self, *args: Any) -> None:
            calls.append("before")
            self.log("before")

        def on_success(self, *args: Any) -> None:
            calls.append("success")
            self.log("success")

        def on_failure(self, *args: Any) -> None:
            super().on_failure(*args)
            calls.append("failure")

    class Deeper(Own):
        abstract = True

        def on_success(self, *args: Any) -> None:
            super().on_success(*args)
            raise RuntimeError("the hook fails")

    @app.task(base=Own, bind=True)
    def fine(self: Own) -> int:
        return 1

    @app.task(base=Own, bind=True)
    def broken(self: Own) -> None:
        raise KeyError("k")

    @app.task(base=Deeper, bind=True)
    def deeper(self: Deeper) -> int:
        return 2

    assert brief(history(fine.apply().id)) == [
        ("status", "started"), ("log", "before"), ("log", "success"), ("complete", 1),
    ]  # fmt: skip
    assert brief(history(broken.apply().id))[-1] == ("error", "'k'")
    with pytest.raises(RuntimeError, match="the hook fails"):
        deeper.apply(task_id="deeper")
    assert ("complete", 2) in brief(history("deeper"))
    assert calls == ["before", "success", "before", "failure", "before", "success"]


def test_hook_given_to_the_decorator_is_called(app: Celery, history: History) -> None:
    calls: list[Any] = []

    @app.task(base=ProgressTask, bind=True, on_success=lambda _, *args: calls.append(args[0]))
    def fine(self: ProgressTask) -> int:
        return 7

    result = fine.apply()
    assert calls == [7]
    assert brief(history(result.id))[-1] == ("complete", 7)


def test_failing_public_hooks_publish_only_types(
    app: Celery, history: History, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(ProgressTask):
        abstract = True

        def public_result(self, result: Any) -> Any:
            raise RuntimeError("no idea")

        def public_error(self, exc: BaseException) -> str:
            raise RuntimeError("no idea")

    @app.task(base=Broken, bind=True)
    def either(self: Broken, fail: bool) -> str:
        if fail:
            raise ValueError("secret")
        return "secret"

    assert either.apply((False,)).state == "SUCCESS"
    good, bad = either.apply((False,)), either.apply((True,))
    assert history(good.id)[-1][1]["result"] == {"omitted": "unserializable", "type": "str"}
    assert history(bad.id)[-1][1]["message"] == "ValueError"
    assert "secret" not in str(history(good.id) + history(bad.id))
    assert "public_result of" in caplog.text


def test_task_with_invalid_job_id_runs_unfollowed(
    app: Celery, history: History, caplog: pytest.LogCaptureFixture
) -> None:
    @app.task(base=ProgressTask, bind=True)
    def fine(self: ProgressTask) -> int:
        self.progress(1)
        return 1

    assert fine.apply(task_id="not a good id").get() == 1
    assert "'not a good id' is not published" in caplog.text


def test_invalid_setting_fails_no_task_and_is_logged_once(
    app: Celery, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("JOBCAST_URL", "nonsense")
    runtime.close()

    @app.task(base=ProgressTask, bind=True)
    def fine(self: ProgressTask) -> int:
        self.log("x")
        return 1

    assert [fine.apply().get() for _ in range(3)] == [1, 1, 1]
    assert caplog.text.count("jobcast is disabled in this process: JOBCAST_URL should be") == 1
    runtime.close()


def test_settings_may_come_from_celerys_configuration(
    app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JOBCAST_URL", raising=False)
    runtime.close()
    url = f"memory://{new_id()}"
    app.conf.jobcast_url = url

    @app.task(base=ProgressTask, bind=True)
    def fine(self: ProgressTask) -> int:
        return 1

    result = fine.apply()
    assert MemoryBroker.at(url).snapshot(result.id, None).state == "complete"
    runtime.close()


def test_owned_by_sets_the_option_of_the_signature(app: Celery, history: History) -> None:
    @app.task(base=ProgressTask, bind=True)
    def fine(self: ProgressTask) -> None:
        pass

    signature = fine.owned_by("alice")
    assert signature.options == {"jobcast_owner": "alice"}
    assert fine.request.__class__ is Context


OWN = ["of the package", "of a task logger", "of the task logger"]


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, OWN),
        ({"JOBCAST_LOG_LEVEL": "warning"}, ["of the task logger"]),
        ({"JOBCAST_LOG_LEVEL": "off"}, []),
        ({"JOBCAST_LOG_LOGGERS": "mine.deep"}, [*OWN, "of mine.deep"]),
        ({"JOBCAST_LOG_LOGGERS": "mine"}, [*OWN, "of mine.deep", "of mine"]),
        ({"JOBCAST_LOG_LOGGERS": "*"}, [*OWN, "of mine.deep", "of mine", "of httpx"]),
    ],
)
def test_logging_of_the_task_and_of_listed_loggers_is_captured(
    app: Celery,
    history: History,
    monkeypatch: pytest.MonkeyPatch,
    environ: dict[str, str],
    expected: list[str],
    fresh_loggers: None,
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)

    @app.task(base=ProgressTask, bind=True)
    def logs_lines(self: ProgressTask) -> None:
        logging.getLogger("tests.library").info("of the %s", "package")
        get_task_logger("reports").info("of a task logger")
        logging.getLogger("celery.task").warning("of the task logger")
        for name in ("mine.deep", "mine", "httpx"):
            logging.getLogger(name).info("of %s", name)
        for loud in ("jobcast.celery", "redis", "socketio.server", "kombu.x", "celery.app.trace"):
            logging.getLogger(loud).error("from the infrastructure")

    result = logs_lines.apply()
    logs = [d["message"] for name, d in history(result.id) if name == "job_log"]
    assert logs == expected


@pytest.fixture
def fresh_loggers() -> Iterator[None]:
    """Remove the handlers of earlier tests, and let the root logger pass all levels."""
    from jobcast.publishing.log_capture import JobLogHandler

    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.DEBUG)

    def clear() -> None:
        for name in ("", "celery.task", "mine", "mine.deep"):
            logger = logging.getLogger(name)
            logger.handlers = [h for h in logger.handlers if not isinstance(h, JobLogHandler)]

    clear()
    yield
    clear()
    root.setLevel(level)


@pytest.mark.parametrize("propagates", [True, False])
def test_failure_propagated_to_the_caller_ends_the_job(
    propagates: bool, app: Celery, history: History
) -> None:
    app.conf.update(task_always_eager=True, task_eager_propagates=propagates)

    @app.task(base=ProgressTask, bind=True)
    def fails(self: ProgressTask) -> None:
        raise LookupError("no such row")

    job_id = new_id()
    try:
        fails.apply_async(task_id=job_id)
    except LookupError:
        assert propagates
    assert brief(history(job_id))[-1] == ("error", "no such row")


def test_retry_propagated_to_the_caller_ends_the_job(app: Celery, history: History) -> None:
    """Celery raises ``Retry`` in the caller and does not run the retry."""

    @app.task(base=ProgressTask, bind=True, max_retries=2)
    def retries(self: ProgressTask) -> str:
        raise self.retry(exc=ConnectionError("not yet"))

    job_id = new_id()
    with pytest.raises(Retry):
        retries.apply(task_id=job_id, throw=True)
    assert brief(history(job_id))[-1] == ("error", "not yet")


@pytest.mark.parametrize("ending", ["returns", "replaces", "fails", "retries"])
def test_exception_handled_by_the_caller_does_not_affect_the_run(
    ending: str, app: Celery, history: History
) -> None:
    app.conf.task_always_eager = True

    @app.task
    def other() -> str:
        return "of another task"

    @app.task(base=ProgressTask, bind=True, max_retries=1, default_retry_delay=0)
    def ends(self: ProgressTask) -> str:
        match ending:
            case "replaces":
                raise self.replace(other.s())
            case "fails":
                raise ValueError("its own")
            case "retries" if not self.request.retries:
                raise self.retry()
        return "done"

    try:
        raise LookupError("the caller's")
    except LookupError:
        job_id = ends.apply().id
    events = brief(history(job_id))
    assert "the caller's" not in str(events)
    assert events[-1] == {
        "returns": ("complete", "done"), "replaces": ("complete", "of another task"),
        "fails": ("error", "its own"), "retries": ("complete", "done"),
    }[ending]  # fmt: skip


def test_exception_of_the_caller_raised_again_ends_the_job(app: Celery, history: History) -> None:
    known = LookupError("no such row")

    @app.task(base=ProgressTask, bind=True)
    def fails(self: ProgressTask) -> None:
        raise known

    job_id = new_id()
    try:
        raise known
    except LookupError:
        with pytest.raises(LookupError):
            fails.apply(task_id=job_id, throw=True)
    assert brief(history(job_id))[-1] == ("error", "no such row")


@pytest.fixture
def unreachable(app: Celery) -> Celery:
    """Return an app whose broker cannot be reached."""
    app.conf.update(broker_url="redis://127.0.0.1:1/0", task_publish_retry=False)
    return app


@pytest.mark.parametrize("sent", ["by the task", "in a chain"])
def test_job_whose_message_is_not_sent_ends(
    sent: str, unreachable: Celery, history: History
) -> None:
    @unreachable.task(base=ProgressTask, bind=True)
    def fine(self: ProgressTask) -> None:
        pass

    signature = fine.si() if sent == "by the task" else fine.si() | fine.si()
    job_id = new_id()
    [first, *_] = getattr(signature, "tasks", [signature])
    first.set(task_id=job_id)
    with pytest.raises(OperationalError):
        signature.apply_async()
    events = history(job_id)
    assert brief(events) == [
        ("status", "queued"), ("error", "The job could not be sent to a worker"),
    ]  # fmt: skip
    assert (events[-1][1]["error"], events[-1][1]["reason"]) == ("NotSent", "rejected")


def test_error_after_sending_does_not_end_the_job(app: Celery, history: History) -> None:
    class Careful(ProgressTask):
        abstract = True

        def apply_async(self, *args: Any, **kwargs: Any) -> Any:
            super().apply_async(*args, **kwargs)
            raise RuntimeError("of its own")

    @app.task(base=Careful, bind=True)
    def fine(self: Careful) -> None:
        pass

    with pytest.raises(RuntimeError, match="of its own"):
        fine.apply_async(task_id=(job_id := new_id()))
    assert brief(history(job_id)) == [("status", "queued")]


@pytest.mark.parametrize("by_name", [False, True])
def test_task_of_an_app_that_is_not_current_is_queued(
    by_name: bool, app: Celery, history: History
) -> None:
    OwnApp()  # another app, which does not define the task

    @app.task(base=ProgressTask, bind=True, name=new_id("t"))
    def fine(self: ProgressTask) -> None:
        pass

    job_id = new_id()
    if by_name:
        app.send_task(fine.name, task_id=job_id)
    else:
        fine.apply_async(task_id=job_id)
    assert brief(history(job_id)) == [("status", "queued")]


class Quiet:
    """A mixin whose hooks do not call ``super()``."""

    def before_start(self, *_: Any) -> None: ...
    def on_success(self, *_: Any) -> None: ...
    def on_failure(self, *_: Any) -> None: ...


class QuietTask(Quiet, ProgressTask):
    abstract = True


@pytest.mark.parametrize("annotated", [True, False])
def test_outcome_is_published_if_hooks_do_not_call_super(
    annotated: bool, app: Celery, history: History
) -> None:
    if annotated:
        quiet = {name: lambda *_: None for name in ("before_start", "on_success", "on_failure")}
        app.conf.task_annotations = {"*": quiet}

    @app.task(base=ProgressTask if annotated else QuietTask, bind=True)
    def ends(self: ProgressTask, how: str) -> str:
        if how == "badly":
            raise LookupError("no such row")
        return "done"

    for how, end in (("well", ("complete", "done")), ("badly", ("error", "no such row"))):
        result = ends.apply((how,))
        assert brief(history(result.id)) == [("status", "started"), end]


class ShowsAttributes(ProgressTask):
    abstract = True

    def public_error(self, exc: BaseException) -> str:
        return f"{exc} ({vars(exc)})"


@pytest.mark.parametrize("hook", ["none", "inherits", "fails", "handles"])
@pytest.mark.parametrize("throw", [False, True])
@pytest.mark.parametrize(
    ("cause", "error", "message"),
    [
        (TwoArgs(5, "bad row"), "TwoArgs", "5: bad row ({'code': 5})"),
        (NoSuchRow("users", 7), "NoSuchRow", "users/7 ({'row': 7})"),
        (LookupError("plain"), "LookupError", "plain ({})"),
    ],
)
def test_original_exception_is_published(
    hook: str, throw: bool, cause: Exception, error: str, message: str, app: Celery,
    history: History,
) -> None:  # fmt: skip
    class Own(ShowsAttributes):
        abstract = True

        def on_failure(self, *args: Any) -> None:
            match hook:
                case "inherits":
                    super().on_failure(*args)
                case "fails":
                    raise OSError("in the hook")
                case "handles":
                    try:
                        raise LookupError(*cause.args)
                    except LookupError:
                        super().on_failure(*args)

    @app.task(base=ShowsAttributes if hook == "none" else Own, bind=True)
    def fails(self: ProgressTask) -> None:
        raise cause

    job_id = new_id()
    with suppress(TwoArgs, LookupError, OSError):
        fails.apply(task_id=job_id, throw=throw)
    name, end = history(job_id)[-1]
    assert (name, end["error"], end["message"]) == ("job_error", error, message)


@pytest.mark.parametrize("how", ["retry", "autoretry", "raise"])
def test_retry_publishes_the_original_exception(how: str, app: Celery, history: History) -> None:
    options = {"autoretry_for": (TwoArgs,)} if how == "autoretry" else {}

    @app.task(base=ShowsAttributes, bind=True, max_retries=1, **options)
    def fails(self: ProgressTask) -> None:
        cause = TwoArgs(5, "bad row")
        match how:
            case "retry":
                raise self.retry(exc=cause, countdown=0)
            case "raise" if not self.request.retries:
                try:
                    raise cause
                except TwoArgs as exc:
                    raise Retry(exc=exc, when=0, sig=self.signature_from_request()) from None
        raise cause

    fails.default_retry_delay = 0
    job_id = new_id()
    fails.apply(task_id=job_id)
    retried = next(data for _, data in history(job_id) if data.get("status") == "retrying")
    assert (retried["error"], retried["message"]) == ("TwoArgs", "5: bad row ({'code': 5})")
    if how != "raise":
        assert history(job_id)[-1][1]["error"] == "TwoArgs"


def test_unavailable_exception_keeps_its_name_and_text() -> None:
    shown = original_exception(get_pickleable_exception(TwoArgs(5, "bad row")))
    assert (type(shown).__name__, str(shown)) == ("TwoArgs", "5: bad row")
    plain = ValueError()
    assert original_exception(plain) is plain


def test_handled_exception_is_its_own_original() -> None:
    shown: list[BaseException] = []
    cause = LookupError()
    try:
        raise cause
    except LookupError:
        shown.append(original_exception(cause, known=KeyError()))
    assert shown == [cause]


@pytest.mark.parametrize("shown", ["", None, " "])
def test_blank_public_error_gives_the_default_message(
    shown: Any, app: Celery, history: History
) -> None:
    class Silent(ProgressTask):
        abstract = True

        def public_error(self, exc: BaseException) -> Any:
            return shown

    @app.task(base=Silent, bind=True)
    def fails(self: Silent) -> None:
        raise ValueError("secret")

    message = history(fails.apply().id)[-1][1]["message"]
    assert message == "The job failed, and did not say why"


def test_texts_of_subclasses_from_public_hooks_are_published(app: Celery, history: History) -> None:
    class Mark(str):
        def __str__(self) -> str:
            return self

    class Marks(ProgressTask):
        abstract = True

        def public_error(self, exc: BaseException) -> str:
            return Mark("public")

        def public_result(self, result: Any) -> Any:
            return Mark(result)

    @app.task(base=Marks, bind=True)
    def ends(self: Marks, how: str) -> str:
        if how == "badly":
            raise ValueError
        return "shown"

    assert brief(history(ends.apply(("well",)).id))[-1] == ("complete", "shown")
    assert brief(history(ends.apply(("badly",)).id))[-1] == ("error", "public")


def test_owner_may_be_a_number(app: Celery, history: History) -> None:
    @app.task(base=ProgressTask, bind=True)
    def fine(self: ProgressTask) -> None:
        pass

    assert fine.owned_by(5).options == {"jobcast_owner": "5"}
    fine.owned_by(5).apply_async(task_id=(job_id := new_id()))
    history(job_id)
    assert MemoryBroker.at(os.environ["JOBCAST_URL"]).snapshot(job_id, None).owner == "5"
    for wrong in (None, "", True, ["alice"]):
        with pytest.raises((TypeError, ValueError), match="a job's owner is"):
            fine.owned_by(wrong)


def test_thread_of_a_task_publishes_in_a_copy_of_its_context(app: Celery, history: History) -> None:
    @app.task(base=ProgressTask, bind=True)
    def starts_threads(self: ProgressTask) -> None:
        with ThreadPoolExecutor() as pool:
            pool.submit(copy_context().run, self.log, "inside").result()
            pool.submit(copy_context().run, self.progress, 50).result()

    events = history(starts_threads.apply().id)
    assert ("log", "inside") in brief(events)
    assert [data["percentage"] for name, data in events if name == "job_progress"] == [50]
