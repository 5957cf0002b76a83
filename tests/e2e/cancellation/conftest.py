"""A process that sends tasks and cancels them, and workers of every pool."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from jobcast.publishing import runtime
from tests.conftest import Valkey
from tests.e2e.cancellation.harness import Workers


@pytest.fixture(scope="module")
def sending_process(valkey: Valkey) -> Iterator[None]:
    """Configure this process as the sender of the tasks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JOBCAST_URL", valkey.url)
        runtime.close()
        yield
        runtime.close()


@pytest.fixture(scope="module")
def workers(
    sending_process: None, valkey: Valkey, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Workers]:
    workers = Workers(valkey.url, tmp_path_factory.mktemp("workers"))
    with workers.stack:
        yield workers
