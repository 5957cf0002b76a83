"""A process that sends tasks and cancels them, and workers of every pool.

Each module has its own store and server: a worker of another module would handle its requests, too,
and hide the faults of the worker under test.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from jobcast.publishing import runtime
from tests.conftest import Valkey
from tests.e2e.cancellation.harness import (
    POOLS,
    Harness,
    PoolWorker,
    Token,
    Workers,
    harness_of,
)
from tests.support import Server, running


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with running(Valkey(tmp_path_factory.mktemp("valkey"))) as valkey:
        yield valkey.ready()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, valkey: Valkey) -> Iterator[Server]:
    log_path = tmp_path_factory.mktemp("server") / "server.log"
    with running(Server(log_path, valkey.url)) as server:
        yield server.ready()
        server.end()


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


@pytest.fixture(scope="module", params=POOLS)
def worker(request: pytest.FixtureRequest, workers: Workers) -> Iterator[PoolWorker]:
    """The only worker of the store. The tests of one pool share it, and run in a row."""
    worker = workers.create(request.param)
    yield worker.ready()
    worker.kill()


@pytest.fixture
async def here(
    worker: PoolWorker, server: Server, valkey: Valkey, tmp_path: Path, token: Token
) -> AsyncIterator[Harness]:
    async with harness_of(worker, server, valkey.url, tmp_path, token) as harness:
        yield harness
