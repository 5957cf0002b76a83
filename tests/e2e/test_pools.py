"""Events from every pool of Celery and from processes that exit."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from celery import Celery

from jobcast import owned_by
from tests import jobs
from tests.conftest import Valkey
from tests.support import (
    TIMEOUT,
    Process,
    Server,
    Worker,
    call_in_thread,
    eventually,
    following,
    running,
)

Send = Callable[..., str]
Token = Callable[..., str]


@pytest.mark.parametrize("pool", ["threads", "solo"])
async def test_jobs_in_each_pool_are_followed(
    pool: str, server: Server, valkey: Valkey, send: Send, token: Token, tmp_path: Path
) -> None:
    arguments = [f"--pool={pool}", "--concurrency=4"]
    with running(Worker(tmp_path / "log", valkey.url, valkey.url, *arguments)) as worker:
        worker.ready()
        async with following(server.url, token()) as alice:
            job_ids = [send(worker, jobs.count, 20 + n) for n in range(8)]
            for job_id in job_ids:
                await alice.join(job_id)
            for n, job_id in enumerate(job_ids):
                end = await alice.transcript.end(job_id)
                assert end["result"] == {"steps": 20 + n}
                messages = [e["message"] for e in alice.transcript.of(job_id, "job_log")]
                assert messages == [f"step {step}" for step in range(20 + n)]
                assert alice.transcript.of(job_id, "job_progress")[-1]["percentage"] == 100
        assert worker.stop() == 0
        assert "Traceback" not in worker.log


async def test_recycled_child_publishes_all_events_before_it_exits(
    server: Server, valkey: Valkey, send: Send, token: Token, tmp_path: Path
) -> None:
    arguments = ["--pool=prefork", "--concurrency=1", "--max-tasks-per-child=1"]
    with running(Worker(tmp_path / "log", valkey.url, valkey.url, *arguments)) as worker:
        worker.ready()
        async with following(server.url, token()) as alice:
            job_ids = [send(worker, jobs.count, 3) for _ in range(3)]
            for job_id in job_ids:
                await alice.join(job_id)
            for job_id in job_ids:
                await alice.transcript.end(job_id)
                assert len(alice.transcript.of(job_id, "job_log")) == 3
        assert worker.stop() == 0
        assert "Traceback" not in worker.log


async def test_warm_shutdown_waits_for_the_job_and_its_events(
    server: Server, valkey: Valkey, send: Send, token: Token, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    arguments = ["--pool=prefork", "--concurrency=1"]
    with running(Worker(tmp_path / "log", valkey.url, valkey.url, *arguments)) as worker:
        worker.ready()
        async with following(server.url, token()) as alice:
            job_id = send(worker, jobs.tick, str(gate))
            await alice.join(job_id)
            await eventually(lambda: alice.transcript.of(job_id, "job_log"), "a line")
            worker.popen.terminate()
            await eventually(lambda: "Warm shutdown" in worker.log, "warm shutdown")
            gate.touch()
            end = await alice.transcript.end(job_id)
            lines = [event["message"] for event in alice.transcript.of(job_id, "job_log")]
            assert lines == [f"tick {n}" for n in range(end["result"])]
        assert worker.stop() == 0
        assert "Traceback" not in worker.log


SCRIPT = """
from jobcast import open_job

job = open_job({job_id!r}, owner="alice")
job.started()
for n in range(500):
    job.log(f"line {{n}}")
job.progress(50, "and the process ends")
"""


def run_without_output(code: str, valkey: Valkey, folder: Path) -> None:
    """Run a script to its end and check that it prints nothing."""
    script = Process([sys.executable, "-c", code], folder / "log", {"JOBCAST_URL": valkey.url})
    with running(script):
        assert script.popen.wait(TIMEOUT) == 0
    assert script.log == ""


async def test_exiting_process_publishes_all_events(
    server: Server, valkey: Valkey, token: Token, job_id: str, tmp_path: Path
) -> None:
    """The interpreter exits without a task, a worker or an end of the job."""
    run_without_output(SCRIPT.format(job_id=job_id), valkey, tmp_path)
    async with following(server.url, token()) as alice:
        assert (await alice.join(job_id))["ok"]
        lines = [event["message"] for event in alice.transcript.of(job_id, "job_log")]
        assert lines == [f"line {n}" for n in range(500)]
        assert alice.transcript.of(job_id, "job_progress")[-1]["percentage"] == 50


FORKING_SCRIPT = """
import multiprocessing
from jobcast import current_job, open_job

