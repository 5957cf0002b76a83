"""The other pools of Celery: what a job says arrives from each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests import jobs
from tests.conftest import Valkey
from tests.support import Server, Worker, following, running

Send = Callable[..., str]
Token = Callable[..., str]


@pytest.mark.parametrize("pool", ["threads", "solo"])
async def test_jobs_in_a_pool_are_followed(
    pool: str, server: Server, valkey: Valkey, send: Send, token: Token, tmp_path: Path
) -> None:
    arguments = [f"--pool={pool}", "--concurrency=4"]
    with running(Worker(tmp_path / "log", valkey.url, valkey.url, *arguments)) as worker:
        worker.ready()
        async with following(server.url, token()) as alice:
            several = [send(worker, jobs.count, 20 + n) for n in range(8)]
            for job_id in several:
                await alice.join(job_id)
            for n, job_id in enumerate(several):
                end = await alice.transcript.end(job_id)
                assert end["result"] == {"steps": 20 + n}
                messages = [e["message"] for e in alice.transcript.of(job_id, "job_log")]
                assert messages == [f"step {step}" for step in range(20 + n)]
                assert alice.transcript.of(job_id, "job_progress")[-1]["percentage"] == 100
        assert worker.stop() == 0
        assert "Traceback" not in worker.log


async def test_a_child_that_is_recycled_says_everything_before(
    server: Server, valkey: Valkey, send: Send, token: Token, tmp_path: Path
) -> None:
    arguments = ["--pool=prefork", "--concurrency=1", "--max-tasks-per-child=1"]
    with running(Worker(tmp_path / "log", valkey.url, valkey.url, *arguments)) as worker:
        worker.ready()
        async with following(server.url, token()) as alice:
            several = [send(worker, jobs.count, 3) for _ in range(3)]
            for job_id in several:
                await alice.join(job_id)
            for job_id in several:
                await alice.transcript.end(job_id)
                assert len(alice.transcript.of(job_id, "job_log")) == 3
        assert worker.stop() == 0
        assert "Traceback" not in worker.log


async def test_a_worker_with_a_wrong_setting_does_not_start(valkey: Valkey, tmp_path: Path) -> None:
    worker = Worker(
        tmp_path / "log", valkey.url, valkey.url, env={"JOBCAST_HISTORY_SIZE": "plenty"}
    )
    with running(worker):
        assert worker.popen.wait(30) != 0
    assert "JOBCAST_HISTORY_SIZE should be a whole number of events from 10" in worker.log
    assert "Traceback" not in worker.log
