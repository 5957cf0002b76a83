from __future__ import annotations

from collections.abc import Iterator

import pytest

from jobcast.publishing import runtime
from jobcast.transports.memory import MemoryBroker
from tests.support import new_id


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryBroker]:
    """Where the jobs of this process publish: a place in memory of the test's own."""
    url = f"memory://{new_id()}"
    monkeypatch.setenv("JOBCAST_URL", url)
    runtime.close()
    yield MemoryBroker.at(url)
    runtime.close()
