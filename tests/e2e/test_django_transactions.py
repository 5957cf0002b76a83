"""Jobs of Django's transactions with a real worker, server and follower."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import pytest

from tests.conftest import Valkey
from tests.support import (
    ROOT,
    Follower,
    Process,
    answers,
    eventually,
    following,
    free_port,
    new_id,
    running,
)

APP = "tests.support.django_site.app"


class Site(NamedTuple):
    """The processes of a Django site."""

    env: dict[str, str]
    url: str
    token: str


@pytest.fixture(scope="module")
def own_valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """Start a Redis server whose leases no server with other timeouts monitors."""
    with running(Valkey(tmp_path_factory.mktemp("valkey"))) as server:
        yield server.ready()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, own_valkey: Valkey) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    port = free_port()
    env = {
        "DJANGO_SETTINGS_MODULE": "tests.support.django_site.settings",
        "TEST_DATABASE": str(folder / "site.sqlite3"),
        "TEST_REDIS": own_valkey.url,
        "TEST_QUEUE": new_id("queue"),
        "TEST_PORT": str(port),
    }
    manage = [sys.executable, "-m", "django"]
    django_admin(manage, env, "migrate", "--verbosity=0")
    token = django_admin(manage, env, "jobcast", "token", "--sub=alice")
    celery = [sys.executable, "-m", "celery", "-A", APP, "worker", "--loglevel=info", "-c", "1"]
    with (
        running(Process(celery, folder / "worker.log", env)) as worker,
        running(Process([*manage, "jobcast", "serve"], folder / "serve.log", env)) as server,
    ):
        url = f"http://127.0.0.1:{port}"
        worker.expect(lambda: " ready." in worker.log, "ready worker")
        server.expect(lambda: answers(f"{url}/readyz"), "ready server")
        yield Site(env, url, token)


def django_admin(manage: list[str], env: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [*manage, *arguments], cwd=ROOT, env={**os.environ, **env}, text=True, check=False,
        capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@contextmanager
def request(site: Site, outcome: str, job_id: str, **env: str) -> Iterator[subprocess.Popen[str]]:
    """Begin a request. The block runs while its transaction is open and the job is queued."""
    argv = [sys.executable, "-m", "tests.support.django_site.view", outcome, job_id]
    with subprocess.Popen(
        argv, cwd=ROOT, env={**os.environ, **site.env, **env}, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        try:
            assert process.stdout.readline().strip() == job_id
            yield process
        finally:
            process.kill()


def proceed(process: subprocess.Popen[str]) -> None:
    """Let the request end its transaction, and wait for its exit."""
    process.communicate("\n")


async def wait_status(follower: Follower, job_id: str, status: str) -> None:
    def has_come() -> bool:
        events = follower.transcript.of(job_id, "job_status")
        return status in [event["status"] for event in events]

    await eventually(has_come, f"status {status}")


async def test_job_of_an_open_transaction_can_be_joined_and_completes_after_the_commit(
    site: Site,
) -> None:
    job_id = new_id()
    async with following(site.url, site.token) as follower:
        with request(site, "commit", job_id) as process:
            joined = await follower.join(job_id)
            assert (joined["ok"], joined["status"]) == (True, "queued")
            proceed(process)
            end = await follower.transcript.end(job_id)
        assert end["result"] == job_id  # the worker has found the new row
        statuses = [event["status"] for event in follower.transcript.of(job_id, "job_status")]
        assert statuses == ["queued", "started"]


async def test_rollback_ends_the_job_for_its_followers(site: Site) -> None:
    job_id = new_id()
    async with following(site.url, site.token) as follower:
        with request(site, "rollback", job_id) as process:
            assert (await follower.join(job_id))["ok"]
            proceed(process)
            end = await follower.transcript.end(job_id)
    assert (end["error"], end["reason"]) == ("RolledBack", "rejected")


async def test_broker_that_is_down_at_the_commit_ends_the_job_for_its_followers(site: Site) -> None:
    job_id, broker = new_id(), f"redis://127.0.0.1:{free_port()}/0"
    async with following(site.url, site.token) as follower:
        with request(site, "commit", job_id, TEST_BROKER=broker) as process:
            assert (await follower.join(job_id))["ok"]
            proceed(process)
            end = await follower.transcript.end(job_id)
    assert (end["error"], end["reason"]) == ("NotSent", "rejected")


async def test_job_of_a_process_that_dies_before_the_commit_ends(site: Site) -> None:
    job_id = new_id()
    async with following(site.url, site.token) as follower:
        with request(site, "hang", job_id) as process:
            assert (await follower.join(job_id))["ok"]
            process.kill()
            end = await follower.transcript.end(job_id)
        await wait_status(follower, job_id, "stalled")
    assert (end["error"], end["reason"]) == ("NotSent", "rejected")
    assert "is gone" in end["message"]


async def test_job_of_a_long_transaction_does_not_stall(site: Site) -> None:
    """The lease is renewed for as long as the transaction lasts: longer than one lease."""
    alive, dead = new_id(), new_id()
    async with following(site.url, site.token) as follower:
        with request(site, "commit", alive) as process:
            assert (await follower.join(alive))["ok"]
            with request(site, "hang", dead) as other:
                assert (await follower.join(dead))["ok"]
                other.kill()
                await follower.transcript.end(dead)
            proceed(process)
            await follower.transcript.end(alive)
        statuses = [event["status"] for event in follower.transcript.of(alive, "job_status")]
        assert statuses == ["queued", "started"]
