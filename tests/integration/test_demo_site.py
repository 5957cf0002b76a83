"""The HTTP side of the demo's site: every route and every error response, on a real server."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import jwt
import pytest

from jobcast.client import JobClient
from jobcast.console.page import DIRECTORY
from jobcast.demo.web.session import AUDIENCE, COOKIE
from jobcast.demo.web.site import Site
from jobcast.demo.web.upload import LARGEST
from jobcast.demo.web.workspaces import Workspaces
from jobcast.errors import ConnectionRefused
from jobcast.events import JobComplete
from jobcast.settings import Settings
from jobcast.tokens import mint
from tasks.samples import make_samples
from tests.conftest import Valkey
from tests.support import SECRET, TIMEOUT, Worker, new_id, running, wait_for
from tests.support.console import LEDGER, PEOPLE, Console, Visitor, make_demo


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = make_demo(tmp_path_factory.mktemp("site") / "demo")
    make_samples(directory / "samples")
    return directory


@pytest.fixture(scope="module")
def console(
    tmp_path_factory: pytest.TempPathFactory, demo: Path, valkey: Valkey
) -> Iterator[Console]:
    log = tmp_path_factory.mktemp("console") / "log"
    with running(Console(log, valkey.url, demo)) as console:
        yield console.ready()
        console.end()


@pytest.fixture(scope="module")
def sample_worker(
    tmp_path_factory: pytest.TempPathFactory, console: Console, valkey: Valkey
) -> Iterator[Worker]:
    """Start a worker with the sample tasks on the console's queue."""
    log = tmp_path_factory.mktemp("samples") / "worker.log"
    with running(
        Worker(log, valkey.url, valkey.url, "-Q", console.queue, "-c", "2", app="worker.app")
    ) as worker:
        yield worker.ready()


@pytest.fixture
def ada(console: Console) -> Visitor:
    """Return a signed-in client with its own job list."""
    return Visitor(console, new_id("ada"))


def workspaces(console: Console) -> set[str]:
    return {path.name for path in (console.demo / "jobs").glob("*")}


# Sessions


def test_session_starts_and_ends(console: Console) -> None:
    visitor = Visitor(console)
    signed_out = visitor.get("/api/session")
    assert (signed_out.status, signed_out.json) == (200, {"user": None})
    answer = visitor.post("/api/session", {"name": "ada"})
    assert (answer.status, answer.json) == (200, {"user": "ada"})
    attributes = answer.headers["Set-Cookie"].lower()
    assert "httponly" in attributes
    assert "samesite=strict" in attributes
    assert visitor.get("/api/session").json == {"user": "ada"}
    gone = visitor.delete("/api/session")
    assert (gone.status, gone.body) == (204, b"")
    assert visitor.get("/api/session").json == signed_out.json


@pytest.mark.parametrize(
    "body",
    [
        b"", b"no json", b"[]", b"{}", b"null", b'"ada"', b"\xff", b"[" * 1000, b'{"name": 1}',
        b'{"name": null}', b'{"name": ""}', b'{"name": "a b"}', b'{"name": "ada\\n"}',
        b'{"name": "J\xc3\xbcrgen"}', b'{"name": "../etc"}', b'{"name": "%s"}' % (b"x" * 41),
        b'{"name": "%s"}' % (b"x" * 100_000),
    ],
)  # fmt: skip
def test_invalid_name_is_refused(console: Console, body: bytes) -> None:
    answer = Visitor(console).post("/api/session", body)
    assert answer.problem == (400, "invalid_name")
    assert "Set-Cookie" not in answer.headers


def test_valid_names_are_accepted(console: Console) -> None:
    for name in ("a", "x" * 40, "ada.l-1_"):
        assert Visitor(console, name).get("/api/session").json["user"] == name


def session_key() -> str:
    settings = Settings(jwt_secret=SECRET)
    return Site(settings=settings, directory=Path("/nowhere"), queue="none").session_key


