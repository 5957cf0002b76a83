from __future__ import annotations

from collections.abc import Iterator

import pytest

from jobcast.publishing import runtime
from jobcast.publishing.publisher import Publisher
from jobcast.transports.memory import MemoryBroker
from tests.support import TIMEOUT, new_id


@pytest.fixture(autouse=True)
def patient_flushes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a flush wait for the publisher's thread on a busy machine."""
    monkeypatch.setattr(Publisher.flush, "__defaults__", (TIMEOUT,))
    monkeypatch.setattr(Publisher.close, "__defaults__", (TIMEOUT,))


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryBroker]:
    """Return an in-memory broker for one test, to which jobs of this process publish."""
    url = f"memory://{new_id()}"
    monkeypatch.setenv("JOBCAST_URL", url)
    runtime.close()
    yield MemoryBroker.at(url)
    runtime.close()
