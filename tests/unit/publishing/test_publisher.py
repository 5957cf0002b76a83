"""The publisher, with a transport whose failures the tests control."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from celery.exceptions import SoftTimeLimitExceeded

from jobcast import open_job
from jobcast.errors import PublishFailed
from jobcast.publishing import runtime
from jobcast.publishing.buffer import Buffer
from jobcast.publishing.job import Job
from jobcast.publishing.publisher import Publisher
from jobcast.transports import Origin, Outgoing
from tests.support import TIMEOUT, StubRuntime, wait_for


class Wire:
    """A transport that records events, unless it is down."""

    publisher_id = "wire"

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.holds = False
        self.batches: list[int] = []
        self.tries = 0
        self.down = False
        self.breaks: Exception | None = None
        self.called = threading.Event()
        self.open = threading.Event()
        self.open.set()
        self.accepts: int | None = None
        self.closed = False

    def publish(self, batch: Sequence[Outgoing]) -> None:
        self.called.set()
        self.open.wait()
        self.tries += 1
        if self.breaks is not None:
            raise self.breaks
        if self.down:
            raise PublishFailed("it is down", batch)
        waiting = {outgoing.job_id for outgoing in batch if self.holds and outgoing.after}
        held = [outgoing for outgoing in batch if outgoing.job_id in waiting]
        batch = [outgoing for outgoing in batch if outgoing.job_id not in waiting]
        taken, self.accepts = batch[: self.accepts], None
        self.batches.append(len(taken))
        for outgoing in taken:
            name, payload = msgspec.json.decode(f"{outgoing.head[2:]}0}}]")
            self.events.append((name, payload))
        if len(taken) < len(batch):
            raise PublishFailed("it was full", batch[len(taken) :])
        if held:
            raise PublishFailed("another publisher comes first", held, held=True)

    def emit(self, event: str, data: Any, *, room: str | None = None) -> None:
        raise AssertionError("the publisher does not emit")

    def close(self) -> None:
        self.closed = True

    def values(self, name: str, field: str) -> list[Any]:
        return [payload[field] for event, payload in self.events if event == name]


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def publisher(wire: Wire) -> Iterator[Publisher]:
    publisher = Publisher(wire, shown_url="wire://", buffer=Buffer(100))
    yield publisher
    wire.down = False
    wire.open.set()
    publisher.close()


def test_events_are_sent_in_order(wire: Wire, publisher: Publisher) -> None:
    job = Job(StubRuntime(publisher), "a")
    job.started()
    job.progress(10)
    job.log("one")
    job.progress(20)
    job.progress(30)
    job.log("two")
    job.progress(40)
    job.complete("done")
    kinds = [name.removeprefix("job_") for name, _ in wire.events]
    # Earlier progress may or may not have been sent before it was replaced.
    assert kinds[0] == "status"
    assert kinds[-2:] == ["progress", "complete"]
    assert wire.values("job_log", "message") == ["one", "two"]
    assert wire.values("job_progress", "percentage")[-1] == 40


def test_final_event_is_stored_when_complete_returns(wire: Wire, publisher: Publisher) -> None:
    for n in range(20):
        Job(StubRuntime(publisher), str(n)).complete(n)
        assert wire.values("job_complete", "result")[-1] == n


def test_waiting_events_are_grouped_by_job_and_ordered(wire: Wire) -> None:
    publisher = Publisher(wire)
    jobs = [Job(StubRuntime(publisher), name) for name in "abc"]
    wire.open.clear()
    Job(StubRuntime(publisher), "first").log("keeps the transport busy")
    assert wire.called.wait(5)
    for n in range(300):
        for job in jobs:
            job.log(n)
    wire.open.set()
    publisher.close()
    of = [payload["job_id"] for _, payload in wire.events[1:]]
    assert of == [*"a" * 300, *"b" * 300, *"c" * 300]
    assert [payload["message"] for _, payload in wire.events[1:]] == [*map(str, range(300))] * 3
    assert max(wire.batches) == 200


def test_progress_is_conflated_while_transport_is_busy(wire: Wire, publisher: Publisher) -> None:
    wire.open.clear()
    job = Job(StubRuntime(publisher), "a")
    job.log("first")
    for n in range(10_000):
        job.progress(n / 100)
    wire.open.set()
    assert publisher.flush()
    published = wire.values("job_progress", "percentage")
    assert published[-1] == 99.99
    assert len(published) <= 2


def test_publisher_lingers_during_a_busy_loop(wire: Wire, publisher: Publisher) -> None:
    job = Job(StubRuntime(publisher), "a")
    calls = 0
    while len(wire.batches) < 5:
        job.progress(calls)
        calls += 1
    # Newer progress replaced older progress before each batch was sent.
    assert wire.batches == [1] * len(wire.batches)
    assert calls > 100 * len(wire.batches)


def test_many_events_are_sent_in_few_batches(wire: Wire, publisher: Publisher) -> None:
    wire.open.clear()
    job = Job(StubRuntime(publisher), "a")
    for n in range(90):
        job.log(str(n))
    wire.open.set()
    assert publisher.flush()
    assert len(wire.batches) <= 3


def test_outage_is_logged_once_and_blocks_no_flush(
    wire: Wire, publisher: Publisher, caplog: pytest.LogCaptureFixture
) -> None:
    wire.down = True
    for n in range(5):
        Job(StubRuntime(publisher), str(n)).complete(n)
    wait_for(lambda: wire.tries >= 3, "three tries")
    assert caplog.text.count("cannot reach wire://") == 1
    assert publisher.flush(timeout=30) is False
    wire.down = False
    wait_for(lambda: len(wire.events) == 5, "events after the outage")
    wait_for(lambda: "reaches wire:// again" in caplog.text, "log line")
    assert wire.values("job_complete", "result") == [0, 1, 2, 3, 4]
    assert publisher.flush()


def test_only_the_first_flush_waits_for_a_hanging_transport(
    wire: Wire, publisher: Publisher
) -> None:
    wire.open.clear()
    job = Job(StubRuntime(publisher), "a")
    job.started()
    assert publisher.flush(timeout=0.1) is False
    job.log("more")
    for _ in range(3):
        assert publisher.flush(timeout=1000) is False  # it does not wait
    wire.open.set()
    wait_for(lambda: len(wire.events) == 2, "both events")
    assert wait_for(lambda: publisher.flush(timeout=30), "answer")


def test_unknown_transport_error_counts_as_outage(
    wire: Wire, publisher: Publisher, caplog: pytest.LogCaptureFixture
) -> None:
    wire.breaks = ValueError("no such option")
    Job(StubRuntime(publisher), "a").complete(1)
    wait_for(lambda: wire.tries >= 2, "another try")
    assert caplog.text.count("cannot reach wire:// (no such option)") == 1
    wire.breaks = None
    wait_for(lambda: wire.values("job_complete", "result") == [1], "the event")


def test_stored_part_of_a_failed_batch_is_not_sent_again(wire: Wire, publisher: Publisher) -> None:
    wire.open.clear()
    job = Job(StubRuntime(publisher), "a")
    for n in range(50):
        job.log(str(n))
    wire.accepts = 7
    wire.open.set()
    wait_for(lambda: len(wire.events) == 50, "all of it")
    assert wire.values("job_log", "message") == [str(n) for n in range(50)]


def test_flood_during_an_outage_is_bounded_and_counted(wire: Wire, publisher: Publisher) -> None:
    wire.down = True
    job = Job(StubRuntime(publisher), "a")
    job.started()
    for n in range(5000):
        job.log(str(n))
    job.complete(1)
    wire.down = False
    wait_for(lambda: "job_complete" in [name for name, _ in wire.events], "end of the job")
    published = wire.values("job_log", "message")
    assert wire.events[0][0] == "job_status"
    # At most the bound, the batch being sent, and the lines that count dropped ones.
    assert len(published) <= 100 + 200 + 2
    assert published[-1] == "4999"
    counted = sum(int(m.split()[0]) for m in published if "dropped here" in m)
    assert counted + len([m for m in published if "dropped here" not in m]) == 5000


def test_held_job_waits_without_a_warning(
    wire: Wire, publisher: Publisher, caplog: pytest.LogCaptureFixture
) -> None:
    wire.holds = True
    job = Job(StubRuntime(publisher), "a", origin=Origin(after="other 7"))
    job.started()
    job.complete(1)
    wait_for(lambda: wire.tries > 3, "several tries")
    assert wire.events == []
    assert publisher.flush(timeout=30) is False
    wire.holds = False
    wait_for(lambda: len(wire.events) == 2, "both events")
    assert publisher.flush()
    assert caplog.text == ""


def held_job(wire: Wire, publisher: Publisher, name: str = "held") -> Job:
    """Return a job whose events the publisher holds until another publisher's are stored."""
    wire.holds = True
    job = Job(StubRuntime(publisher), name, origin=Origin(after="other 7"))
    job.started()
    wait_for(lambda: name in publisher._held, "event that is held")
    return job


