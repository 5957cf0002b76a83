"""``jobcast watch`` and ``jobcast doctor`` as processes."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from pathlib import Path
from threading import Thread

import pytest

from jobcast.cli.appearance import Terminal
from jobcast.cli.doctor import run_checks
from jobcast.cli.watch import watch
from jobcast.transports import open_publisher
from tests.conftest import Valkey
from tests.support import (
    SECRET,
    TIMEOUT,
    Process,
    Server,
    eventually,
    following,
    free_port,
    new_id,
    running,
    wait_for,
)
from tests.support.refusals import MISCONF, refusing
from tests.support.scripted_server import scripted_server

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


def test_title_names_the_job_and_its_changes_are_followed(
    server: Server, valkey: Valkey, token: Token, job_id: str
) -> None:
    started: Event = (
        "job_status",
        {"status": "started", "task": "shop.export", "title": "March \x1b[2J"},
    )
    retitled: Event = ("job_info", {"title": "April", "tags": ["a"]})
    publish(valkey.url, job_id, started, LOG)
    env = {**os.environ, "JOBCAST_TOKEN": token(jobs=[job_id])}
    arguments = [sys.executable, "-m", "jobcast.cli", "watch", job_id, "--url", server.url]
    with subprocess.Popen(arguments, env=env, text=True, stdout=subprocess.PIPE) as watching:
        assert watching.stdout is not None
        lines = iter(watching.stdout.readline, "")
        first = next(line for line in lines if "careful" in line)
        assert "March" in first
        assert "\x1b" not in first
        publish(valkey.url, job_id, retitled, LOG, COMPLETE)
        assert "April" in next(line for line in lines if "careful" in line)
        assert watching.wait(TIMEOUT) == 0


@pytest.mark.parametrize(("ends", "code"), [((COMPLETE, COMPLETE), 0), ((COMPLETE, ERROR), 1)])
def test_exit_code_reflects_the_outcome_of_the_jobs(
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


def test_json_output_has_one_event_per_line(server: Server, valkey: Valkey, token: Token) -> None:
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


@pytest.mark.parametrize("options", [[], ["--json"]], ids=["lines", "json"])
def test_job_without_an_event_is_named_on_stderr(
    server: Server, valkey: Valkey, token: Token, tmp_path: Path, options: list[str]
) -> None:
    unknown, known = new_id("mistyped"), new_id()
    publish(valkey.url, known, LOG)
    argv = [
        sys.executable, "-m", "jobcast.cli", "watch", unknown, known, *options, "--url", server.url,
    ]  # fmt: skip
    env = {**os.environ, "JOBCAST_TOKEN": token(jobs=[unknown, known])}
    errors = tmp_path / "stderr"
    with (
        errors.open("w") as stderr,
        subprocess.Popen(
            argv, env=env, text=True, stdout=subprocess.PIPE, stderr=stderr
        ) as process,
    ):
        try:
            wait_for(lambda: errors.read_text().endswith("\n"), "line on stderr")
            for job_id in (known, unknown):
                publish(valkey.url, job_id, COMPLETE)
            output, _ = process.communicate(timeout=TIMEOUT)
        finally:
            process.kill()
    assert process.returncode == 0
    assert output.count("complete") == 2
    assert errors.read_text() == (
        f"waiting for job {unknown}: it has no event yet. Is the id right? Ctrl-C stops watching.\n"
    )


@pytest.mark.parametrize("options", ["", "--json"])
def test_closed_output_pipe_ends_watch_without_a_traceback(
    server: Server, valkey: Valkey, token: Token, options: str
) -> None:
    job_id = new_id()
    # The output exceeds a pipe's buffer: watch still writes after its reader has exited.
    publish(valkey.url, job_id, *[("job_log", {**LOG[1], "message": "careful " * 1000})] * 50)
    watch = f"{sys.executable} -m jobcast.cli watch {job_id} {options} --url {server.url}"
    result = subprocess.run(
        ["bash", "-c", f"{watch} | head -2; exit ${{PIPESTATUS[0]}}"], text=True, timeout=TIMEOUT,
        env={**os.environ, "JOBCAST_TOKEN": token(jobs=[job_id])}, capture_output=True, check=False,
    )  # fmt: skip
    assert len(result.stdout.splitlines()) == 2
    assert result.stderr == ""
    assert result.returncode == 128 + signal.SIGPIPE


def test_watch_mints_a_token_for_its_jobs(server: Server, valkey: Valkey) -> None:
    job_id = new_id()
    publish(valkey.url, job_id, COMPLETE)
    result = jobcast("watch", job_id, "--url", server.url, JOBCAST_JWT_SECRET=SECRET)
    assert result.returncode == 0, result.stderr


def test_doctor_shows_no_secret() -> None:
    address = f"127.0.0.1:{free_port()}"
    result = jobcast(
        "doctor", "--url", f"http://{address}?token=hunter2",
        JOBCAST_URL=f"redis+sentinel://bob:hunter2@{address}/0/main?sentinel_password=hunter2",
        JOBCAST_JWKS_URL=f"http://{address}/keys?api_key=hunter2",
    )  # fmt: skip
    assert result.returncode == 1
    assert "hunter2" not in result.stdout + result.stderr
    assert f"redis+sentinel://bob:***@{address}/0/main?sentinel_password=***" in result.stdout
    result = jobcast("doctor", JOBCAST_URL=f"amqp://bob:hunter/2@{address}//")
    assert "JOBCAST_URL should have one @" in result.stdout
    assert "hunter" not in result.stdout + result.stderr


def test_watch_reports_a_refusal_in_one_line(server: Server, valkey: Valkey, token: Token) -> None:
    job_id = new_id()
    publish(valkey.url, job_id, COMPLETE)
    unreachable = f"http://127.0.0.1:{free_port()}"
    for arguments, code in (
        ([job_id, new_id(), "--url", server.url, "--token", token()], "job_not_found"),
        ([job_id, "--url", server.url, "--token", "garbage"], "token_invalid"),
        ([job_id, "--url", unreachable, "--token", token()], "unreachable"),
    ):
        result = jobcast("watch", *arguments)
        assert result.returncode == 2
        assert result.stderr.startswith("Error: ")
        assert result.stderr.rstrip().endswith(f"({code})")
        assert len(result.stderr.strip().splitlines()) == 1


HOSTILE = "\x1b]0;owned\x07\x9b2J\x1b[1A\u202e\x00\r\n12:00:00 convert ✔ complete"


@pytest.mark.parametrize("is_terminal", [True, False])
async def test_text_of_a_job_cannot_control_the_terminal(
    server: Server, valkey: Valkey, token: Token, is_terminal: bool
) -> None:
    job_ids = [new_id(), new_id()]
    status = {"status": "started", "task": HOSTILE, "attempt": 1}
    retrying = {"status": "retrying", "attempt": 2, "error": HOSTILE, "message": HOSTILE}
    progress = {"percentage": 40, "message": HOSTILE, "stage": HOSTILE}
    ends: list[Event] = [
        ("job_complete", {"result": {HOSTILE: [HOSTILE]}}),
        ("job_error", {"error": HOSTILE, "message": HOSTILE, "reason": "failure"}),
    ]
    for job_id, end in zip(job_ids, ends, strict=True):
        publish(
            valkey.url, job_id, ("job_status", status), ("job_log", {**LOG[1], "message": HOSTILE}),
            ("job_status", retrying), ("job_status", {**status, "attempt": 2}),
            ("job_progress", progress),
        )  # fmt: skip
        publish(valkey.url, job_id, end)
    output = StringIO()
    console = Terminal(
        file=output, force_terminal=is_terminal, color_system=None, width=200, legacy_windows=False
    )
    await watch(server.url, token(jobs=job_ids), job_ids, console=console)
    shown = output.getvalue()
    assert not set(shown) & set("\x07\x9b\u202e\x00")
    assert "\x1b]" not in shown  # rich itself writes other sequences
    if not is_terminal:
        assert "\x1b" not in shown
        assert not any(line.startswith("12:00:00 convert") for line in shown.splitlines())


async def test_text_of_a_server_cannot_control_the_terminal() -> None:
    refusal = {"ok": False, "code": HOSTILE, "message": HOSTILE}
    async with scripted_server() as scripted:
        scripted.answer = lambda _name, _payload: refusal
        for options in ([], ["--json"]):
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "jobcast.cli", "watch", "a", "--token", "x",
                "--url", scripted.url, *options,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )  # fmt: skip
            async with asyncio.timeout(TIMEOUT):
                output, errors = await process.communicate()
            assert (process.returncode, output) == (2, b"")
            [line] = errors.decode().split("\n")[:-1]
            assert line.startswith("Error: ")
            assert line.isprintable()
            assert "owned" not in line


async def test_log_of_a_client_escapes_text_of_the_server(
    server: Server, valkey: Valkey, token: Token, caplog: pytest.LogCaptureFixture
) -> None:
    job_id = new_id()
    publish(valkey.url, job_id, COMPLETE)
    await watch(server.url, token(jobs=[job_id]), [job_id], console=Terminal(file=StringIO()))
    for name in ("jobcast.client", "engineio.client", "socketio.client"):
        logging.getLogger(name).error("refused: %s", HOSTILE)
        [text] = [record.getMessage() for record in caplog.records if record.name == name]
        assert text.isprintable()


async def test_job_whose_start_is_not_in_the_history_is_shown_without_a_duration(
    server: Server, valkey: Valkey, token: Token
) -> None:
    job_id = new_id()
    publisher = open_publisher(valkey.url)
    publisher.emit(*LOG, room=f"job_{job_id}")  # the store then regards the job as started
    shown = StringIO()
    console = Terminal(file=shown, force_terminal=True, width=120)
    watching = asyncio.create_task(
        watch(server.url, token(jobs=[job_id]), [job_id], console=console)
    )
    await eventually(lambda: "▸" in shown.getvalue(), "symbol of a started job")
    publisher.emit(*COMPLETE, room=f"job_{job_id}")
    publisher.close()
    assert await watching == 0
    assert "0:00" not in shown.getvalue().rpartition("▸")[2]


def test_ctrl_c_prints_no_traceback(server: Server, token: Token, tmp_path: Path) -> None:
    job_id = new_id()
    argv = [sys.executable, "-m", "jobcast.cli", "watch", job_id, "--url", server.url]
    with running(Process(argv, tmp_path / "log", {"JOBCAST_TOKEN": token(jobs=["*"])})) as process:
        process.expect(lambda: f"joined {job_id}" in server.log, "join")
        process.popen.send_signal(signal.SIGINT)
        assert process.popen.wait(30) == 130
    assert "Traceback" not in process.log


def test_watch_resumes_after_the_server_was_killed(
    valkey: Valkey, token: Token, tmp_path: Path
) -> None:
    job_id = new_id()
    publish(valkey.url, job_id, LOG)
    with running(Server(tmp_path / "server.log", valkey.url)) as server:
        server.ready()
        argv = [sys.executable, "-m", "jobcast.cli", "watch", job_id, "--url", server.url]
        env = {"JOBCAST_TOKEN": token(jobs=[job_id])}
        with running(Process(argv, tmp_path / "watch.log", env)) as watch:
            watch.expect(lambda: "careful" in watch.log, "log line")
            server.kill()
            watch.expect(lambda: "reconnecting" in watch.log, "reconnecting message")
            publish(valkey.url, job_id, LOG, COMPLETE)
            server.start()
            assert watch.popen.wait(60) == 0
        assert watch.log.count("careful") == 2
        assert watch.log.count("complete") == 1


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
@pytest.mark.parametrize(("end", "code"), [(COMPLETE, 0), (ERROR, 1)])
def test_watch_writes_every_encoding_of_stdout(
    server: Server, valkey: Valkey, token: Token, encoding: str, end: Event, code: int
) -> None:
    job_id = new_id()
    log: Event = ("job_log", {"level": "info", "message": "größe 日本"})
    publish(valkey.url, job_id, log, end)
    env = {"PYTHONIOENCODING": encoding, "JOBCAST_TOKEN": token(jobs=[job_id])}
    for options in ([], ["--json"]):
        result = subprocess.run(
            [sys.executable, "-m", "jobcast.cli", "watch", job_id, *options, "--url", server.url],
            env={**os.environ, **env}, capture_output=True, timeout=TIMEOUT, check=False,
        )  # fmt: skip
        assert (result.returncode, result.stderr) == (code, b"")
        shown = result.stdout.decode(encoding)
        assert "rows" in shown or "KeyError" in shown
        if not options:
            assert ("größe" in shown) == (encoding != "ascii")
            assert ("日本" if encoding == "utf-8" else "\\u65e5\\u672c") in shown
            symbol = {0: "✔", 1: "✖"} if encoding == "utf-8" else {0: "+", 1: "x"}
            assert f" {symbol[code]} " in shown


def test_internal_error_has_another_exit_code_than_a_failed_job(
    server: Server, tmp_path: Path
) -> None:
    """Exit code 1 is reserved for a failed job."""
    (tmp_path / "rich").mkdir()
    (tmp_path / "rich" / "__init__.py").write_text("raise RuntimeError('deliberate fault')")
    env = {"PYTHONPATH": str(tmp_path), "JOBCAST_TOKEN": "x"}
    result = jobcast("watch", "any", "--url", server.url, **env)
    assert result.returncode == 2
    assert "deliberate fault" in result.stderr


def test_doctor_reports_each_problem(server: Server, valkey: Valkey) -> None:
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
    assert "JOBCAST_JWKS_URL returns no usable keys" in lines[2]
    unreachable = f"redis://:hunter2@127.0.0.1:{free_port()}/0"
    bad = {"JOBCAST_URL": unreachable, "JOBCAST_JWT_SECRET": ""}
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


@pytest.mark.parametrize("listed", ["https://app.example.com", "https://other.example"])
def test_doctor_reports_whether_an_origin_may_connect(
    valkey: Valkey, tmp_path: Path, listed: str
) -> None:
    with running(Server(tmp_path / "log", valkey.url, {"JOBCAST_CORS_ORIGINS": listed})) as server:
        server.ready()
        env = {"JOBCAST_URL": valkey.url, "JOBCAST_JWT_SECRET": SECRET}
        for origin, allowed in ((listed, True), (server.url, True), ("https://no.example", False)):
            result = jobcast("doctor", "--url", server.url, "--origin", origin, **env)
            assert result.returncode == (0 if allowed else 1), result.stdout
            words = "may connect to" if allowed else "add it to JOBCAST_CORS_ORIGINS"
            assert words in result.stdout
        result = jobcast("doctor", "--url", f"{server.url}/no", "--origin", server.url, **env)
        assert "answers 404 instead of opening a WebSocket: is the path right" in result.stdout


def test_doctor_warns_of_settings_that_break_guarantees(server: Server, own_valkey: Valkey) -> None:
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


@contextmanager
def http_server(status: int, body: bytes = b"") -> Iterator[str]:
    """Run a server that sends the same response to every request. Yields its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_doctor_reports_why_a_server_is_not_ready(valkey: Valkey) -> None:
    with http_server(503, b'{"status":"the broker blocks publishers"}') as url:
        result = jobcast("doctor", "--url", url, JOBCAST_URL=valkey.url, JOBCAST_JWT_SECRET=SECRET)
    assert result.returncode == 1
    assert "is not ready: the broker blocks publishers" in result.stdout