def test_forged_or_expired_session_is_refused(console: Console) -> None:
    good = mint(session_key(), "ada", audience=AUDIENCE)
    forged = {
        "expired": mint(session_key(), "ada", ttl=-1, audience=AUDIENCE),
        "other key": mint("x" * 40, "ada", audience=AUDIENCE),
        "the page's token": Visitor(console, "ada").token,
        "the tokens' key": mint(SECRET, "ada", audience=AUDIENCE),
        "other audience": mint(session_key(), "ada", audience="another"),
        "no audience": mint(session_key(), "ada"),
        "unsigned": jwt.encode({"sub": "ada", "aud": AUDIENCE, "exp": 2**33}, "", "none"),
        "no end": jwt.encode({"sub": "ada", "aud": AUDIENCE}, session_key()),
        "garbage": "garbage",
        "nothing": "",
    }
    visitor = Visitor(console)
    visitor.cookie = f"{COOKIE}={good}"
    assert visitor.get("/api/session").json["user"] == "ada"
    for description, value in forged.items():
        visitor.cookie = f"{COOKIE}={value}"
        assert visitor.get("/api/session").json["user"] is None, description
        for method, path in (
            ("POST", "/api/token"), ("POST", "/api/jobs/hash_tree"),
        ):  # fmt: skip
            assert visitor.ask(method, path).problem == (401, "signed_out"), (description, path)


async def test_session_is_not_accepted_as_a_token(console: Console) -> None:
    with pytest.raises(ConnectionRefused) as refused:
        async with JobClient(console.url, mint(session_key(), "ada", audience=AUDIENCE)):
            pass
    assert refused.value.code.startswith("token_")


def test_token_names_its_user_and_expiry(ada: Visitor) -> None:
    answer = ada.post("/api/token").json
    claims = jwt.decode(answer["token"], SECRET, algorithms=["HS256"])
    assert ada.get("/api/session").json["user"] == claims["sub"]
    assert "jobs" not in claims
    expires_at = datetime.fromisoformat(answer["expires_at"])
    assert answer["expires_at"].endswith("Z")
    assert abs(claims["exp"] - expires_at.timestamp()) <= 1
    assert 290 < expires_at.timestamp() - time.time() <= 300


# Starting jobs


def test_tasks_are_listed_with_their_uploads(ada: Visitor) -> None:
    tasks = ada.get("/api/tasks").json["tasks"]
    assert [task["name"] for task in tasks] == [
        "hash_tree", "import_csv", "make_thumbnails", "fetch_feed", "audit_ledger",
    ]  # fmt: skip
    assert {task["name"]: task["accepts"] for task in tasks if task["accepts"]} == {
        "import_csv": {"extension": ".csv", "columns": ["name", "email", "born"]},
        "audit_ledger": {"extension": ".csv", "columns": ["date", "text", "amount", "balance"]},
    }
    assert all(set(task) == {"name", "title", "description", "accepts"} for task in tasks)


async def test_each_task_runs_with_a_fresh_copy_of_its_sample(
    ada: Visitor, console: Console, sample_worker: Worker
) -> None:
    names = [task["name"] for task in ada.get("/api/tasks").json["tasks"]] * 2
    started = [ada.post(f"/api/jobs/{name}") for name in names]
    assert {answer.status for answer in started} == {201}
    ids = [answer.json["job_id"] for answer in started]
    ada.wait_for_jobs(ids[::-1])
    ends: dict[str, list[object]] = {}
    async with JobClient(console.url, ada.token) as client:
        for name, job_id in zip(names, ids, strict=True):
            async for event in client.follow(job_id):
                last = event
            end = last.result if isinstance(last, JobComplete) else getattr(last, "error", "")
            ends.setdefault(name, []).append(end)
    assert all(first == second for first, second in ends.values())
    assert ends["audit_ledger"][0] == "LedgerError"
    assert ends["import_csv"][0] == {"imported": 20_000, "rejected": 6}
    assert ends["fetch_feed"][0] == {"items": 500, "authors": 10, "attempts": 3}
    assert ends["make_thumbnails"][0] == {"thumbnails": 10, "unreadable": 1}