def of_job(wire: Wire, name: str) -> list[dict[str, Any]]:
    return [payload for _, payload in wire.events if payload["job_id"] == name]


def test_held_job_does_not_delay_other_jobs(wire: Wire, publisher: Publisher) -> None:
    held = held_job(wire, publisher)
    for n in range(3):
        held.log("waits")
        Job(StubRuntime(publisher), str(n)).complete(n)
        assert wire.values("job_complete", "result") == [*range(n + 1)]  # stored when it returns
    assert of_job(wire, "held") == []
    assert publisher.flush(timeout=30) is False  # some events are held


def test_events_of_other_jobs_in_a_batch_with_a_held_job_are_sent(wire: Wire) -> None:
    publisher = Publisher(wire, shown_url="wire://")
    wire.open.clear()
    Job(StubRuntime(publisher), "first").log("keeps the transport busy")
    assert wire.called.wait(5)
    wire.holds = True
    held = Job(StubRuntime(publisher), "held", origin=Origin(after="other 7"))
    held.started()
    for n in range(500):
        held.log(n)
        Job(StubRuntime(publisher), "other").log(n)
    wire.open.set()
    wait_for(lambda: len(of_job(wire, "other")) == 500, "lines of the other job")
    assert of_job(wire, "held") == []
    wire.holds = False
    wait_for(lambda: publisher.flush(), "all of it")
    assert [event.get("message") for event in of_job(wire, "held")] == [None, *map(str, range(500))]
    publisher.close()


