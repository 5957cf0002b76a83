"""Task classes with further base classes: the hooks of each base are called, in any order."""

from __future__ import annotations

from typing import Any

import pytest
from celery import Celery, Task
from celery.worker.request import Request

from jobcast import ProgressTask
from jobcast.celery.request import JobRequest, request_class
from jobcast.transports.memory import MemoryBroker

calls: list[str] = []


class Singleton(Task):
    """A base whose hooks release a lock and do not call ``super()``, as in celery-singleton."""

    abstract = True

    def apply_async(self, *args: Any, **kwargs: Any) -> Any:
        calls.append("singleton sends")
        return super().apply_async(*args, **kwargs)

    def on_success(self, *_: Any) -> None:
        calls.append("singleton releases")

    def on_failure(self, *_: Any) -> None:
        calls.append("singleton releases")

    def on_retry(self, *_: Any) -> None:
        calls.append("singleton keeps")


class Audit(Task):
    """A base whose hooks call ``super()``."""

    abstract = True

    def on_success(self, *args: Any) -> None:
        calls.append("audit")
        super().on_success(*args)

    def on_failure(self, *args: Any) -> None:
        calls.append("audit")
        super().on_failure(*args)

    def on_retry(self, *args: Any) -> None:
        calls.append("audit")
        super().on_retry(*args)


class ContextTask(Task):
    """A base whose ``__call__`` calls ``run`` directly, as in Flask's documentation."""

    abstract = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        calls.append("in the context")
        return self.run(*args, **kwargs)


BASES: dict[str, tuple[type, ...]] = {
    "singleton after": (ProgressTask, Singleton),
    "singleton before": (Singleton, ProgressTask),
    "audit after": (ProgressTask, Audit),
    "audit before": (Audit, ProgressTask),
    "both around": (Audit, ProgressTask, Singleton),
    "both after": (ProgressTask, Audit, Singleton),
    "context after": (ProgressTask, ContextTask),
    "context before": (ContextTask, ProgressTask),
}

EXPECTED = {
    "singleton": ["singleton releases"],
    "audit": ["audit"],
    "both": ["audit", "singleton releases"],
    "context": ["in the context"],
}


@pytest.fixture(autouse=True)
def forget_calls() -> None:
    calls.clear()


def task_with(*bases: type, **options: Any) -> Any:
    app = Celery("bases", broker="memory://", set_as_current=False)
    app.conf.task_always_eager = True
    base = type("Base", bases, {"abstract": True, **options})

    @app.task(base=base, bind=True, shared=False, max_retries=1, default_retry_delay=0)
    def work(self: Any, how: str = "") -> str:
        if how == "retries" and self.request.retries == 0:
            raise self.retry(exc=ConnectionError())
        if how == "fails":
            raise LookupError
        return "done"

    return work


@pytest.mark.parametrize(("how", "state"), [("", "complete"), ("fails", "error")])
@pytest.mark.parametrize("bases", BASES)
def test_hooks_of_every_base_are_called_once(
    bases: str, how: str, state: str, broker: MemoryBroker
) -> None:
    result = task_with(*BASES[bases]).apply_async((how,))
    assert broker.snapshot(result.id, None).state == state
    assert [call for call in calls if "sends" not in call] == EXPECTED[bases.partition(" ")[0]]
    assert ("singleton sends" in calls) is (Singleton in BASES[bases])


@pytest.mark.parametrize("bases", ["singleton after", "singleton before", "both around"])
def test_on_retry_of_every_base_is_called(bases: str, broker: MemoryBroker) -> None:
    result = task_with(*BASES[bases]).apply_async(("retries",))
    snapshot = broker.snapshot(result.id, None)
    assert snapshot.state == "complete"
    assert "retrying" in "".join(message.packet for message in snapshot.events)
    assert calls.count("singleton keeps") == 1
    assert calls.count("singleton releases") == 1


class Watched(Request):
    def on_failure(self, *_: Any, **__: Any) -> None:
        calls.append("watched")


class WithRequest(Task):
    abstract = True
    Request = Watched


@pytest.mark.parametrize(
    ("bases", "options"),
    [
        ((ProgressTask,), {"Request": Watched}),
        ((ProgressTask,), {"Request": f"{__name__}:Watched"}),
        ((ProgressTask, WithRequest), {}),
        ((WithRequest, ProgressTask), {}),
    ],
    ids=["class", "name", "base after", "base before"],
)
def test_own_request_class_is_combined_with_jobcasts(bases: Any, options: Any) -> None:
    cls = request_class(task_with(*bases, **options).Request)
    assert issubclass(cls, JobRequest)
    assert issubclass(cls, Watched)
    assert cls.__mro__.index(JobRequest) < cls.__mro__.index(Watched)


def test_request_class_from_decorator_or_annotations_is_combined() -> None:
    app = Celery("bases", broker="memory://", set_as_current=False)
    app.conf.task_annotations = {"annotated": {"Request": Watched}}

    @app.task(base=ProgressTask, shared=False, Request=Watched)
    def decorated() -> None: ...

    @app.task(base=ProgressTask, shared=False, name="annotated")
    def annotated() -> None: ...

    for task in (decorated, annotated):
        cls = request_class(task.Request)
        assert issubclass(cls, Watched)
        assert issubclass(cls, JobRequest)


def test_subclass_of_job_request_is_unchanged() -> None:
    class Own(JobRequest):
        pass

    assert request_class(Own) is Own
    assert request_class(Request) is JobRequest


@pytest.mark.parametrize("wrong", [int, "celery:Celery"])
def test_request_that_is_not_a_request_class_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match="should be a subclass of celery"):
        request_class(task_with(ProgressTask, Request=wrong).Request)


def test_request_class_that_cannot_be_combined_is_refused() -> None:
    class Final(type):
        def __new__(mcs, name: str, bases: tuple[type, ...], namespace: Any) -> Any:
            if any(isinstance(base, Final) for base in bases):
                raise TypeError("it is final")
            return super().__new__(mcs, name, bases, namespace)

    class Own(Request, metaclass=Final):
        pass

    with pytest.raises(TypeError, match="Own, cannot be combined with jobcast's"):
        request_class(Own)