def test_started_job_is_described_and_in_the_list_of_its_user(
    ada: Visitor, console: Console
) -> None:
    before = datetime.now(UTC)
    answer = ada.post("/api/jobs/fetch_feed")
    assert answer.status == 201
    job = answer.json
    assert re.fullmatch(r"fetch_feed-[0-9a-f]{8}", job["job_id"])
    assert job["task"] == "tasks.flaky.fetch_feed"
    assert job["title"] == "Fetch a feed"
    assert abs((datetime.fromisoformat(job["sent_at"]) - before).total_seconds()) < 60
    ada.wait_for_jobs([job["job_id"]])
    assert Visitor(console, new_id("bob")).jobs == []


def test_workspaces_are_deleted_after_their_retention(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(job_id: str, directory_age: float, file_age: float) -> None:
        directory = tmp_path / "jobs" / job_id
        directory.mkdir(parents=True)
        (directory / "people.sqlite").write_text("")
        for path, age in ((directory / "people.sqlite", file_age), (directory, directory_age)):
            os.utime(path, (time.time() - age,) * 2)

    write("old", 61, 61)
    write("young", 10, 10)
    write("written to", 61, 10)
    jobs = Workspaces(tmp_path / "jobs", kept=60)
    left = ["written to", "young"]
    assert sorted(path.name for path in (tmp_path / "jobs").iterdir()) == left

    write("later", 61, 61)
    jobs.sweep()
    assert (tmp_path / "jobs" / "later").is_dir()
    monkeypatch.setattr("jobcast.demo.web.workspaces.SWEEP_EVERY", 0.0)
    jobs.sweep()
    assert sorted(path.name for path in (tmp_path / "jobs").iterdir()) == left


def test_workspaces_are_swept_when_the_site_starts(valkey: Valkey, tmp_path: Path) -> None:
    old = make_demo(tmp_path / "demo") / "jobs" / "import_csv-1"
    old.mkdir(parents=True)
    os.utime(old, (0, 0))
    with running(Console(tmp_path / "log", valkey.url, tmp_path / "demo")) as console:
        console.ready()
        assert not old.exists()


@pytest.mark.parametrize("name", ["nope", "import_csv%00", "..%2Fimport_csv", "IMPORT_CSV"])
def test_unknown_task_is_refused(ada: Visitor, console: Console, name: str) -> None:
    before = workspaces(console)
    answer = ada.post(f"/api/jobs/{name}")
    assert answer.status in {404, 405}
    assert answer.json["code"] in {"unknown_task", "not_found", "method_not_allowed"}
    assert workspaces(console) == before


# Uploads


async def test_uploaded_file_is_processed(
    ada: Visitor, console: Console, sample_worker: Worker
) -> None:
    people = ada.upload("import_csv", "\ufeff" + PEOPLE, "text/csv; charset=utf-8").json["job_id"]
    ledger = ada.upload("audit_ledger", "\ufeff" + LEDGER.replace("\n", "\r\n")).json["job_id"]
    async with JobClient(console.url, ada.token) as client:
        assert await client.result(people) == {"imported": 1, "rejected": 1}
        assert await client.result(ledger) == {"entries": 2, "balance": "15.00"}
    for job_id in (people, ledger):
        path = console.demo / "jobs" / job_id
        assert stat.S_IMODE(path.parent.parent.stat().st_mode) == 0o700
        assert (path / "upload.csv").is_file()


@pytest.mark.parametrize(
    ("name", "body", "content_type", "problem"),
    [
        ("import_csv", "", "text/csv", (400, "empty_file")),
        ("import_csv", "name,email\nx,y\n", "text/csv", (400, "wrong_columns")),
        ("import_csv", LEDGER, "text/csv", (400, "wrong_columns")),
        ("import_csv", '"name,email,born', "text/csv", (400, "wrong_columns")),
        ("import_csv", "name;email;born\n", "text/csv", (400, "wrong_columns")),
        ("import_csv", b"\x00\xff" * 5000, "text/csv", (400, "wrong_columns")),
        ("import_csv", "x" * 100_000, "text/csv", (400, "wrong_columns")),
        ("audit_ledger", PEOPLE, "text/csv", (400, "wrong_columns")),
        ("import_csv", PEOPLE, "application/json", (415, "not_csv")),
        ("import_csv", PEOPLE, "", (415, "not_csv")),
        ("import_csv", PEOPLE, "multipart/form-data; boundary=x", (415, "not_csv")),
        ("hash_tree", PEOPLE, "text/csv", (415, "takes_no_file")),
        ("fetch_feed", "", "text/csv", (415, "takes_no_file")),
        ("import_csv", b"x" * (LARGEST + 1), "text/csv", (413, "too_large")),
        ("import_csv", iter([b"x" * 1024**2] * 33), "text/csv", (413, "too_large")),
    ],
    ids=lambda value: str(value)[:20],
)
def test_invalid_upload_is_refused_and_leaves_no_workspace(
    ada: Visitor, console: Console, name: str, body: object, content_type: str,
    problem: tuple[int, str],
) -> None:  # fmt: skip
    before = workspaces(console)
    assert ada.upload(name, body, content_type).problem == problem
    assert workspaces(console) == before
    assert ada.jobs == []


def test_upload_of_the_maximum_size_is_accepted(ada: Visitor, console: Console) -> None:
    header = b"name,email,born\n"
    answer = ada.upload("import_csv", header + b"x" * (LARGEST - len(header)))
    assert answer.status == 201
    path = console.demo / "jobs" / answer.json["job_id"] / "upload.csv"
    assert path.stat().st_size == LARGEST


@pytest.mark.parametrize(
    "rest",
    [b"Content-Length: 1000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n1000\r\n"],
    ids=["length", "chunked"],
)
def test_aborted_upload_leaves_no_workspace(ada: Visitor, console: Console, rest: bytes) -> None:
    before = workspaces(console)
    head = (
        f"POST /api/jobs/import_csv HTTP/1.1\r\nHost: 127.0.0.1:{console.port}\r\n"
        f"Cookie: {ada.cookie}\r\nContent-Type: text/csv\r\n"
    )
    with socket.create_connection(("127.0.0.1", console.port)) as connection:
        connection.sendall(head.encode() + rest + b"name,email,born\n")
        wait_for(
            lambda: any(
                (console.demo / "jobs" / name / "upload.csv").is_file()
                for name in workspaces(console) - before
            ),
            "first bytes of the upload",
        )
    wait_for(lambda: workspaces(console) == before, "removal of the workspace")
    assert ada.jobs == []
    assert "Traceback" not in console.log


# Cross-site requests and other hosts


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "http://evil.example"},
    ],
    ids=str,
)
def test_cross_site_request_is_refused(ada: Visitor, headers: dict[str, str]) -> None:
    for method, path in (
        ("POST", "/api/session"), ("DELETE", "/api/session"), ("POST", "/api/token"),
        ("POST", "/api/jobs/hash_tree"),
    ):  # fmt: skip
        answer = ada.ask(method, path, headers=headers)
        assert answer.problem == (403, "cross_site")
        assert "Set-Cookie" not in answer.headers
    assert ada.jobs == []


