"""Followers see the exception that was raised, even if Celery replaces it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from jobcast.publishing import runtime
from tests.conftest import Valkey
from tests.e2e import raising_jobs as jobs
from tests.support import Server, Worker, call_in_thread, following, new_id, running

Token = Callable[..., str]


@pytest.fixture(scope="module", params=["prefork", "threads"])
def worker(
    request: pytest.FixtureRequest, valkey: Valkey, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Worker]:
    log_path = tmp_path_factory.mktemp("raising") / "worker.log"
    worker = Worker(
        log_path, valkey.url, valkey.url, f"--pool={request.param}", "--concurrency=1",
        app="tests.e2e.raising_jobs",
    )  # fmt: skip
    with running(worker), pytest.MonkeyPatch.context() as patch:
        patch.setenv("JOBCAST_URL", valkey.url)
        patch.setattr(jobs.app.conf, "broker_url", valkey.url)
        runtime.close()
        yield worker.ready()
        runtime.close()


@pytest.mark.parametrize(
    ("task", "errors"),
    [
        (jobs.fails, [("TwoArgs", "5: bad row")]),
        (jobs.fails_and_tells_fields, [("NoSuchRow", "users/7 {'row': 7}")]),
        (jobs.retries, [("TwoArgs", "6: not yet {'code': 6}")] * 2),
        (jobs.retries_by_itself, [("TwoArgs", "7: not yet either {'code': 7}")] * 2),
    ],
    ids=["failure", "failure, with a hook", "retry", "autoretry"],
)
async def test_unpicklable_exception_is_shown_as_raised(
    task: Any, errors: list[tuple[str, str]], worker: Worker, server: Server, token: Token
) -> None:
    job_id = new_id()
    async with following(server.url, token()) as alice:
        signature = task.owned_by("alice")
        call_in_thread(signature.apply_async, task_id=job_id, queue=worker.name)
        assert (await alice.join(job_id))["ok"]
        await alice.transcript.end(job_id)
        seen = alice.transcript.of(job_id, "job_status", "job_error")
    assert [(e["error"], e["message"]) for e in seen if "error" in e] == errors
    assert alice.transcript.names(job_id)[-1] == "job_error"