def work(n):
    current_job().log(f"from child {{n}}")
    current_job().progress(10 * n)

with open_job({job_id!r}, owner="alice") as job:
    job.log("from the parent")
    children = [
        multiprocessing.get_context("fork").Process(target=work, args=(n,)) for n in range(1, 4)
    ]
    for child in children:
        child.start()
        child.join()
"""


async def test_events_of_child_processes_belong_to_the_job(
    server: Server, valkey: Valkey, token: Token, job_id: str, tmp_path: Path
) -> None:
    run_without_output(FORKING_SCRIPT.format(job_id=job_id), valkey, tmp_path)
    async with following(server.url, token()) as alice:
        assert (await alice.join(job_id))["ok"]
        await alice.transcript.end(job_id)
        lines = [event["message"] for event in alice.transcript.of(job_id, "job_log")]
        lines.remove("from the parent")  # which may arrive later: each process publishes on its own
        assert lines == [f"from child {n}" for n in range(1, 4)]
        assert alice.transcript.of(job_id, "job_progress")[-1]["percentage"] == 30


async def test_worker_with_an_invalid_setting_does_not_start(
    valkey: Valkey, tmp_path: Path
) -> None:
    worker = Worker(
        tmp_path / "log", valkey.url, valkey.url, env={"JOBCAST_HISTORY_SIZE": "plenty"}
    )
    with running(worker):
        assert worker.popen.wait(30) != 0
    assert "JOBCAST_HISTORY_SIZE should be a whole number of events from 10" in worker.log
    assert "Traceback" not in worker.log


OWN_REQUESTS = """
from celery import Celery
from celery.worker.request import Request
from jobcast import ProgressTask

class Own(Request):
    def on_accepted(self, *args, **kwargs):
        print("accepted by the project's own", flush=True)
        super().on_accepted(*args, **kwargs)

class Base(ProgressTask):
    abstract = True
    Request = {request}

app = Celery("own", broker={url!r}, backend={url!r})

@app.task(base=Base, bind=True)
def is_killed(self):
    import os, signal
    os.kill(os.getpid(), signal.SIGKILL)
"""


async def test_custom_request_class_and_jobcast_both_handle_a_killed_child(
    server: Server, valkey: Valkey, sender: None, token: Token, job_id: str, tmp_path: Path
) -> None:
    (tmp_path / "own_requests.py").write_text(OWN_REQUESTS.format(request="Own", url=valkey.url))
    env = {"PYTHONPATH": str(tmp_path)}
    worker = Worker(
        tmp_path / "log", valkey.url, valkey.url, "--concurrency=1", app="own_requests", env=env
    )
    with running(worker), Celery(broker=valkey.url, set_as_current=False) as app:
        worker.ready()
        signature = owned_by(app.signature("own_requests.is_killed"), "alice")
        call_in_thread(signature.apply_async, task_id=job_id, queue=worker.name)
        async with following(server.url, token()) as alice:
            assert (await alice.join(job_id))["ok"]
            assert (await alice.transcript.end(job_id))["reason"] == "worker_lost"
        assert "accepted by the project's own" in worker.log


async def test_worker_with_an_incompatible_request_class_does_not_start(
    valkey: Valkey, tmp_path: Path
) -> None:
    (tmp_path / "own_requests.py").write_text(OWN_REQUESTS.format(request="int", url=valkey.url))
    worker = Worker(
        tmp_path / "log", valkey.url, valkey.url, app="own_requests",
        env={"PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    with running(worker):
        assert worker.popen.wait(TIMEOUT) != 0
    assert "jobcast: task own_requests.is_killed: its Request is" in worker.log
    assert "Traceback" not in worker.log
