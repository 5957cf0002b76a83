"""The images and docker-compose.yml on a real engine: ``make containers``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from jobcast.client import JobClient
from jobcast.events import JobComplete
from jobcast.tokens import mint
from tests.containers.engine import BUILD_TIMEOUT, Deployment, health_checks

WORKERS = 3
JOBS = 6
SEND = """
import sys
from worker.app import app
from tasks.checksums import hash_tree
for _ in range(int(sys.argv[1])):
    print(hash_tree.owned_by("alice").delay("/app/tasks").id)
"""


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    deployment = Deployment(tmp_path_factory.mktemp("checkout"))
    try:
        deployment.compose("build", timeout=BUILD_TIMEOUT)
        with health_checks(deployment):
            deployment.compose("up", "--detach", "--no-build", "--scale", f"worker={WORKERS}")
            deployment.wait_healthy(WORKERS + 2)
            yield deployment
    finally:
        deployment.remove()


async def test_a_client_follows_jobs_through_containers(deployment: Deployment) -> None:
    sent = deployment.compose("exec", "-T", "worker", "python", "-c", SEND, str(JOBS))
    job_ids = re.findall(r"^[0-9a-f-]{36}$", sent, re.MULTILINE)
    assert len(job_ids) == JOBS
    async with JobClient(deployment.url, mint(deployment.jwt_secret, "alice")) as client:
        for job_id in job_ids:
            *_, last = [event async for event in client.follow(job_id)]
            assert isinstance(last, JobComplete)


@pytest.mark.parametrize("service", ["redis", "worker", "realtime"])
def test_a_container_runs_without_rights(deployment: Deployment, service: str) -> None:
    name = deployment.container(service)
    status = deployment.run("exec", name, "cat", "/proc/1/status")
    fields = dict(re.findall(r"^(\w+):\s+(.*)$", status, re.MULTILINE))
    assert "0" not in fields["Uid"].split()
    assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == 0
    assert fields["NoNewPrivs"] == "1"
    (inspected,) = json.loads(deployment.run("inspect", name))
    assert inspected["HostConfig"]["ReadonlyRootfs"] is True


def test_valkey_refuses_a_client_without_the_password(deployment: Deployment) -> None:
    answer = deployment.run("exec", deployment.container("redis"), "valkey-cli", "ping")
    assert answer.startswith("NOAUTH")
