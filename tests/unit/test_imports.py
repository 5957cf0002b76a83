"""The imports of worker, server and client, and the public names.

python-socketio imports kombu, redis and aiohttp itself if they are installed.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import jobcast
from tests.support import ROOT


def imported_by(statement: str) -> set[str]:
    """Return the top-level packages that a statement imports in a new interpreter."""
    code = f"import sys; {statement}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    result = subprocess.run(
        [sys.executable, "-c", code], text=True, check=True, stdout=subprocess.PIPE
    )
    return set(result.stdout.split())


def test_package_exports_the_public_names() -> None:
    assert jobcast.__all__ == [
        "FeedTarget", "Job", "JobCancelled", "JobTarget", "ProgressTask", "Submission", "as_job",
        "current_job", "issue_token", "job_headers", "open_job", "owned_by", "owner_headers",
        "submit",
    ]  # fmt: skip
    assert set(dir(jobcast)) == set(jobcast.__all__)
    for name in jobcast.__all__:
        assert getattr(jobcast, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = jobcast.Nothing


def test_worker_imports_no_web_server() -> None:
    imported = imported_by(
        "from jobcast import ProgressTask; import jobcast.transports.redis.publisher"
    )
    assert "celery" in imported
    assert not imported & {"starlette", "uvicorn", "jwt", "httpx", "rich"}


def test_open_job_works_without_celery_and_billiard() -> None:
    code = """
import pkgutil, sys
sys.modules["celery"] = sys.modules["billiard"] = None
from importlib import import_module
import jobcast.liveness, jobcast.publishing
for package in (jobcast.liveness, jobcast.publishing):
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        import_module(module.name)
from jobcast import current_job, open_job

with open_job("nightly") as job:
    job.progress(50, "half-way")
    assert current_job() is job
try:
    with open_job("broken") as job:
        raise KeyboardInterrupt
except KeyboardInterrupt:
    pass
assert job.ended
print("done")
"""
    environ = {"JOBCAST_URL": "memory://", "PATH": os.environ["PATH"]}
    result = subprocess.run(
        [sys.executable, "-c", code], text=True, capture_output=True, check=False, env=environ
    )
    assert (result.stdout, result.stderr) == ("done\n", "")


def test_owner_headers_alone_announce_a_task_that_is_sent_by_name() -> None:
    code = """
from celery import Celery
from jobcast import owner_headers
app = Celery(broker="memory://")
app.send_task("elsewhere.build", task_id="42", headers=owner_headers(7))
from jobcast.transports.memory import MemoryBroker
print(MemoryBroker.at("memory://").snapshot("42", None).owner)
"""
    environ = {**os.environ, "JOBCAST_URL": "memory://", "JOBCAST_ENQUEUE_TIMEOUT": "60"}
    result = subprocess.run(
        [sys.executable, "-c", code], text=True, capture_output=True, check=False, env=environ
    )
    assert (result.stdout, result.stderr) == ("7\n", "")


def test_server_imports_no_celery() -> None:
    imported = imported_by("import jobcast.realtime, jobcast.server.serve")
    assert "starlette" in imported
    assert not imported & {"celery", "rich"}


def test_reference_server_imports_no_celery(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBCAST_URL", "memory://")
    monkeypatch.setenv("JOBCAST_JWT_SECRET", "x" * 32)
    monkeypatch.chdir(ROOT)
    assert "celery" not in imported_by("import realtime.app")


def test_client_imports_neither_celery_nor_server() -> None:
    imported = imported_by("import jobcast.client")
    assert not imported & {"celery", "starlette", "uvicorn", "jwt", "rich"}


@pytest.mark.parametrize("name", ["as_job", "job_headers", "owned_by", "owner_headers"])
def test_describing_a_job_makes_its_sender_publish_it(name: str) -> None:
    """A web process that sends tasks by name imports nothing else of jobcast."""
    code = (
        f"from jobcast import {name}; from celery import signals;"
        " print([ref.__module__ for _, ref in signals.before_task_publish.receivers])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], text=True, check=True, stdout=subprocess.PIPE
    )
    assert "jobcast.celery.enqueue" in result.stdout
