"""The recorder of jobs, with tasks that run in the process of the test."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import UUID

import pytest
from celery import Celery

from jobcast import ProgressTask, current_job, open_job
from jobcast.events import JobError
from jobcast.publishing import runtime
from jobcast.publishing.publisher import Publisher
from jobcast.testing import JobRecorder
from jobcast.testing.recorder import recording
from tests.support import new_id


@pytest.fixture
def app() -> Iterator[Celery]:
    with Celery(
        "recorded", broker="memory://", backend="cache+memory://", set_as_current=False
    ) as app:
        app.conf.task_default_queue = new_id("queue")
        yield app


@pytest.fixture
def convert(app: Celery) -> Any:
    @app.task(base=ProgressTask, bind=True, shared=False, name="recorded.convert")
    def convert(self: ProgressTask, pages: int) -> dict[str, int]:
        for page in self.track(range(pages), message="converting"):
            self.log(f"page {page}")
        if pages == 2:
            raise LookupError("there is no page 2")
        return {"pages": pages}

    return convert


def percentages(job_recorder: JobRecorder) -> list[float | None]:
    return [event.percentage for event in job_recorder.progress]


def test_eager_task_is_recorded(job_recorder: JobRecorder, convert: Any) -> None:
    convert.apply(args=[4])
    assert job_recorder.statuses == ["started"]
    assert percentages(job_recorder) == [0, 25, 50, 75, 100]
    assert [line.message for line in job_recorder.logs] == [f"page {page}" for page in range(4)]
    assert job_recorder.result == {"pages": 4}
    names = [event.name for event in job_recorder.events]
    assert names[:4] == ["job_status", "job_progress", "job_log", "job_progress"]


def test_task_always_eager_is_recorded(
    job_recorder: JobRecorder, app: Celery, convert: Any
) -> None:
    app.conf.task_always_eager = True
    convert.delay(1)
    assert job_recorder.result == {"pages": 1}


def test_failed_task_has_an_error(job_recorder: JobRecorder, convert: Any) -> None:
    convert.apply(args=[2])
    error = job_recorder.error
    assert (error.error, error.message, error.reason) == (
        "LookupError", "there is no page 2", "failure",
    )  # fmt: skip
    assert job_recorder.ending is error
    with pytest.raises(AssertionError, match=r"the job failed \(failure\): LookupError"):
        _ = job_recorder.result


def test_complete_task_has_no_error(job_recorder: JobRecorder, convert: Any) -> None:
    convert.apply(args=[1])
    with pytest.raises(AssertionError, match=r"complete, with the result \{'pages': 1\}"):
        _ = job_recorder.error


@pytest.mark.parametrize("method", ["run", "__call__"])
def test_task_without_a_job_is_recorded(
    job_recorder: JobRecorder, convert: Any, method: str
) -> None:
    assert getattr(convert, method)(4) == {"pages": 4}
    assert percentages(job_recorder) == [0, 25, 50, 75, 100]
    assert len(job_recorder.logs) == 4
    assert job_recorder.ending is None
    with pytest.raises(AssertionError, match="no job has ended; recorded events: job_progress"):
        _ = job_recorder.result


def test_clear_begins_at_zero_again(job_recorder: JobRecorder, convert: Any) -> None:
    convert.run(4)
    job_recorder.clear()
    assert job_recorder.events == []
    convert.run(1)
    assert percentages(job_recorder) == [0, 100]


def report() -> None:
    with current_job().stage("reading"):
        current_job().log("done")


async def test_function_in_a_thread_or_a_coroutine_is_recorded(job_recorder: JobRecorder) -> None:
    report()
    await asyncio.create_task(asyncio.to_thread(report))
    thread = Thread(target=report)
    thread.start()
    thread.join()
    assert len(job_recorder.logs) == 3
    assert {event.stage for event in job_recorder.progress} == {"reading"}


def test_log_records_of_an_eager_task_are_recorded(job_recorder: JobRecorder, app: Celery) -> None:
    @app.task(base=ProgressTask, shared=False, name="recorded.logging")
    def logs() -> None:
        logging.getLogger("celery.task").warning("from logging")

    logs.apply()
    assert [(line.level, line.message) for line in job_recorder.logs] == [
        ("warning", "from logging")
    ]


def test_title_and_tags_are_recorded(job_recorder: JobRecorder, app: Celery) -> None:
    @app.task(base=ProgressTask, bind=True, shared=False, name="recorded.titled",
              job_title="Report for {customer}", job_tags=["reports"])  # fmt: skip
    def titled(self: ProgressTask, customer: str) -> None:
        self.add_tags("urgent")
        if customer == "Bob":
            self.set_title("Bob's report")

    assert (job_recorder.title, job_recorder.tags) == (None, ())
    first = titled.as_job(tags=["a"]).apply(args=["Alice"])
    second = titled.apply(args=["Bob"])
    hers, his = (job_recorder.of(result.id) for result in (first, second))
    assert (hers.title, hers.tags) == ("Report for Alice", ("a", "reports", "urgent"))
    assert (his.title, his.tags) == ("Bob's report", ("reports", "urgent"))
    job_recorder.clear()
    titled.run("Bob")
    assert (job_recorder.title, job_recorder.tags) == ("Bob's report", ("urgent",))


def test_open_job_is_recorded(job_recorder: JobRecorder) -> None:
    with open_job("nightly") as job:
        job.progress(50)
        job.progress(60)
    assert percentages(job_recorder) == [50, 60]
    assert job_recorder.result is None
    assert job_recorder.ending is not None


def test_events_are_kept_apart_by_job(job_recorder: JobRecorder, convert: Any) -> None:
    first, second = (convert.apply(args=[pages], task_id=UUID(int=pages)).id for pages in (1, 3))
    assert job_recorder.of(first).result == {"pages": 1}
    assert job_recorder.of(second).result == {"pages": 3}
    assert job_recorder.result == {"pages": 3}
    assert job_recorder.of("another").ending is None


def test_job_without_a_worker_does_not_end(job_recorder: JobRecorder, convert: Any) -> None:
    job_id = convert.delay(4).id
    with pytest.raises(AssertionError, match=f"job {job_id} has not ended after 0.1 s; recorded"):
        job_recorder.wait(job_id, 0.1)


def test_recorder_ends_with_the_test(convert: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBCAST_URL", "memory://ended")
    with recording("memory://ended") as recorder:
        convert.run(1)
    convert.run(1)
    assert len(recorder.logs) == 1
    with open_job("nightly"):
        pass
    assert recorder.ending is None
    known = runtime.get_runtime()
    assert known is not None
    assert type(known.publisher) is Publisher
    runtime.close()


def test_plugin_imports_little() -> None:
    code = (
        "import sys, jobcast.testing.plugin;"
        "print(*({'celery', 'kombu', 'socketio', 'msgspec'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE)
    assert done.stdout == b"\n"


def test_every_public_name_is_found() -> None:
    import jobcast.testing

    for name in jobcast.testing.__all__:
        assert getattr(jobcast.testing, name).__name__ == name
    assert set(dir(jobcast.testing)) == set(jobcast.testing.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = jobcast.testing.Nothing


def test_url_in_a_file_is_replaced(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, convert: Any
) -> None:
    (tmp_path / "url").write_text("redis://127.0.0.1:1")
    monkeypatch.delenv("JOBCAST_URL", raising=False)
    monkeypatch.setenv("JOBCAST_URL_FILE", str(tmp_path / "url"))
    job_recorder = request.getfixturevalue("job_recorder")
    convert.apply(args=[1])
    assert job_recorder.result == {"pages": 1}


def test_running_job_is_cancelled_by_a_test(job_recorder: JobRecorder) -> None:
    job_id = new_id()
    with open_job(job_id):
        assert job_recorder.cancel(job_id, "wrong file", by="alice") == "requested"
        assert job_recorder.cancel(job_id) == "requested"
    assert job_recorder.wait(job_id).ending is not None
    assert job_recorder.cancel(new_id(), timeout=0) == "job_not_found"


def test_queued_job_is_cancelled_by_a_test(job_recorder: JobRecorder, convert: Any) -> None:
    job_id = convert.delay(3).id
    assert job_recorder.cancel(job_id, "wrong file", by="alice") == "cancelled"
    assert job_recorder.cancel(job_id) == "already_ended"
    ending = job_recorder.wait(job_id).ending
    assert isinstance(ending, JobError)
    assert (ending.state, ending.message, ending.by) == ("cancelled", "wrong file", "alice")