def test_events_of_a_held_job_are_bounded_and_ordered(wire: Wire, publisher: Publisher) -> None:
    job = held_job(wire, publisher)
    for n in range(500):
        job.log(n)
        job.progress(n / 10)
    job.complete("done")
    wire.holds = False
    wait_for(lambda: publisher.flush(), "all of it")
    names = [name for name, _ in wire.events]
    assert (names[0], names[-1]) == ("job_status", "job_complete")
    assert wire.values("job_progress", "percentage")[-1] == 49.9
    lines = wire.values("job_log", "message")
    assert lines[-1] == "499"
    assert len(lines) <= 101
    dropped, *_ = next(line for line in lines if "dropped" in line).split()
    assert int(dropped) + len(lines) - 1 == 500


def test_held_jobs_are_released_independently(wire: Wire, publisher: Publisher) -> None:
    held_job(wire, publisher, "a").complete("a")
    held_job(wire, publisher, "b").complete("b")
    wire.holds = False
    wait_for(lambda: publisher.flush(), "all of it")
    assert [len(of_job(wire, name)) for name in "ab"] == [2, 2]
    assert not publisher._held


def test_held_job_gives_up_waiting_after_a_timeout(
    wire: Wire, publisher: Publisher, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("jobcast.publishing.held.HELD_TIMEOUT", 0.2)
    wire.holds = True
    job = Job(StubRuntime(publisher), "a", origin=Origin(after="other 7"))
    job.started()
    job.complete(1)
    wait_for(lambda: len(wire.events) == 2, "both events")
    assert "job a: gave up waiting" in caplog.text


def test_outage_does_not_count_towards_the_held_timeout(
    wire: Wire, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=0.0)
    clock.monotonic = clock.time = lambda: clock.now
    monkeypatch.setattr("jobcast.publishing.publisher.time", clock)
    monkeypatch.setattr("jobcast.publishing.held.time", clock)
    wire.holds = True
    Job(StubRuntime(publisher), "a", origin=Origin(after="other 7")).started()
    wait_for(lambda: wire.tries > 1, "tries")
    wire.down = True
    tries = wire.tries
    wait_for(lambda: wire.tries > tries + 1, "tries during the outage")
    clock.now += 1000
    wire.down = False
    tries = wire.tries
    wait_for(lambda: wire.tries > tries + 2, "tries after the outage")
    assert wire.events == []


def test_close_publishes_held_events_without_waiting(wire: Wire) -> None:
    wire.holds = True
    publisher = Publisher(wire, shown_url="wire://")
    Job(StubRuntime(publisher), "a", origin=Origin(after="other 7")).started()
    publisher.close()
    assert len(wire.events) == 1


def test_close_publishes_all_held_events(wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
    publisher = Publisher(wire, shown_url="wire://")
    for name in "ab":
        held_job(wire, publisher, name).complete(name)
    publisher.close()
    assert sorted(wire.values("job_complete", "result")) == ["a", "b"]
    assert "were not sent" not in caplog.text


def test_close_counts_unsent_held_events(wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
    publisher = Publisher(wire, shown_url="wire://")
    held_job(wire, publisher).complete(1)
    wire.down = True
    publisher.close()
    assert "2 events of jobs were not sent to wire://" in caplog.text


def test_dropped_final_events_are_counted(wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
    wire.down = True
    publisher = Publisher(wire, shown_url="wire://", buffer=Buffer(max_kept=50))
    Job(StubRuntime(publisher), "first").complete(0)
    wait_for(lambda: wire.tries, "a try")
    for n in range(80):
        Job(StubRuntime(publisher), str(n)).complete(n)
    wire.down = False
    assert wait_for(lambda: publisher.flush(), "all of it")
    publisher.close()
    assert wire.values("job_complete", "result") == [0, *range(30, 80)]
    assert "30 statuses and final events of jobs were lost" in caplog.text


def test_close_sends_remaining_events_and_counts_unsent_ones(
    wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    publisher = Publisher(wire, shown_url="wire://")
    Job(StubRuntime(publisher), "a").log("the last line")
    publisher.close()
    assert wire.values("job_log", "message") == ["the last line"]
    assert wire.closed
    assert not publisher._thread.is_alive()

    wire.down = True
    publisher = Publisher(wire, shown_url="wire://")
    Job(StubRuntime(publisher), "a").log("never sent")
    publisher.close()
    assert "1 events of jobs were not sent to wire://" in caplog.text
    assert not publisher._thread.is_alive()


def test_close_names_jobs_with_unsent_final_events(
    wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    publisher = Publisher(wire, shown_url="wire://")
    held_job(wire, publisher, "held").complete(1)
    wire.down = True
    for name in ("being-sent", "in-the-buffer"):
        Job(StubRuntime(publisher), name).complete(1)
        wait_for(partial(_tried_since, wire, wire.tries), "another try")
    Job(StubRuntime(publisher), "still-running").log("x")
    publisher.close()
    [record] = [record for record in caplog.records if record.levelname == "ERROR"]
    assert "how 3 jobs ended" in record.getMessage()
    for name in ("held", "being-sent", "in-the-buffer"):
        assert name in record.getMessage()
    assert "still-running" not in record.getMessage()


def _tried_since(wire: Wire, tries: int) -> bool:
    return wire.tries > tries


def test_final_events_are_retried_until_stored(wire: Wire, publisher: Publisher) -> None:
    wire.down = True
    for n in range(500):
        Job(StubRuntime(publisher), str(n)).complete(n)
    wait_for(lambda: wire.tries > 5, "tries")
    wire.down = False
    wait_for(lambda: len(wire.values("job_complete", "result")) == 500, "all endings")


def test_nothing_is_published_after_the_final_event(wire: Wire, publisher: Publisher) -> None:
    job = Job(StubRuntime(publisher), "a")
    job.complete(1)
    job.log("late")
    job.progress(50)
    job.complete(2)
    job.fail(ValueError("late"))
    assert publisher.flush()
    assert [name for name, _ in wire.events] == ["job_complete"]


def test_threads_publish_concurrently(wire: Wire, publisher: Publisher) -> None:
    job = Job(StubRuntime(publisher), "a")

    def publish(name: str) -> None:
        for n in range(30):
            job.log(f"{name}{n}")
            job.progress(n)

    threads = [threading.Thread(target=publish, args=(name,)) for name in "xyz"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert publisher.flush()
    published = wire.values("job_log", "message")
    for name in "xyz":
        assert [m for m in published if m[0] == name] == [f"{name}{n}" for n in range(30)]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[runtime.Runtime]:
    """Return the runtime of this process, with a started publisher."""
    monkeypatch.setenv("JOBCAST_URL", "memory://fork")
    runtime.close()
    here = runtime.get_runtime()
    assert here is not None
    yield here
    runtime.close()


RunInChild = Callable[[Callable[[], bool]], bool]


def test_forked_child_has_its_own_publisher(
    here: runtime.Runtime, run_in_child: RunInChild
) -> None:
    ours = here.publisher
    assert runtime.get_runtime() is here
    assert here.publisher is ours

    def child() -> bool:
        theirs = runtime.get_runtime()
        alive = theirs is not None and theirs.publisher._thread.is_alive()
        return alive and theirs is not None and theirs.publisher is not ours

    assert run_in_child(child)
    assert here.publisher is ours


def test_job_continues_in_a_forked_child(here: runtime.Runtime, run_in_child: RunInChild) -> None:
    """The fork happens while the lock is held and a progress update is pending."""
    job = open_job("a")
    assert isinstance(job, Job)
    assert job.flush()

    def child() -> bool:
        job.progress(2)
        return job.flush() and job.take_progress(job.slot) is None

    with here.publisher._lock:
        job.progress(1)
        assert run_in_child(child)
    job.log("from the parent")
    assert job.flush()


@pytest.fixture
def run_in_child() -> RunInChild:
    def run(function: Callable[[], bool]) -> bool:
        pid = os.fork()
        if pid == 0:
            signal.alarm(int(TIMEOUT))  # ends a child that deadlocks
            os._exit(0 if function() else 1)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

    return run


class Breaks:
    """A value whose conversions raise a given exception."""

    def __init__(self, exc: BaseException) -> None:
        self.exc = exc

    def __float__(self) -> float:
        raise self.exc

    def __str__(self) -> str:
        raise self.exc


@pytest.mark.parametrize(
    "wrong", [Breaks(RuntimeError("no")), 10**400], ids=["tensor", "huge"],
)  # fmt: skip
def test_invalid_value_of_one_job_does_not_affect_others(
    wrong: Any, wire: Wire, publisher: Publisher
) -> None:
    job = Job(StubRuntime(publisher), "odd")
    job.progress(current=wrong, total=10**401)
    wait_for(lambda: not job.dirty and not publisher._work.is_set(), "a look at it")
    job.progress(message=wrong)
    wait_for(lambda: not job.dirty and not publisher._work.is_set(), "a look at it")
    job.progress(70, "fine")
    job.complete(1)
    Job(StubRuntime(publisher), "other").complete(2)
    assert publisher._thread.is_alive()
    assert wire.values("job_complete", "result") == [1, 2]
    assert wire.values("job_progress", "percentage")[-1] == 70


def test_unreadable_progress_is_dropped_with_a_warning(
    wire: Wire, publisher: Publisher, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    job, other = Job(StubRuntime(publisher), "a"), Job(StubRuntime(publisher), "b")
    with monkeypatch.context() as patch:
        patch.setattr(job, "_progress_of", fail)
        job.progress(1)
        wait_for(lambda: caplog.text, "a warning")
        job.log("after the failure")
        other.progress(2)
        assert publisher.flush()
    assert caplog.text.count("job a: could not read a progress update") == 1
    assert [name for name, _ in wire.events] == ["job_log", "job_progress"]
    job.complete(1)
    assert wire.events[-1][0] == "job_complete"


def test_publisher_thread_survives_any_error(
    wire: Wire, publisher: Publisher, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def fail() -> None:
        raise RuntimeError("a fault of its own")

    with monkeypatch.context() as patch:
        patch.setattr(publisher.leases, "renew_and_release", fail)
        Job(StubRuntime(publisher), "a").log("before")
        wait_for(lambda: "retrying in" in caplog.text, "a log line")
    Job(StubRuntime(publisher), "a").complete(1)
    assert wire.values("job_complete", "result") == [1]


def test_time_limit_during_flush_propagates(
    wire: Wire, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Job(StubRuntime(publisher), "a")

    def reached(*_: Any) -> None:
        raise SoftTimeLimitExceeded

    with publisher._lock:
        job.progress(3)
        with monkeypatch.context() as patch, pytest.raises(SoftTimeLimitExceeded):
            patch.setattr(job, "_progress_of", reached)
            publisher._collect()
    assert publisher.flush()
    assert wire.values("job_progress", "percentage") == [3]
