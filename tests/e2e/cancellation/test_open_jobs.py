"""Jobs of ``open_job`` end when they are cancelled, in a process without Celery."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests import opened_jobs
from tests.conftest import Valkey
from tests.e2e.cancellation.harness import MESSAGE, Token
from tests.support import Follower, Process, Server, following, new_id, running


@pytest.fixture
async def alice(server: Server, token: Token) -> AsyncIterator[Follower]:
    async with following(server.url, token()) as alice:
        yield alice


@pytest.mark.parametrize("kind", opened_jobs.KINDS)
async def test_an_opened_job_ends_once(
    kind: str, alice: Follower, valkey: Valkey, tmp_path: Path
) -> None:
    job_id = new_id()
    argv = [sys.executable, "-m", "tests.opened_jobs", kind, job_id]
    with running(Process(argv, tmp_path / "log", {"JOBCAST_URL": valkey.url})) as process:
        process.expect(lambda: "began" in process.log, "start of the job")
        assert (await alice.join(job_id))["ok"]
        answer = await alice.request("cancel_job", {"job_id": job_id, "message": MESSAGE})
        assert answer == {
            "ok": True, "job_id": job_id, "outcome": "requested", "terminates": False,
        }  # fmt: skip
        end = await alice.transcript.end(job_id)
        assert (end["reason"], end["message"], end["by"]) == ("cancelled", MESSAGE, "alice")
        assert await process.wait_exit() == os.EX_OK
        assert process.log.splitlines() == ["began", f"cancelled by alice: {MESSAGE}"]
    assert len(alice.transcript.of(job_id, "job_error", "job_complete")) == 1
    again = await alice.request("cancel_job", {"job_id": job_id})
    assert again["outcome"] == "already_ended"
