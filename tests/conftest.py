from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from jobcast.publishing import runtime
from jobcast.tokens import mint
from tests import jobs
from tests.support import SECRET, Server, Worker, call_in_thread, new_id, running
from tests.support.rabbitmq import RabbitMQ
from tests.support.redis_family import RedisProcess

# The duration of an example depends on the load of the machine.
settings.register_profile("no_deadline", deadline=None)
settings.load_profile("no_deadline")


@pytest.fixture(scope="session", autouse=True)
def _patient_senders() -> Iterator[None]:
    """Let senders wait for `queued` and the owner of a job for longer, on a busy machine.

    A client that joins the job before they are stored is refused.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JOBCAST_ENQUEUE_TIMEOUT", "30")
        yield


@pytest.fixture(autouse=True)
def _forget_masked_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget masked secrets: the texts of another test may contain them."""
    monkeypatch.setattr("jobcast.masking._secrets", ())


class Valkey(RedisProcess):
    """A real Valkey server."""

    def ready(self) -> Valkey:
        super().ready()
        return self


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """Start one server for the session; unique job ids isolate the tests."""
    with running(Valkey(tmp_path_factory.mktemp("valkey"))) as server:
        yield server.ready()


@pytest.fixture(scope="session")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    """Start one broker for the session, because it takes seconds to start."""
    server = RabbitMQ(tmp_path_factory.mktemp("rabbitmq"))
    try:
        yield server.ready()
    finally:
        server.kill()


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[Valkey]:
    """Start a server that the test may stop and restart."""
    with running(Valkey(tmp_path)) as server:
        yield server.ready()


@pytest.fixture(scope="session")
def secret() -> str:
    return SECRET


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, valkey: Valkey) -> Iterator[Server]:
    """Start one Socket.IO process for the session."""
    log_path = tmp_path_factory.mktemp("server") / "server.log"
    with running(Server(log_path, valkey.url)) as process:
        yield process.ready()
        process.end()


@pytest.fixture(scope="session")
def worker(tmp_path_factory: pytest.TempPathFactory, valkey: Valkey) -> Iterator[Worker]:
    """Start one prefork worker with two children for the session."""
    log_path = tmp_path_factory.mktemp("worker") / "worker.log"
    with running(
        Worker(log_path, valkey.url, valkey.url, "--pool=prefork", "--concurrency=2")
    ) as process:
        yield process.ready()
        process.end()


@pytest.fixture
def token() -> Callable[..., str]:
    """Return a function that mints tokens: ``token("alice", jobs=["42"])``."""

    def make(sub: str = "alice", **options: object) -> str:
        return mint(SECRET, sub, **options)  # type: ignore[arg-type]

    return make


@pytest.fixture
def job_id() -> str:
    return new_id()


@pytest.fixture
def sender(valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Configure this process to enqueue tasks through the session's server."""
    jobs.app.conf.broker_url = valkey.url
    monkeypatch.setenv("JOBCAST_URL", valkey.url)
    runtime.close()
    yield
    runtime.close()


@pytest.fixture
def send(sender: None) -> Callable[..., str]:
    """Return a function that enqueues a task: ``send(worker, jobs.count, 10, owner="alice")``.

    It returns the job's id.
    """

    def send(worker: Worker, task: Any, *args: Any, owner: str = "alice", **options: Any) -> str:
        options.setdefault("task_id", new_id())
        signature = task.owned_by(owner)
        options["queue"] = worker.name
        result = call_in_thread(signature.apply_async, args, **options)
        return str(result.id)

    return send