@pytest.mark.parametrize(
    ("status", "explanation"),
    [
        (429, "this address has too many connections or requests"),
        (502, "a proxy in front of the server does not reach it"),
        (503, "the server is full (JOBCAST_MAX_CONNECTIONS) or about to exit"),
        (504, "a proxy in front of the server got no answer from it in time"),
    ],
)
async def test_doctor_explains_statuses_that_are_not_a_wrong_path(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    status: int,
    explanation: str,
) -> None:
    monkeypatch.setenv("JOBCAST_URL", f"memory://{new_id()}")
    monkeypatch.setenv("JOBCAST_JWT_SECRET", SECRET)
    with http_server(status, b"<html>") as url:
        assert await run_checks(url, url) == 1
    lines = {line.split()[1]: line for line in capsys.readouterr().out.splitlines()}
    assert f"answers {status} for /readyz: {explanation}" in lines["server"]
    assert f"answers {status} instead of opening a WebSocket: {explanation}" in lines["origin"]
    assert not any("is the path right" in line for line in lines.values())


@pytest.mark.parametrize(
    ("limit", "reason"),
    [
        ("JOBCAST_MAX_CONNECTIONS", "is it full (JOBCAST_MAX_CONNECTIONS)?"),
        ("JOBCAST_MAX_CONNECTIONS_PER_ADDRESS", "the address has too many connections ("),
    ],
)
async def test_doctor_reports_why_a_full_server_refuses_a_websocket(
    valkey: Valkey, tmp_path: Path, token: Token, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], limit: str, reason: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("JOBCAST_URL", f"memory://{new_id()}")
    monkeypatch.setenv("JOBCAST_JWT_SECRET", SECRET)
    with running(Server(tmp_path / "log", valkey.url, {limit: "1"})) as server:
        server.ready()
        async with following(server.url, token()):
            assert await run_checks(server.url, server.url) == 1
    [origin] = [line for line in capsys.readouterr().out.splitlines() if "origin" in line]
    assert reason in origin


def test_doctor_names_misspelt_variables(server: Server, valkey: Valkey) -> None:
    result = jobcast(
        "doctor", "--url", server.url, JOBCAST_URL=valkey.url, JOBCAST_JWT_SECRET=SECRET,
        JOBCAST_MAX_JOB="7",
    )  # fmt: skip
    assert result.returncode == 0
    [line] = [line for line in result.stdout.splitlines() if line.startswith("doubt")]
    assert "JOBCAST_MAX_JOB is not a setting and has no effect: is JOBCAST_MAX_JOBS meant?" in line
