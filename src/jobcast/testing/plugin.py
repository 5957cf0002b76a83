"""The pytest plugin. pytest loads it wherever jobcast is installed, so it imports little."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from jobcast.testing.recorder import JobRecorder


@pytest.fixture
def jobcast_url() -> str:
    """Return the transport of ``job_recorder``: by default one in memory, for this test alone.

    Override it if the worker of a test is another process: return the ``JOBCAST_URL`` of both.
    """
    return f"memory://{secrets.token_hex(6)}"


@pytest.fixture
def job_recorder(jobcast_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[JobRecorder]:
    """Record what tasks report while the test runs: see :class:`jobcast.testing.JobRecorder`."""
    from jobcast.testing.recorder import recording

    monkeypatch.delenv("JOBCAST_URL_FILE", raising=False)
    monkeypatch.setenv("JOBCAST_URL", jobcast_url)
    with recording(jobcast_url) as recorder:
        yield recorder
