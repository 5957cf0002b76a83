"""The recorder of jobs, with a worker in another process."""

from __future__ import annotations

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


async def test_coroutine_may_wait(recorder: JobRecorder, worker: Worker) -> None:
    assert recorder.wait(send(jobs.count, worker, 1), TIMEOUT).result == {"steps": 1}


def test_job_without_a_worker_does_not_end(recorder: JobRecorder) -> None:
    job_id = jobs.count.apply_async([1], queue=new_id(), task_id=new_id()).id
    with pytest.raises(AssertionError, match=f"job {job_id} has not ended after 0.1 s; recorded"):
        recorder.wait(job_id, 0.1)
    assert recorder.of(job_id).statuses == ["queued"]
