"""A deployment with short leases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from jobcast.publishing import runtime
from jobcast.transports.leases import LeaseTimeouts
from tests.conftest import Valkey
from tests.e2e.endings.harness import Deployment
from tests.support import Server, running


@pytest.fixture
def deployment(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Deployment]:
    """A deployment. The parameter of the fixture is its lease timeouts."""
    timeouts: LeaseTimeouts = getattr(request, "param", LeaseTimeouts(lease=9, lost_after=300))
    env = {
        "JOBCAST_LEASE": str(timeouts.lease), "JOBCAST_LOST_AFTER": str(timeouts.lost_after),
        "JOBCAST_LEASE_SIDECAR": "true",
    }  # fmt: skip
    with running(Valkey(tmp_path)) as valkey:
        valkey.ready()
        monkeypatch.setenv("JOBCAST_URL", valkey.url)
        runtime.close()
        with running(Server(tmp_path / "server.log", valkey.url, env)) as server:
            deployment = Deployment(valkey, server.ready(), tmp_path, env)
            with deployment.stack:
                yield deployment
        runtime.close()
