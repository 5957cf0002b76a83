"""Server logs: clients cannot forge lines, and no credential is logged."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from websockets.sync.client import connect

from tests.conftest import Valkey
from tests.support import SECRET, TIMEOUT, Process, answers, free_port, running

POLL = "/socket.io/?EIO=4&transport=polling"
SERVE = ["jobcast.cli", "serve", "--port"]
UVICORN = [
    "uvicorn",
    "--factory",
    "jobcast.realtime:create_app",
    "--ws-ping-interval",
    "0",
    "--port",
]


@pytest.fixture(params=[SERVE, UVICORN], ids=["jobcast serve", "uvicorn"])
def served(
    request: pytest.FixtureRequest, tmp_path: Path, valkey: Valkey
) -> Iterator[tuple[Process, str]]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    env = {"JOBCAST_URL": valkey.url, "JOBCAST_JWT_SECRET": SECRET}
    argv = [sys.executable, "-m", *request.param, str(port)]
    with running(Process(argv, tmp_path / "log", env)) as process:
        process.expect(lambda: answers(f"{url}/readyz"), "answer of /readyz")
        yield process, url


def get(url: str) -> str:
    try:
        with urlopen(url, timeout=TIMEOUT) as answer:
            return str(answer.read().decode())
    except HTTPError as exc:
        return exc.read().decode()


def test_log_contains_no_forged_line_and_no_credential(
    served: tuple[Process, str], token: Callable[..., str]
) -> None:
    process, url = served
    for forged in ("a%0aERROR%20forged", "a%0d%0aERROR%20forged", "%1b%5b2J", "%E2%80%AEx"):
        get(f"{url}{POLL}&sid={forged}")
    sid = get(f"{url}{POLL}").partition('"sid":"')[2].partition('"')[0]
    assert sid
    access_token = token("alice")
    get(f"{url}{POLL}&sid={sid}&j=x")
    get(f"{url}{POLL}&token={access_token}")
    get(f"{url}/a%0aERROR%20forged?access_token={access_token}")
    websocket = f"{url}/socket.io/?EIO=4&transport=websocket&token={access_token}"
    with connect(websocket.replace("http", "ws")) as connection:
        connection.recv()
    get(f"{url}/last")
    process.expect(lambda: "/last" in process.log, "last line of the log")
    log = process.log
    assert "sid=***" in log
    assert "token=***" in log
    assert sid not in log
    assert access_token not in log
    assert not any(line.startswith("ERROR forged") for line in log.splitlines())
    assert all(line.isprintable() for line in log.split("\n"))
