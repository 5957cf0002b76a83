"""Progress in the result backend, for pages that query Celery."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from celery import Celery
from celery.result import AsyncResult
from celery_progress.backend import Progress

from tests import jobs
from tests.conftest import Valkey
from tests.support import Server, Worker, eventually, following, running

Send = Callable[..., str]
Token = Callable[..., str]


async def test_latest_progress_is_stored_and_the_result_stays(
    server: Server, valkey: Valkey, send: Send, token: Token, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    env = {"JOBCAST_STORE_PROGRESS": "true"}
    arguments = ["--pool=prefork", "--concurrency=1"]
    with (
        running(Worker(tmp_path / "log", valkey.url, valkey.url, *arguments, env=env)) as worker,
        Celery(backend=valkey.url, set_as_current=False) as app,
    ):
        worker.ready()
        job_id = send(worker, jobs.count, 10, str(gate))
        stored: AsyncResult[Any] = AsyncResult(job_id, app=app)
        # The fifth step is the last before the gate, so no later progress replaces it.
        await eventually(
            lambda: stored.state == "PROGRESS" and stored.info["current"] == 5, "progress"
        )
        assert (stored.info["percentage"], stored.info["message"]) == (50, "counting")
        # The view of celery-progress serves this object, and its page reads it.
        assert Progress(stored).get_info() == {
            "state": "PROGRESS", "complete": False, "success": None, "progress": stored.info,
        }  # fmt: skip
        shown = {name: stored.info[name] for name in ("current", "total", "percent")}
        assert shown == {"current": 5, "total": 10, "percent": 50}
        assert (stored.info["description"], stored.info["pending"]) == ("counting", False)
        async with following(server.url, token()) as alice:
            await alice.join(job_id)
            gate.touch()
            await alice.transcript.end(job_id)
        # The next task of the process starts after all writes of this one.
        after = send(worker, jobs.count, 1)
        worker.wait_result(after)
        assert (stored.state, stored.result) == ("SUCCESS", {"steps": 10})
        ended = Progress(stored).get_info()
        assert (ended["success"], ended["result"]) == (True, {"steps": 10})


async def test_no_progress_is_stored_by_default(
    valkey: Valkey, worker: Worker, send: Send, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    with Celery(backend=valkey.url, set_as_current=False) as app:
        job_id = send(worker, jobs.count, 10, str(gate))
        other = send(worker, jobs.count, 10)
        worker.wait_result(other)
        assert AsyncResult(job_id, app=app).state == "PENDING"
        gate.touch()
        worker.wait_result(job_id)
