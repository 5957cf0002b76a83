"""Log records are captured inside a job, and other logging is not affected."""

from __future__ import annotations

import io
import json
import logging
import pickle
from collections.abc import Callable, Iterator
from logging.handlers import QueueHandler
from queue import SimpleQueue
from threading import Barrier, Thread
from typing import Any

import msgspec
import pytest
from celery import Celery

from jobcast import ProgressTask, open_job
from jobcast.publishing import runtime
from jobcast.publishing.job import Job
from jobcast.publishing.log_capture import JobLogHandler
from jobcast.transports.memory import MemoryBroker
from tests.support import TIMEOUT, new_id

Bare = Callable[[], logging.Logger]


@pytest.fixture
def bare() -> Iterator[Bare]:
    """Return a function that resets the root logger to an unconfigured state, without pytest's."""
    root = logging.getLogger()
    level = root.level

    def clear() -> logging.Logger:
        root.handlers = []
        root.setLevel(logging.INFO)
        return root

    yield clear
    clear()
    root.setLevel(level)


@pytest.fixture
def task() -> Any:
    app = Celery("capture", broker="memory://", set_as_current=False)

    @app.task(base=ProgressTask, bind=True, shared=False)
    def logs(self: ProgressTask, name: str) -> None:
        logging.getLogger(name).warning("a line")

    return logs


def lines(broker: MemoryBroker, job_id: str) -> list[str]:
    here = runtime.get_runtime()
    assert here is not None
    here.publisher.flush()
    events = [msgspec.json.decode(m.packet[2:]) for m in broker.snapshot(job_id, None).events]
    return [data["message"] for name, data in events if name == "job_log"]


def ours(logger: logging.Logger) -> list[logging.Handler]:
    return [handler for handler in logger.handlers if isinstance(handler, JobLogHandler)]


def test_captured_record_still_pickles_without_new_attributes(
    bare: Bare, broker: MemoryBroker
) -> None:
    root = bare()
    records: SimpleQueue[logging.LogRecord] = SimpleQueue()
    root.addHandler(QueueHandler(records))
    with open_job(job_id := new_id()) as job:
        logging.getLogger("tests").warning("a line")
        # A handler that is added inside the job comes after jobcast's.
        root.addHandler(after := QueueHandler(records))
        logging.getLogger("tests").warning("another")
        root.removeHandler(after)
    assert isinstance(job, Job)
    assert records.qsize() == 3
    plain = vars(logging.makeLogRecord({})).keys()
    while not records.empty():
        record = records.get()
        assert vars(pickle.loads(pickle.dumps(record))).keys() <= {*plain, "message", "taskName"}
        json.dumps({name: str(value) for name, value in vars(record).items()})
    assert lines(broker, job_id) == ["a line", "another"]


@pytest.mark.parametrize("kind", ["task", "open_job"])
def test_logging_is_restored_after_a_job(
    kind: str, bare: Bare, broker: MemoryBroker, task: Any
) -> None:
    root = bare()
    if kind == "task":
        task.apply(("tests",))
    else:
        with open_job(new_id()):
            assert ours(root)
    assert root.handlers == []
    assert ours(logging.getLogger("celery.task")) == []
    logging.basicConfig(stream=io.StringIO())
    assert len(root.handlers) == 1


@pytest.mark.parametrize("level", [logging.WARNING, logging.INFO])
def test_last_resort_handler_still_prints_inside_a_job(
    level: int,
    bare: Bare,
    broker: MemoryBroker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bare()
    printed = io.StringIO()
    last_resort = logging.StreamHandler(printed)
    last_resort.setLevel(logging.WARNING)
    monkeypatch.setattr(logging, "lastResort", last_resort)
    with open_job(job_id := new_id()):
        logging.getLogger("tests").log(level, "a line")
    assert printed.getvalue() == ("a line\n" if level == logging.WARNING else "")
    assert lines(broker, job_id) == ["a line"]


@pytest.mark.parametrize(
    ("name", "listed"), [("aside", "aside"), ("aside.deep", "aside"), ("tests.aside", "")]
)
def test_logger_without_propagation_is_captured_once(
    name: str, listed: str, broker: MemoryBroker, bare: Bare, task: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    bare()
    monkeypatch.setenv("JOBCAST_LOG_LOGGERS", listed)
    logger = logging.getLogger(name)
    monkeypatch.setattr(logger, "propagate", False)
    result = task.apply((name,))
    assert lines(broker, result.id) == ["a line"]
    with open_job(job_id := new_id()):
        logger.warning("a line")
        logging.getLogger(f"{name}.below").warning("and below")
    assert lines(broker, job_id) == ["a line", "and below"]
    assert ours(logger) == []


def test_jobs_in_threads_capture_their_own_lines_and_leave_no_handler(
    bare: Bare, broker: MemoryBroker
) -> None:
    root = bare()
    together = Barrier(4)

    def work(name: str) -> None:
        for turn in range(50):
            with open_job(f"{name}{turn}"):
                together.wait(TIMEOUT)
                logging.getLogger("tests").info("%s%d", name, turn)

    threads = [Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for job_id in (f"{name}{turn}" for name in "abcd" for turn in range(50)):
        assert lines(broker, job_id) == [job_id]
    assert root.handlers == []


def test_nested_jobs_capture_their_own_lines(bare: Bare, broker: MemoryBroker, task: Any) -> None:
    root = bare()
    with open_job(job_id := new_id()):
        logging.getLogger("tests").info("before")
        inner = task.apply(("tests",))
        logging.getLogger("tests").info("after")
    assert lines(broker, job_id) == ["before", "after"]
    assert lines(broker, inner.id) == ["a line"]
    assert root.handlers == []


def test_message_that_logs_is_captured_without_a_lock(bare: Bare, broker: MemoryBroker) -> None:
    bare()

    class Logs:
        def __str__(self) -> str:
            thread = Thread(target=logging.getLogger("tests").info, args=("elsewhere",))
            thread.start()
            thread.join(TIMEOUT)
            assert not thread.is_alive()
            logging.getLogger("tests").info("inner")
            return "outer"

    with open_job(job_id := new_id()):
        logging.getLogger("tests").info(Logs())
    assert lines(broker, job_id) == ["inner", "outer"]