def test_same_origin_request_is_accepted(ada: Visitor, console: Console) -> None:
    own = {"Origin": console.url, "Sec-Fetch-Site": "same-origin"}
    assert ada.post("/api/token", **own).status == 200
    named = {"Host": f"localhost:{console.port}", "Origin": f"http://localhost:{console.port}"}
    assert ada.post("/api/token", **named).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "evil.example:8000", "192.168.1.7", "", "127.0.0.1; x",
        # "::" in an id would separate the test from its module, and from the module's fixtures.
        pytest.param("[::1", id="open bracket"),
    ],
)  # fmt: skip
def test_foreign_host_name_is_refused(console: Console, host: str) -> None:
    """A DNS rebinding attack sends such a name."""
    visitor = Visitor(console)
    answer = visitor.ask("POST", "/api/session", {"name": "ada"}, {"Host": host})
    assert answer.problem == (403, "wrong_host")
    assert visitor.ask("GET", "/", headers={"Host": host}).problem == (403, "wrong_host")


@pytest.mark.parametrize(
    "header",
    [
        "X-Forwarded-For: 203.0.113.9",
        "X-Forwarded-For: 127.0.0.1",
        "X-Forwarded-Host: 127.0.0.1",
        "X-Forwarded-Proto: http",
        "X-Real-IP: 127.0.0.1",
        "Forwarded: for=127.0.0.1",
        "Via: 1.1 127.0.0.1",
    ],
)
def test_request_through_a_proxy_is_refused(console: Console, header: str) -> None:
    name, _, value = header.partition(": ")
    for method, path in (("GET", "/"), ("POST", "/api/session"), ("GET", "/api/tasks")):
        answer = Visitor(console).ask(method, path, '{"name": "ada"}', {name: value})
        assert answer.problem == (403, "wrong_host")


