"""The warning of a starting worker that cannot reach its transport."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from jobcast.celery.startup_check import check_transport
from jobcast.settings import Settings
from tests.conftest import Valkey
from tests.support import Worker, free_port, running
from tests.support.redis_family import RedisProcess

POOL = ("--pool=solo",)


@pytest.fixture
def password_server(tmp_path: Path) -> Iterator[RedisProcess]:
    """Start a server that requires a password."""
    with running(RedisProcess(tmp_path / "password_server", "--requirepass", "right")) as process:
        process.expect(lambda: "Ready to accept" in process.log, "server that listens")
        yield process


@pytest.mark.parametrize("scheme", ["redis", "amqp", "redis+cluster"])
def test_worker_names_the_variable_of_an_unreachable_server(
    scheme: str, valkey: Valkey, tmp_path: Path
) -> None:
    url = f"{scheme}://user:hunter2@127.0.0.1:{free_port()}/"
    with running(Worker(tmp_path / "log", url, valkey.url, *POOL)) as worker:
        worker.ready()
        worker.expect(lambda: "JOBCAST_URL" in worker.log, "warning that names the variable")
        assert f"cannot reach {url.replace('hunter2', '***')}" in worker.log
        assert "hunter2" not in worker.log


def test_worker_names_the_variable_of_a_wrong_password(
    password_server: RedisProcess, valkey: Valkey, tmp_path: Path
) -> None:
    url = password_server.url.replace("redis://", "redis://:wrong@")
    with running(Worker(tmp_path / "log", url, valkey.url, *POOL)) as worker:
        worker.ready()
        worker.expect(lambda: "JOBCAST_URL" in worker.log, "warning that names the variable")
        assert "invalid username-password" in worker.log


def test_worker_that_reaches_its_server_logs_no_warning(valkey: Valkey, tmp_path: Path) -> None:
    unreachable = f"redis://127.0.0.1:{free_port()}/"
    with (
        running(Worker(tmp_path / "good.log", valkey.url, valkey.url, *POOL)) as good,
        running(Worker(tmp_path / "bad.log", unreachable, valkey.url, *POOL)) as bad,
    ):
        good.ready()
        bad.expect(lambda: "JOBCAST_URL" in bad.log, "warning of the other worker")
        assert "cannot reach" not in good.log


def test_worker_with_an_invalid_url_does_not_start(valkey: Valkey, tmp_path: Path) -> None:
    with running(Worker(tmp_path / "log", "redis://127.0.0.1:port", valkey.url, *POOL)) as worker:
        assert worker.popen.wait(60) == 1
        assert "jobcast: JOBCAST_URL should be a URL with a usable port" in worker.log


def test_worker_needs_no_rights_outside_its_prefix(
    own_valkey: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    rules = "~shop:*", "&shop", "&shop:*", "+@all"
    own_valkey.command("ACL", "SETUSER", "shop", "on", ">pw", *rules)
    url = own_valkey.url.replace("redis://", "redis://shop:pw@")
    check_transport(Settings(url=url, prefix="shop"))
    assert not caplog.records
    check_transport(Settings(url=url, prefix="bakery"))
    assert "cannot reach" in caplog.text
