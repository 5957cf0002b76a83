"""pytest-celery in containers if a Docker engine is available, otherwise in local processes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from celery import Celery, current_app
from pytest_celery import (
    CELERY_RABBITMQ_BROKER,
    CELERY_REDIS_BACKEND,
    CELERY_REDIS_BROKER,
    CeleryTestBackend,
    CeleryTestBroker,
    CeleryWorkerContainer,
)
from pytest_docker_tools import build
from pytest_docker_tools.wrappers import container as wrappers

from tests.e2e.brokers import broker_tasks
from tests.e2e.brokers.process_docker import ProcessDocker
from tests.support import TIMEOUT, wait_for

LEASE = "5"  # seconds; with a shorter lease, jobs on a busy machine appear lost
CHECKOUT = Path(__file__).parents[3]


def _engine() -> Any:
    if not (os.environ.get("DOCKER_HOST") or Path("/var/run/docker.sock").exists()):
        return None
    try:
        client = docker.from_env()
        client.ping()
    except docker.errors.DockerException:
        return None
    return client


@pytest.fixture(scope="session")
def docker_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Replace the client of pytest-docker-tools."""
    with pytest.MonkeyPatch.context() as patch:
        # pytest-celery needs published ports of this machine. pytest-docker-tools returns them only
        # outside containers, and its detection of containers has false positives.
        patch.setattr(wrappers, "tests_inside_container", lambda: False)
        client = _engine() or ProcessDocker(tmp_path_factory.mktemp("containers"))
        yield client
        client.close()


celery_base_worker_image = build(
    path=str(CHECKOUT),
    dockerfile=str(Path(__file__).with_name("Dockerfile").relative_to(CHECKOUT)),
    tag="jobcast/tests/worker:latest",
)


@pytest.fixture(scope="session", autouse=True)
def poll_often() -> Iterator[None]:
    """Poll more often than once a second, and for longer: a busy machine starts a worker slowly."""

    def wait(message: str, func: Callable[[], object], timeout: float = 60) -> None:
        wait_for(func, message, max(timeout, TIMEOUT))

    users = (
        "pytest_docker_tools.factories.container", "pytest_docker_tools.wrappers.container",
        "pytest_celery.api.base", "pytest_celery.api.container",
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        for name in users:
            patch.setattr(sys.modules[name], "wait_for_callable", wait)
        yield


@pytest.fixture(autouse=True)
def restore_the_current_app() -> Iterator[None]:
    """Restore the current app. Otherwise later tests send shared tasks by pytest-celery's app."""
    before = current_app._get_current_object()
    yield
    before.set_current()


@pytest.fixture(params=[CELERY_REDIS_BROKER, CELERY_RABBITMQ_BROKER])
def celery_broker(request: pytest.FixtureRequest) -> CeleryTestBroker:
    broker: CeleryTestBroker = request.getfixturevalue(request.param)
    return broker


@pytest.fixture
def celery_backend(request: pytest.FixtureRequest) -> CeleryTestBackend:
    backend: CeleryTestBackend = request.getfixturevalue(CELERY_REDIS_BACKEND)
    return backend


@pytest.fixture
def default_worker_tasks(default_worker_tasks: set[Any]) -> set[Any]:
    return default_worker_tasks | {broker_tasks}


@pytest.fixture
def default_worker_command(default_worker_container_cls: type[CeleryWorkerContainer]) -> list[str]:
    command: list[str] = default_worker_container_cls.command(
        "--pool=prefork", "--concurrency=2", "--without-mingle", "--without-gossip"
    )
    return command


@pytest.fixture
def default_worker_env(default_worker_env: dict[str, str]) -> dict[str, str]:
    """Use the broker as the transport."""
    url = default_worker_env["CELERY_BROKER_URL"]
    return {**default_worker_env, "JOBCAST_URL": url, "JOBCAST_LEASE": LEASE}


@pytest.fixture
def default_worker_app(default_worker_app: Celery) -> Celery:
    app = default_worker_app
    app.conf.worker_prefetch_multiplier = 1
    return app
