"""A job that an application submits, followed with what ``submit`` has returned."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from jobcast import submit
from jobcast.client.sync import JobClient
from tests import jobs
from tests.conftest import Valkey
from tests.support import TIMEOUT, Server, Worker, call_in_thread, running
from tests.support.key_server import pems, private_key


def test_submission_suffices_to_follow_the_job(
    valkey: Valkey, worker: Worker, sender: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The application has a private key, and the server only the public one."""
    private, public = pems(private_key())
    env = {"JOBCAST_JWT_SECRET": "", "JOBCAST_JWT_PUBLIC_KEY": public}
    with running(Server(tmp_path / "server.log", valkey.url, env)) as server:
        server.ready()
        monkeypatch.setenv("JOBCAST_JWT_PRIVATE_KEY", private)
        monkeypatch.setenv("JOBCAST_PUBLIC_URL", server.url)
        task = jobs.count.s().set(queue=worker.name)
        job = call_in_thread(submit, task, 10, owner="alice")
        with JobClient(job.urls["server"], job.token) as client:
            assert client.wait(job.job_id, TIMEOUT) == {"steps": 10}
        authorization = {"Authorization": f"Bearer {job.token}"}
        state = httpx.get(job.urls["state"], headers=authorization, timeout=TIMEOUT).json()
        assert (state["status"], state["result"]) == ("complete", {"steps": 10})
        stream = httpx.get(job.urls["events"], headers=authorization, timeout=TIMEOUT)
        assert "event: job_complete" in stream.text
