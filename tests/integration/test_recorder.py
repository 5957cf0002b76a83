"""The recorder of jobs, with workers in a thread and in another process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jobcast.testing import JobRecorder
from tests import jobs
from tests.conftest import Valkey
from tests.support import TIMEOUT, Worker, new_id


@pytest.fixture
def jobcast_url(valkey: Valkey) -> str:
    return valkey.url


@pytest.fixture
def recorder(
    job_recorder: JobRecorder, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> JobRecorder:
    monkeypatch.setattr(jobs.app.conf, "broker_url", valkey.url)
    return job_recorder


def send(task: Any, worker: Worker, *args: Any) -> str:
    result = task.apply_async(args, queue=worker.name, task_id=new_id())
    return str(result.id)


def test_history_of_a_job_is_recorded(recorder: JobRecorder, worker: Worker) -> None:
    job = recorder.wait(send(jobs.count, worker, 5), TIMEOUT)
    assert job.statuses == ["queued", "started"]
    assert [line.message for line in job.logs] == [f"step {step}" for step in range(5)]
    assert job.progress[-1].current == 5
    assert job.result == {"steps": 5}


def test_title_and_tags_of_another_process_are_recorded(
    recorder: JobRecorder, worker: Worker, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    job = recorder.wait(send(jobs.report, worker, "Alice", str(gate), new_id()), TIMEOUT)
    assert (job.title, job.tags) == ("Alice: 3 pages", ("reports", "urgent"))
    assert job.events[-1] is job.ending


async def test_coroutine_may_wait(recorder: JobRecorder, worker: Worker) -> None:
    assert recorder.wait(send(jobs.count, worker, 1), TIMEOUT).result == {"steps": 1}


def test_job_without_a_worker_does_not_end(recorder: JobRecorder) -> None:
    job_id = jobs.count.apply_async([1], queue=new_id(), task_id=new_id()).id
    with pytest.raises(AssertionError, match=f"job {job_id} has not ended after 0.1 s; recorded"):
        recorder.wait(job_id, 0.1)
    assert recorder.of(job_id).statuses == ["queued"]


# In a process of its own, because the worker changes its process's logging and default application.
WORKER_IN_A_THREAD = """
from celery import Celery
from celery.contrib.testing.worker import start_worker
from jobcast import ProgressTask

app = Celery("thread", broker="memory://", backend="cache+memory://")

@app.task(base=ProgressTask, bind=True)
def convert(self, pages):
    for page in self.track(range(pages)):
        self.log(f"page {page}")
    return {"pages": pages}

def test_worker(job_recorder):
    with start_worker(app, perform_ping_check=False, shutdown_timeout=90):
        job = job_recorder.wait(convert.delay(4).id, timeout=90)
    assert job.statuses == ["queued", "started"]
    assert [event.current for event in job.progress] == [0, 1, 2, 3, 4]
    assert len(job.logs) == 4
    assert job.result == job_recorder.result == {"pages": 4}
"""


def test_plugin_records_a_worker_in_a_thread(tmp_path: Path) -> None:
    (tmp_path / "test_thread.py").write_text(WORKER_IN_A_THREAD)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_thread.py"],
        cwd=tmp_path, text=True, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert "1 passed" in done.stdout, done.stdout