# The page


@pytest.fixture(scope="module")
def own_page(
    tmp_path_factory: pytest.TempPathFactory, valkey: Valkey
) -> Iterator[tuple[Console, Path]]:
    """Start a console whose page the test creates in its own directory."""
    directory = tmp_path_factory.mktemp("page")
    page = directory / "page"
    page.mkdir()
    (page / "demo.html").write_text("<!doctype html><title>jobs</title>")
    console = Console(
        directory / "log", valkey.url, make_demo(directory / "demo"), {"TEST_PAGE": str(page)},
        app="tests.support.console:create_app",
    )  # fmt: skip
    with running(console):
        yield console.ready(), page


def test_page_and_its_assets_are_served(own_page: tuple[Console, Path]) -> None:
    console, page = own_page
    visitor = Visitor(console)
    assert visitor.get("/assets/index-1.js").problem == (404, "not_found")
    (page / "assets").mkdir()
    (page / "favicon.svg").write_text("<svg/>")
    (page / "assets" / "index-1.js").write_text("1")
    index = visitor.get("/")
    assert (index.status, index.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert index.headers["Cache-Control"] == "no-cache"
    asset = visitor.get("/assets/index-1.js")
    assert (asset.status, asset.body) == (200, b"1")
    assert "javascript" in asset.headers["Content-Type"]
    assert asset.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert visitor.get("/favicon.svg").headers["Content-Type"].startswith("image/svg")
    for path in (
        "/assets/..%2Findex.html", "/assets/../index.html", "/assets/", "/assets/nope.js",
        "/index.html", "/assets/%00", "/..%2f..%2fetc%2fpasswd", "/nope",
    ):  # fmt: skip
        assert visitor.get(path).problem == (404, "not_found"), path
    assert visitor.post("/", None).problem == (405, "method_not_allowed")


def test_every_response_has_the_security_headers(own_page: tuple[Console, Path]) -> None:
    console, _ = own_page
    visitor = Visitor(console)
    for path in ("/", "/api/session", "/api/tasks", "/nope", "/favicon.svg"):
        headers = visitor.get(path).headers
        policy = dict(
            directive.split(" ", 1) for directive in headers["Content-Security-Policy"].split("; ")
        )
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == "'self'"
        assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert policy["connect-src"].startswith(f"'self' ws://127.0.0.1:{console.port}")
        assert "unsafe" not in str(policy)
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["X-Frame-Options"] == "DENY"
        assert "Access-Control-Allow-Origin" not in headers
    assert visitor.get("/api/tasks").headers["Cache-Control"] == "no-store"
    assert visitor.get("/", Host="evil.example").headers["X-Frame-Options"] == "DENY"


def test_built_page_is_served(console: Console) -> None:
    index = Visitor(console).get("/")
    assert index.status == 200, "make console"
    assert index.body == (DIRECTORY / "demo.html").read_bytes()
    names = re.findall(r'(?:src|href)="\./(assets/[^"]+)"', index.body.decode())
    assert names
    for name in names:
        assert Visitor(console).get(f"/{name}").status == 200
    assert not re.search(rb"<script(?![^>]*\bsrc=)|<style|\bon\w+=|style=", index.body)


# Processes


def test_two_processes_share_sessions_and_lists(
    console: Console, ada: Visitor, valkey: Valkey, tmp_path: Path
) -> None:
    with running(Console(tmp_path / "log", valkey.url, console.demo)) as other:
        elsewhere = Visitor(other.ready())
        elsewhere.cookie = ada.cookie
        first = ada.post("/api/jobs/fetch_feed").json["job_id"]
        second = elsewhere.post("/api/jobs/fetch_feed").json["job_id"]
        for visitor in (ada, elsewhere):
            visitor.wait_for_jobs([second, first])


def test_unreachable_broker_is_reported(own_valkey: Valkey, tmp_path: Path) -> None:
    demo = make_demo(tmp_path / "demo")
    make_samples(demo / "samples")
    with running(Console(tmp_path / "console.log", own_valkey.url, demo)) as console:
        visitor = Visitor(console.ready(), "ada")
        own_valkey.kill()
        assert visitor.post("/api/jobs/fetch_feed").problem == (503, "broker_away")
        assert workspaces(console) == set()
        own_valkey.start()
        own_valkey.ready()
        answer = wait_for(
            lambda: (job := visitor.post("/api/jobs/fetch_feed")).status == 201 and job, "start"
        )
        visitor.wait_for_jobs([answer.json["job_id"]])


def test_refusing_broker_leaves_no_workspace(own_valkey: Valkey, tmp_path: Path) -> None:
    demo = make_demo(tmp_path / "demo")
    make_samples(demo / "samples")
    with running(Console(tmp_path / "console.log", own_valkey.url, demo)) as console:
        visitor = Visitor(console.ready(), new_id("ada"))
        own_valkey.command("CONFIG", "SET", "maxmemory", "1")
        assert visitor.post("/api/jobs/fetch_feed").problem == (503, "broker_away")
        assert visitor.jobs == []
        assert workspaces(console) == set()


def test_failed_start_leaves_no_workspace(valkey: Valkey, tmp_path: Path) -> None:
    demo = make_demo(tmp_path / "demo")
    make_samples(demo / "samples")
    env = {"CELERY_BROKER_URL": "unknown-transport://"}
    with running(Console(tmp_path / "console.log", valkey.url, demo, env)) as console:
        visitor = Visitor(console.ready(), new_id("ada"))
        assert visitor.post("/api/jobs/fetch_feed").problem == (500, "internal_error")
        assert visitor.jobs == []
        assert workspaces(console) == set()


def test_hanging_broker_does_not_block_other_requests(own_valkey: Valkey, tmp_path: Path) -> None:
    demo = make_demo(tmp_path / "demo")
    make_samples(demo / "samples")
    with running(Console(tmp_path / "console.log", own_valkey.url, demo)) as console:
        visitor = Visitor(console.ready(), "ada")
        own_valkey.popen.send_signal(signal.SIGSTOP)
        try:
            with ThreadPoolExecutor() as pool:
                starting = pool.submit(visitor.post, "/api/jobs/fetch_feed")
                while not starting.done():
                    assert visitor.get("/api/session").status == 200
            assert starting.result().problem == (503, "broker_away")
        finally:
            own_valkey.popen.send_signal(signal.SIGCONT)


def test_no_secret_is_logged(console: Console) -> None:
    visitor = Visitor(console, new_id("eve"))
    token = visitor.token
    visitor.post("/api/jobs/hash_tree", b"x")
    assert visitor.cookie is not None
    for secret in (token, visitor.cookie.partition("=")[2], SECRET):
        assert secret not in console.log


# Start-up checks


def startup_error(
    tmp_path: Path, valkey: Valkey, demo: Path, *arguments: str, **env: str
) -> list[str]:
    """Return the output lines of a console that refuses to start, without the version."""
    with running(Console(tmp_path / "log", valkey.url, demo, env, *arguments)) as console:
        wait_for(lambda: console.popen.poll() is not None, "end of the process")
        assert console.popen.returncode == 2
        _version, *lines = console.log.strip().splitlines()
        return lines


@pytest.mark.parametrize(
    ("arguments", "env", "message"),
    [
        (["--host", "0.0.0.0"], {}, "JOBCAST_HOST is 0.0.0.0"),
        (["--host=::"], {}, "JOBCAST_HOST is ::"),
        (["--host", "192.0.2.1"], {}, "JOBCAST_HOST is 192.0.2.1"),
        ([], {"JOBCAST_HOST": "0.0.0.0"}, "JOBCAST_HOST is 0.0.0.0"),
    ],
    ids=str,
)
def test_console_does_not_start_on_a_public_address(
    tmp_path: Path, valkey: Valkey, arguments: list[str], env: dict[str, str], message: str
) -> None:
    [line] = startup_error(tmp_path, valkey, make_demo(tmp_path / "demo"), *arguments, **env)
    assert line.startswith("Error: JOBCAST_DEMO may not be set where others can connect")
    assert message in line


def test_site_does_not_start_outside_of_a_demo(tmp_path: Path, valkey: Valkey) -> None:
    [line] = startup_error(tmp_path, valkey, tmp_path, JOBCAST_DEMO="")
    assert line.startswith("Error: JOBCAST_DEMO is not set: only `jobcast demo` starts")


@pytest.mark.parametrize("defect", ["missing", "no mark", "bad mark", "readable by others"])
def test_site_does_not_start_without_a_valid_demo_directory(
    tmp_path: Path, valkey: Valkey, defect: str
) -> None:
    demo = make_demo(tmp_path / "demo")
    if defect == "missing":
        demo = tmp_path / "nowhere"
    elif defect == "no mark":
        (demo / "demo.json").unlink()
    elif defect == "bad mark":
        (demo / "demo.json").write_text("{}")
    else:
        demo.chmod(0o755)
    [line] = startup_error(tmp_path, valkey, demo)
    assert line.startswith("Error: JOBCAST_DEMO should not be set")
    assert str(demo) in line


def test_site_does_not_start_on_an_unknown_address(tmp_path: Path, valkey: Valkey) -> None:
    app = "jobcast.demo.app:create_app"
    code = f"import uvicorn; uvicorn.run({app!r}, factory=True, host='0.0.0.0', port=0)"
    done = subprocess.run(
        [sys.executable, "-c", code], text=True, check=False, timeout=TIMEOUT,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={
            **os.environ, "JOBCAST_URL": valkey.url, "JOBCAST_JWT_SECRET": SECRET,
            "JOBCAST_DEMO": str(make_demo(tmp_path / "demo")),
        },
    )  # fmt: skip
    assert done.returncode == 1
    assert "the server's address is not known" in done.stdout


@pytest.mark.parametrize("seconds", ["0", "-1", "1.5", "soon", "100000", "²"])
def test_invalid_token_lifetime_prevents_the_start(
    tmp_path: Path, valkey: Valkey, seconds: str
) -> None:
    demo = make_demo(tmp_path / "demo")
    [line] = startup_error(tmp_path, valkey, demo, JOBCAST_DEMO_TOKEN_SECONDS=seconds)
    assert line.startswith("Error: JOBCAST_DEMO_TOKEN_SECONDS should be")


def test_token_lifetime_is_configurable(tmp_path: Path, valkey: Valkey) -> None:
    env = {"JOBCAST_DEMO_TOKEN_SECONDS": "7"}
    with running(
        Console(tmp_path / "log", valkey.url, make_demo(tmp_path / "demo"), env)
    ) as process:
        claims = jwt.decode(Visitor(process.ready(), "ada").token, SECRET, algorithms=["HS256"])
    assert claims["exp"] - int(claims["iat"]) == 7
