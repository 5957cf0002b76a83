"""``jobcast watch`` and ``jobcast doctor`` as processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import StringIO
from pathlib import Path
from threading import Thread

import pytest

from bench.refusals import MISCONF, refusing
from jobcast.transports import Retention, open_publisher
from jobcast.watch import Terminal, watch
from tests.conftest import Valkey
from tests.support import SECRET, TIMEOUT, Process, Server, eventually, free_port, new_id, running

Token = Callable[..., str]
Event = tuple[str, dict[str, object]]


def publish(url: str, job_id: str, *events: Event) -> None:
    publisher = open_publisher(url)
    for name, data in events:
        publisher.emit(name, data, room=f"job_{job_id}")
    publisher.close()


LOG: Event = ("job_log", {"level": "warning", "message": "careful"})
PROGRESS: Event = ("job_progress", {"percentage": 40, "message": "x"})
COMPLETE: Event = ("job_complete", {"result": {"rows": 3}})
ERROR: Event = ("job_error", {"error": "KeyError", "message": "no row", "reason": "failure"})


def jobcast(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "jobcast.cli", *arguments], env={**os.environ, **env}, text=True,
        capture_output=True, timeout=TIMEOUT, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(("ends", "code"), [((COMPLETE, COMPLETE), 0), ((COMPLETE, ERROR), 1)])
def test_the_exit_code_says_how_the_jobs_ended(
    server: Server,
    valkey: Valkey,
    token: Token,
    ends: list[Event],
    code: int,
) -> None:
    ids = [new_id() for _ in ends]
    for job_id, end in zip(ids, ends, strict=True):
        publish(valkey.url, job_id, LOG, PROGRESS, end)
    result = jobcast("watch", *ids, "--url", server.url, JOBCAST_TOKEN=token(jobs=ids))
    assert result.returncode == code, result.stderr
    assert result.stdout.count("careful") == 2
    assert '✔ complete {"rows":3}' in result.stdout
    assert ("✖ KeyError no row" in result.stdout) == (code == 1)
    assert result.stderr == ""


def test_json_is_one_event_a_line(server: Server, valkey: Valkey, token: Token) -> None:
    job_id = new_id()
    publish(valkey.url, job_id, LOG, PROGRESS, COMPLETE)
    result = jobcast(
        "watch", job_id, "--json", "--url", server.url, "--token", token(jobs=[job_id])
    )
    assert result.returncode == 0
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert [event["event"] for event in events] == ["job_log", "job_progress", "job_complete"]
    assert [event["seq"] for event in events] == [1, 2, 3]
    assert events[2]["result"] == {"rows": 3}
    assert {event["job_id"] for event in events} == {job_id}


@pytest.mark.parametrize("form", ["", "--json"])
def test_a_reader_that_goes_ends_it_quietly(
    server: Server, valkey: Valkey, token: Token, form: str
) -> None:
    job_id = new_id()
    # More than a pipe holds: what watches is still writing when its reader has gone.
    publish(valkey.url, job_id, *[("job_log", {**LOG[1], "message": "careful " * 1000})] * 50)
    watch = f"{sys.executable} -m jobcast.cli watch {job_id} {form} --url {server.url}"
    result = subprocess.run(
        ["bash", "-c", f"{watch} | head -2; exit ${{PIPESTATUS[0]}}"], text=True, timeout=TIMEOUT,
        env={**os.environ, "JOBCAST_TOKEN": token(jobs=[job_id])}, capture_output=True, check=False,
    )  # fmt: skip
    assert len(result.stdout.splitlines()) == 2
    assert result.stderr == ""
    assert result.returncode == 128 + signal.SIGPIPE


def test_a_token_is_made_for_just_these_jobs(server: Server, valkey: Valkey) -> None:
    job_id = new_id()
    publish(valkey.url, job_id, COMPLETE)
    result = jobcast("watch", job_id, "--url", server.url, JOBCAST_JWT_SECRET=SECRET)
    assert result.returncode == 0, result.stderr


def test_what_cannot_be_watched_is_one_line(server: Server, valkey: Valkey, token: Token) -> None:
    job_id = new_id()
    publish(valkey.url, job_id, COMPLETE)
    nowhere = f"http://127.0.0.1:{free_port()}"
    for arguments, code in (
        ([job_id, new_id(), "--url", server.url, "--token", token()], "job_not_found"),
        ([job_id, "--url", server.url, "--token", "garbage"], "token_invalid"),
        ([job_id, "--url", nowhere, "--token", token()], "unreachable"),
    ):
        result = jobcast("watch", *arguments)
        assert result.returncode == 2
        assert result.stderr.startswith("Error: ")
        assert result.stderr.rstrip().endswith(f"({code})")
        assert len(result.stderr.strip().splitlines()) == 1


async def test_a_job_whose_start_is_not_kept_is_shown_as_started(
    server: Server, valkey: Valkey, token: Token
) -> None:
    job_id = new_id()
    publisher = open_publisher(valkey.url, Retention(size=10))
    publisher.emit("job_status", {"status": "started"}, room=f"job_{job_id}")
    for _ in range(500):  # a store may keep some more than it has to
        publisher.emit(*LOG, room=f"job_{job_id}")
    shown = StringIO()
    console = Terminal(file=shown, force_terminal=True, width=120)
    watching = asyncio.create_task(
        watch(server.url, token(jobs=[job_id]), [job_id], console=console)
    )
    await eventually(lambda: "▸" in shown.getvalue(), "sign that it has started")
    publisher.emit(*COMPLETE, room=f"job_{job_id}")
    publisher.close()
    assert await watching == 0
    assert "0:00" not in shown.getvalue().rpartition("▸")[2]


def test_ctrl_c_is_no_traceback(server: Server, token: Token, tmp_path: Path) -> None:
    job_id = new_id()
    argv = [sys.executable, "-m", "jobcast.cli", "watch", job_id, "--url", server.url]
    with running(Process(argv, tmp_path / "log", {"JOBCAST_TOKEN": token(jobs=["*"])})) as process:
        process.expect(lambda: f"joined {job_id}" in server.log, "join")
        process.popen.send_signal(signal.SIGINT)
        assert process.popen.wait(30) == 130
    assert "Traceback" not in process.log


def test_a_killed_server_is_a_pause(valkey: Valkey, token: Token, tmp_path: Path) -> None:
    job_id = new_id()
    publish(valkey.url, job_id, LOG)
    with running(Server(tmp_path / "server.log", valkey.url)) as server:
        server.ready()
        argv = [sys.executable, "-m", "jobcast.cli", "watch", job_id, "--url", server.url]
        env = {"JOBCAST_TOKEN": token(jobs=[job_id])}
        with running(Process(argv, tmp_path / "watch.log", env)) as watch:
            watch.expect(lambda: "careful" in watch.log, "line of log")
            server.kill()
            watch.expect(lambda: "reconnecting" in watch.log, "word of it")
            publish(valkey.url, job_id, LOG, COMPLETE)
            server.start()
            assert watch.popen.wait(60) == 0
        assert watch.log.count("careful") == 2
        assert watch.log.count("complete") == 1


def test_doctor_says_what_is_wrong(server: Server, valkey: Valkey) -> None:
    good = {"JOBCAST_URL": valkey.url, "JOBCAST_JWT_SECRET": SECRET}
    result = jobcast("doctor", "--url", server.url, **good)
    assert result.returncode == 0, result.stdout
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["ok"] * 4
    assert SECRET not in result.stdout
    assert jobcast("doctor", "--url", f"{server.url}/", **good).returncode == 0
    keys = f"http://127.0.0.1:{free_port()}/jwks.json"
    result = jobcast(
        "doctor", "--url", "http://127.0.0.1:port", JOBCAST_URL=valkey.url, JOBCAST_JWKS_URL=keys
    )
    assert result.returncode == 1
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["ok", "ok", "failed", "failed"], result.stderr
    assert "JOBCAST_JWKS_URL gives no keys" in lines[2]
    nothing = f"redis://:hunter2@127.0.0.1:{free_port()}/0"
    bad = {"JOBCAST_URL": nothing, "JOBCAST_JWT_SECRET": ""}
    result = jobcast("doctor", "--url", "http://127.0.0.1:9", **bad)
    assert result.returncode == 1
    lines = result.stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["ok", "settings"], ["failed", "transport"], ["failed", "authentication"],
        ["failed", "server"],
    ]  # fmt: skip
    assert "hunter2" not in result.stdout
    assert "jobcast serve" in lines[3]
    assert jobcast("doctor", JOBCAST_PORT="x").returncode == 1


def test_doctor_warns_of_what_breaks_promises(server: Server, own_valkey: Valkey) -> None:
    env = {"JOBCAST_URL": own_valkey.url, "JOBCAST_JWT_SECRET": SECRET}
    assert "doubt" not in jobcast("doctor", "--url", server.url, **env).stdout
    own_valkey.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    result = jobcast("doctor", "--url", server.url, **env)
    assert result.returncode == 0
    assert "maxmemory-policy is allkeys-lru" in result.stdout
    with refusing(own_valkey, MISCONF):
        result = jobcast("doctor", "--url", server.url, **env)
    assert result.returncode == 1
    assert "MISCONF" in result.stdout


class Unready(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(503)
        self.end_headers()
        self.wfile.write(b'{"status":"the broker blocks publishers"}')

    def log_message(self, *_: object) -> None: ...


def test_doctor_passes_on_why_a_server_is_not_ready(valkey: Valkey) -> None:
    with HTTPServer(("127.0.0.1", 0), Unready) as unready:
        thread = Thread(target=unready.serve_forever)
        thread.start()
        env = {"JOBCAST_URL": valkey.url, "JOBCAST_JWT_SECRET": SECRET}
        result = jobcast("doctor", "--url", f"http://127.0.0.1:{unready.server_port}", **env)
        unready.shutdown()
        thread.join()
    assert result.returncode == 1
    assert "is not ready: the broker blocks publishers" in result.stdout
