"""Progress in a result backend that uses Django's database, such as django-celery-results."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import connections

from jobcast.celery import progress_mirror as module
from jobcast.celery.progress_mirror import Mirror
from jobcast.celery.result_backend import store_progress
from jobcast.events import JobProgress
from tests.support import wait_for


class DatabaseBackend:
    """A result backend that queries a database."""

    def __init__(self) -> None:
        self.used: list[Any] = []

    def store_result(self, *_: Any, **__: Any) -> None:
        connections["other"].ensure_connection()
        self.used.append(connections["other"])


def test_thread_closes_its_database_connections_as_celery_does_after_a_task(
    database: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Django closes the others at the end of a request. One that broke would stay broken."""
    monkeypatch.setattr(module, "INTERVAL", 0.01)
    options = {**connections["default"].settings_dict, "NAME": str(tmp_path / "other.sqlite3")}
    connections.settings["other"] = options
    backend = DatabaseBackend()
    try:
        mirror = Mirror(store_progress, "job %s: could not store its progress")
        mirror.enter("a", SimpleNamespace(backend=backend), None)
        mirror.update(JobProgress(job_id="a", percentage=1))
        wait_for(lambda: backend.used, "a write")
        wait_for(lambda: backend.used[0].connection is None, "the end of the connection")
        mirror.leave("a")
    finally:
        del connections.settings["other"]
