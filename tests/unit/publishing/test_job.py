"""The handle of a job, with a publisher that records its events."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Iterator
from contextvars import copy_context
from datetime import UTC, datetime, tzinfo
from threading import Thread
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from celery.exceptions import Reject, SoftTimeLimitExceeded
from msgspec import structs

from jobcast import current_job, open_job
from jobcast.celery.enqueue import announce
from jobcast.celery.headers import AFTER_HEADER, OWNER_HEADER, origin_of
from jobcast.errors import InvalidJobId
from jobcast.events import (
    NO_INFO,
    JobError,
    JobEvent,
    JobInfo,
    JobLog,
    JobProgress,
    JobStatus,
    parse_event,
    payload_of,
)
from jobcast.publishing import runtime
from jobcast.publishing.identity import owner_of
from jobcast.publishing.job import NO_JOB, Job, Loop, use_job
from jobcast.publishing.run_reporter import RunReporter
from jobcast.transports import Origin


class Kept:
    """A publisher that takes every progress at once, and records all events."""

    def __init__(self) -> None:
        self.events: list[JobEvent] = []
        self.flushes = 0

    @property
    def publisher(self) -> Kept:
        return self

    def mark(self, job: RunReporter) -> None:
        progress = job.take_progress(job.slot)
        if progress is not None:
            self.events.append(progress)

    def add(self, job: RunReporter, event: JobEvent, info: JobInfo = NO_INFO) -> SimpleNamespace:
        self.events.append(event)
        return SimpleNamespace(reference=f"kept {len(self.events)}")

    def hurry(self) -> None:
        self.flushes += 1

    def flush(self, timeout: float = 0) -> bool:
        self.flushes += 1
        return True

    @property
    def progress(self) -> list[dict[str, Any]]:
        hidden = ("job_id", "timestamp")
        return [
            {k: v for k, v in payload_of(event).items() if k not in hidden}
            for event in self.events
            if isinstance(event, JobProgress)
        ]

    @property
    def percentages(self) -> list[float | None]:
        return [progress["percentage"] for progress in self.progress]


class Breaks:
    """A value that cannot be converted to a number or a text."""

    def __float__(self) -> float:
        raise RuntimeError("no number")

    def __str__(self) -> str:
        raise RuntimeError("no text")


def sent_result(kept: Kept) -> Any:
    return msgspec.json.decode(msgspec.json.encode(kept.events[-1]))["result"]


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def job(kept: Kept) -> Job:
    return Job(kept, "a")


def test_percentages_are_clamped_and_never_nan(kept: Kept, job: Job) -> None:
    for percentage in (-5, 10, 200):
        job.progress(percentage)
    assert kept.percentages == [0, 10, 100]
    job.progress(math.nan)
    job.progress(None)
    assert kept.percentages[-2:] == [None, None]


def test_percentage_follows_from_current_and_total(kept: Kept, job: Job) -> None:
    job.progress(current=1, total=8, message="reading")
    job.progress(current=3)
    assert kept.progress == [
        {"percentage": 12.5, "message": "reading", "current": 1, "total": 8},
        {"percentage": None, "message": "reading", "current": 3},
    ]


def test_message_stays_until_the_next_one(kept: Kept, job: Job) -> None:
    job.progress(1, "loading")
    job.progress(2)
    job.progress(3, "")
    assert [p["message"] for p in kept.progress] == ["loading", "loading", ""]


def test_message_alone_leaves_numbers_unchanged(kept: Kept, job: Job) -> None:
    job.progress(message="beginning")
    job.progress(40)
    job.progress(message="still there")
    for _ in job.track(range(2)):
        job.progress(message="inside")
        break
    assert [(p["percentage"], p.get("message")) for p in kept.progress] == [
        (None, "beginning"), (40, "beginning"), (40, "still there"), (40, "still there"),
        (40, "inside"),
    ]  # fmt: skip
    assert kept.progress[-1]["total"] == 2


def test_stage_has_its_own_messages(kept: Kept, job: Job) -> None:
    job.progress(0, "outside")
    with job.stage("a", of=2):
        job.progress(10, "inside")
    with job.stage("b"):
        # The total is unknown, so the percentage is that of the stage's beginning.
        job.progress(current=3)
    job.progress(100)
    assert [(p["percentage"], p.get("message")) for p in kept.progress] == [
        (0, "outside"), (0, None), (5, "inside"), (50, "inside"), (50, None), (50, None),
        (100, None), (100, "outside"),
    ]  # fmt: skip


def test_invalid_numbers_never_fail_the_task(kept: Kept, job: Job) -> None:
    job.progress("half")  # type: ignore[arg-type]
    job.progress(current="one", total=object())  # type: ignore[arg-type]
    job.progress([])  # type: ignore[arg-type]
    assert kept.percentages == [None, None, None]


def test_track_reports_total_rate_and_remaining_time(kept: Kept, job: Job) -> None:
    assert list(job.track("abcd", message="letters")) == list("abcd")
    assert [p["current"] for p in kept.progress] == [0, 1, 2, 3, 4]
    assert {p["total"] for p in kept.progress} == {4}
    assert kept.percentages == [0, 25, 50, 75, 100]
    last = kept.progress[-1]
    assert last["message"] == "letters"
    assert last["rate"] > 0
    assert last["eta"] == 0


def test_track_without_length_reports_no_percentage(kept: Kept, job: Job) -> None:
    assert list(job.track(iter("ab"))) == ["a", "b"]
    assert kept.percentages == [None] * 3
    assert "eta" not in kept.progress[-1]
    assert kept.progress[-1]["rate"] > 0
    assert list(job.track(iter("ab"), total=2)) == ["a", "b"]
    assert kept.percentages[-1] == 100


def test_aborted_tracked_loop_leaves_no_rate(kept: Kept, job: Job) -> None:
    for _ in job.track(range(10)):
        break
    job.progress(current=5, total=10)
    assert "rate" not in kept.progress[-1]


class Unsized:
    """An iterable whose length raises, such as a ``DataLoader`` of an iterable data set."""

    def __init__(self, exc: Exception) -> None:
        self.exc = exc

    def __len__(self) -> int:
        raise self.exc

    def __iter__(self) -> Iterator[str]:
        return iter("ab")


@pytest.mark.parametrize(
    "iterable",
    [Unsized(TypeError("no len()")), Unsized(NotImplementedError()), Unsized(RuntimeError())],
    ids=["type", "not implemented", "runtime"],
)
def test_track_accepts_iterables_with_failing_length(kept: Kept, job: Job, iterable: Any) -> None:
    assert list(job.track(iterable)) == ["a", "b"]
    assert kept.percentages == [None] * 3
    assert list(job.track(iterable, total=2)) == ["a", "b"]
    assert kept.percentages[-1] == 100


def test_track_accepts_iterables_with_overflowing_length(kept: Kept, job: Job) -> None:
    for n in job.track(range(10**30)):
        if n == 2:
            break
    assert [p["current"] for p in kept.progress] == [0, 1, 2]
    assert kept.percentages == [None] * 3


def test_time_limit_during_length_propagates(job: Job) -> None:
    with pytest.raises(SoftTimeLimitExceeded):
        next(iter(job.track(Unsized(SoftTimeLimitExceeded()))))


@pytest.mark.parametrize("first_ends", [True, False])
def test_interleaved_tracked_loops_have_their_own_rates(
    first_ends: bool, kept: Kept, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("jobcast.publishing.job._time", lambda: now)
    slow = iter(job.track(range(100), message="slow"))
    next(slow)
    now += 100
    fast = iter(job.track(range(2 if first_ends else 100), message="fast"))
    next(fast)
    now += 1
    for _ in range(1 if first_ends else 3):
        next(fast)  # one a second
    assert kept.progress[-1]["rate"] == (1 if first_ends else 3)
    next(slow)  # one in 101 seconds
    assert kept.progress[-1]["rate"] == round(1 / 101, 3)
    if first_ends:
        assert next(fast, None) is None
    now += 99
    next(slow)
    assert kept.progress[-1]["rate"] == 0.01
    slow.close()  # type: ignore[attr-defined]
    fast.close()  # type: ignore[attr-defined]
    job.progress(current=5, total=10)
    assert "rate" not in kept.progress[-1]


def test_nested_stages_have_full_names_and_shares(kept: Kept, job: Job) -> None:
    with job.stage("a", of=2):
        job.progress(50)
    with job.stage("b"), job.stage("inner"):
        job.progress(50)
    job.progress(100)
    assert [(p["percentage"], p.get("stage")) for p in kept.progress] == [
        (0, "a"), (25, "a"), (50, "a"), (50, "b"), (50, "b / inner"), (75, "b / inner"),
        (100, "b / inner"), (100, "b"), (100, None),
    ]  # fmt: skip


def test_failed_stage_is_not_reported_as_complete(kept: Kept, job: Job) -> None:
    with pytest.raises(KeyError), job.stage("a"):
        job.progress(30)
        raise KeyError
    assert kept.percentages == [0, 30]


def test_logs_are_bounded_masked_and_encodable(kept: Kept, job: Job) -> None:
    job.log("x" * 10_000)
    job.log("broken \ud800 surrogate", level="WARNING")
    job.log("see amqp://user:pw@host/ and https://example.com/a@b")
    job.log(ValueError("an object"), level="nonsense")
    messages = [event.message for event in kept.events if isinstance(event, JobLog)]
    assert len(messages[0]) == 8192
    assert messages[0].endswith("…")
    assert messages[1] == "broken ? surrogate"
    assert messages[2] == "see amqp://***@host/ and https://example.com/a@b"
    assert messages[3] == "an object"
    assert [e.level for e in kept.events if isinstance(e, JobLog)] == [
        "info", "warning", "info", "info",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("result", "shown"),
    [
        ({"a": [1, None, "é"]}, {"a": [1, None, "é"]}),
        ((1, 2), [1, 2]),
        (datetime(2026, 1, 1, tzinfo=UTC), "2026-01-01T00:00:00Z"),
        (math.nan, None),
        (object(), {"omitted": "unserializable", "type": "object"}),
        ({"k": object(), "l": 1}, {"k": {"omitted": "unserializable", "type": "object"}, "l": 1}),
        ("\ud800", "?"),
        ("x" * 99, {"omitted": "too_large", "type": "str", "bytes": 101, "limit": 100}),
    ],
)
def test_result_is_published_or_described(kept: Kept, result: Any, shown: Any) -> None:
    Job(kept, "a", result_limit=100).complete(result)
    assert sent_result(kept) == shown
    assert kept.flushes == 1


def test_recursive_result_is_described(kept: Kept, job: Job) -> None:
    circle: list[Any] = []
    circle.append(circle)
    job.complete(circle)
    assert sent_result(kept) == [{"omitted": "unserializable", "type": "list"}]


def test_errors_have_a_class_a_message_and_a_reason(kept: Kept) -> None:
    for exc, reason in ((KeyError("k"), "failure"), (SoftTimeLimitExceeded(), "time_limit")):
        Job(kept, "a").fail(exc)
        event = kept.events[-1]
        assert isinstance(event, JobError)
        assert (event.error, event.reason) == (type(exc).__name__, reason)
    Job(kept, "a").fail(KeyError("secret"), "something public")
    assert kept.events[-1].message == "something public"  # type: ignore[attr-defined]


def test_error_with_failing_text_is_published(kept: Kept, job: Job) -> None:
    class Evil(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    job.fail(Evil())
    assert kept.events[-1].error == "Evil"  # type: ignore[attr-defined]


def test_context_manager_publishes_the_outcome(kept: Kept) -> None:
    with Job(kept, "a") as job:
        assert current_job() is job
        current_job().log("inside")
    assert current_job() is NO_JOB
    assert [event.name for event in kept.events] == ["job_status", "job_log", "job_complete"]
    assert isinstance(kept.events[0], JobStatus)
    with pytest.raises(ValueError, match="oh"), Job(kept, "b"), Job(kept, "c"):
        raise ValueError("oh")
    assert [(e.job_id, e.name) for e in kept.events[-2:]] == [
        ("c", "job_error"),
        ("b", "job_error"),
    ]
    with Job(kept, "d") as job:
        job.complete({"rows": 3})
    assert sent_result(kept) == {"rows": 3}


def test_current_job_outside_of_a_job_does_nothing() -> None:
    job = current_job()
    job.progress(50, "x", current=1, total=2)
    job.log("hello")
    with job.stage("a", weight=2):
        assert list(job.track(range(3), message="m")) == [0, 1, 2]
    job.complete()
    job.fail(ValueError())
    assert job.flush()
    assert job.job_id is None
    with pytest.raises(ValueError, match="positive"), job.stage("a", weight=0):
        pass


def test_job_without_valid_settings_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBCAST_URL", "nonsense")
    runtime.close()
    with open_job("a") as job:
        job.log("not published")
    runtime.close()


@pytest.mark.parametrize("wrong", ["", "a b", "x" * 129, "a\n", 1.5, True, None])
def test_invalid_job_id_is_refused(wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBCAST_URL", "memory://")
    with pytest.raises(InvalidJobId):
        open_job(wrong)


def test_retry_message_refers_to_the_retrying_event(kept: Kept, job: Job) -> None:
    """Another process may receive the message before this one has published ``retrying``."""
    headers = {"id": job.job_id, "retries": 1}
    job.retry_cause = ConnectionError("not yet"), "not yet"
    with use_job(job):
        announce("tests.task", headers)
    assert current_job() is NO_JOB
    assert headers[AFTER_HEADER] == job.last_event_ref != ""
    job.retrying(retry_at=datetime.now(UTC))
    assert len(kept.events) == 1


class Mark(str):
    """A str that cannot be encoded and stays a subclass, as in Django, Jinja and numpy."""

    def __str__(self) -> str:
        return self

    def lower(self) -> str:
        return Mark(super().lower())


class Marked(Exception):
    def __str__(self) -> str:
        return Mark("an error")


def texts_of(event: JobEvent) -> list[Any]:
    return [value for value in structs.asdict(event).values() if isinstance(value, str)]


def test_all_texts_become_plain_str(kept: Kept) -> None:
    job = Job(kept, Mark("a"), origin=Origin(owner_of(Mark("alice"))))
    job.set_title(Mark("a title"))
    job.add_tags(Mark("a tag"))
    job.started()
    job.log(Mark("a line"), Mark("WARNING"))
    with job.stage(Mark("s"), of=2), job.stage(Mark("inner")):
        job.progress(10, Mark("x"))
    job.retry_cause = Marked(), Mark("not yet")
    job.retrying(retry_at=datetime.now(UTC))
    job.fail(Marked())
    assert {type(text) for event in kept.events for text in texts_of(event)} == {str}
    for event in kept.events:
        assert msgspec.json.encode(event)
    assert type(job.owner) is str


class Size(int):
    pass


class Share(float):
    pass


@pytest.mark.parametrize(
    ("result", "shown"),
    [
        (Mark("r"), "r"),
        ({Mark("k"): [Mark("v"), Size(3), Share(0.5)]}, {"k": ["v", 3, 0.5]}),
        (Share(math.nan), None),
        (Mark("\ud800"), "?"),
    ],
)
def test_result_of_a_subclass_becomes_plain(kept: Kept, job: Job, result: Any, shown: Any) -> None:
    job.complete(result)
    assert sent_result(kept) == shown


def test_result_with_failing_attribute_is_described(kept: Kept, job: Job) -> None:
    class Zone(tzinfo):
        def utcoffset(self, when: datetime | None) -> Any:
            raise RuntimeError("the database is gone")

        dst = tzname = utcoffset

    job.complete([datetime(2026, 1, 1, tzinfo=Zone())])
    assert sent_result(kept) == [{"omitted": "unserializable", "type": "datetime"}]


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        (logging.DEBUG, "debug"), (logging.INFO, "info"), (logging.WARNING, "warning"),
        (logging.ERROR, "error"), (logging.CRITICAL, "critical"), (35, "warning"),
        (5, "debug"), (0, "debug"), (99, "critical"), (29.5, "info"), (math.nan, "debug"),
        (None, "info"), ("WARNING", "warning"), ("loud", "info"), (object(), "info"),
        ([], "info"), (Breaks(), "info"),
    ],
)  # fmt: skip
def test_any_log_level_is_mapped_without_failing_the_task(
    kept: Kept, job: Job, level: Any, shown: str
) -> None:
    job.log("x", level=level)
    assert [event.level for event in kept.events if isinstance(event, JobLog)] == [shown]


@pytest.mark.parametrize(
    "current", [1e-323, 5e-324, 10**400, 1e300, Breaks()],
    ids=["small", "smallest", "huge", "large", "broken"],
)  # fmt: skip
@pytest.mark.parametrize(
    "total", [5, 1e300, 10**401, Breaks()], ids=["five", "large", "huge", "broken"]
)
def test_rate_is_a_valid_number_or_unset(kept: Kept, job: Job, current: Any, total: Any) -> None:
    job._loop = Loop(time.time() - 1e6)
    job.progress(current=current, total=total)
    [event] = kept.events
    parse_event(event.name, msgspec.json.decode(msgspec.json.encode(event)))


@pytest.mark.parametrize(
    ("exc", "message"),
    [
        (ValueError(), "The job failed, and did not say why"),
        (ValueError("  "), "The job failed, and did not say why"),
        (AssertionError(), "The job failed, and did not say why"),
        (Reject(""), "The job was rejected"),
        (MemoryError(), "The job needs more memory than there is"),
        (MemoryError("of the GPU"), "of the GPU"),
    ],
)
def test_error_always_has_a_message(kept: Kept, exc: Exception, message: str) -> None:
    Job(kept, "a").fail(exc)
    Job(kept, "b").fail(exc, "")
    messages = [event.message for event in kept.events if isinstance(event, JobError)]
    assert messages == [message, "The job failed, and did not say why"]


@pytest.mark.parametrize(
    ("exc", "message"),
    [
        (SystemExit(3), "The program that did this job ended before the job was done"),
        (KeyboardInterrupt(), "The program that did this job was interrupted"),
        (GeneratorExit(), "The job failed, and did not say why"),
        (ValueError("oh"), "oh"),
    ],
)
def test_messages_outside_of_tasks_mention_no_worker(
    kept: Kept, exc: BaseException, message: str
) -> None:
    with pytest.raises(type(exc)), Job(kept, "a"):
        raise exc
    [end] = [event for event in kept.events if isinstance(event, JobError)]
    assert (end.error, end.message) == (type(exc).__name__, message)


@pytest.mark.parametrize(
    ("owner", "subject"), [("alice", "alice"), (5, "5"), (Mark("bob"), "bob"), (Size(7), "7")]
)
def test_owner_is_a_text_or_a_number(
    owner: Any, subject: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOBCAST_URL", "memory://")
    runtime.close()
    assert open_job("a", owner=owner).owner == subject
    assert open_job("a").owner is None
    assert origin_of({OWNER_HEADER: owner}).owner == subject
    runtime.close()


WRONG_OWNERS = [
    ("", ValueError), ("\ud800", ValueError), (True, TypeError), ([], TypeError),
    (1.5, TypeError), (b"alice", TypeError),
]  # fmt: skip


@pytest.mark.parametrize(("owner", "kind"), WRONG_OWNERS)
def test_invalid_owner_is_refused_at_once(
    owner: Any, kind: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(kind, match="a job's owner is"):
        open_job("a", owner=owner)
    assert origin_of({OWNER_HEADER: owner}).owner is None
    assert "the job has no owner: a job's owner is" in caplog.text


def test_thread_publishes_for_a_job_in_a_copy_of_its_context(kept: Kept) -> None:
    def publish(name: str) -> None:
        current_job().log(name)

    with Job(kept, "a") as job:
        threads = [
            Thread(target=publish, args=("outside",)),
            Thread(target=copy_context().run, args=(publish, "inside")),
            Thread(target=job.log, args=("passed",)),
        ]
        for thread in threads[getattr(sys.flags, "thread_inherit_context", 0) :]:
            thread.start()
            thread.join()
    lines = [event.message for event in kept.events if isinstance(event, JobLog)]
    assert lines == ["inside", "passed"]
