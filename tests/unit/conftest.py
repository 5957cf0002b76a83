from __future__ import annotations

from collections.abc import Iterator

import pytest

from jobcast.publishing import runtime
from jobcast.transports.memory import MemoryBroker
from tests.support import new_id


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryBroker]:
    """Return an in-memory broker for one test, to which jobs of this process publish."""
    url = f"memory://{new_id()}"
    monkeypatch.setenv("JOBCAST_URL", url)
    runtime.close()
    yield MemoryBroker.at(url)
    runtime.close()
