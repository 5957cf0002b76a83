"""The console of a server: its page, its sign-in, and its path."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import httpx
import pytest

from jobcast.console.page import DIRECTORY
from tests.conftest import Valkey
from tests.support import SECRET, Process, Server, answers, free_port, running
from tests.support.http_server import Token, code_of, serving
from tests.support.sse import http_client

SERVE = [sys.executable, "-m", "jobcast.cli", "serve"]
COOKIE = {"Cookie": "session=ada"}
APPLICATION = {"JOBCAST_AUTHENTICATE": "tests.http_application:user_of"}


def policy_of(response: httpx.Response) -> dict[str, str]:
    """Return the directives of the content security policy."""
    directives = response.headers["Content-Security-Policy"].split("; ")
    return dict(directive.split(" ", 1) for directive in directives)


async def test_server_has_no_console_by_default(valkey: Valkey, tmp_path: Path) -> None:
    with serving(valkey, tmp_path) as server:
        async with http_client(server.url) as client:
            for path in ("/console", "/console/", "/console/session", "/console/config.json"):
                assert (await client.get(path)).status_code == 404


async def test_page_loads_from_its_path_below_the_prefix(valkey: Valkey, tmp_path: Path) -> None:
    env = {"JOBCAST_CONSOLE": "/ops/jobs", "JOBCAST_PATH_PREFIX": "/app"}
    with running(Server(tmp_path / "log", valkey.url, env)) as server:
        server.expect(lambda: answers(f"{server.url}/app/readyz"), "response of /readyz")
        async with http_client(server.url) as client:
            bare = await client.get("/app/ops/jobs")
            assert (bare.status_code, bare.headers["Location"]) == (307, "jobs/")
            page = await client.get("/app/ops/jobs/")
            assert page.content == (DIRECTORY / "index.html").read_bytes()
            assert page.headers["Cache-Control"] == "no-cache"
            names = re.findall(r'(?:src|href)="\./([^"]+)"', page.text)
            assert {Path(name).suffix for name in names} == {".svg", ".js", ".css"}
            for name in names:
                answer = await client.get(f"/app/ops/jobs/{name}")
                assert answer.status_code == 200
                is_asset = name.startswith("assets/")
                assert ("immutable" in answer.headers["Cache-Control"]) is is_asset
            config = await client.get("/app/ops/jobs/config.json")
            assert config.json() == {"server": "../..", "sign_in": ["token"]}
            for path in ("/ops/jobs/", "/app/ops", "/app/"):
                assert (await client.get(path)).status_code == 404


async def test_every_response_has_a_strict_policy_and_no_error_is_cached(
    valkey: Valkey, tmp_path: Path
) -> None:
    with serving(valkey, tmp_path, JOBCAST_CONSOLE="true") as server:
        async with http_client(server.url) as client:
            for path in ("", "session", "config.json", "assets/old.js", "nothing", "favicon.svg"):
                answer = await client.get(f"/console/{path}")
                policy = policy_of(answer)
                assert policy["default-src"] == "'none'"
                assert policy["script-src"] == policy["style-src"] == "'self'"
                assert "unsafe" not in str(policy)
                assert answer.headers["X-Frame-Options"] == "DENY"
                assert path == "" or answer.headers["Cache-Control"] == "no-store"
            assert (await client.get("/console/assets/old.js")).status_code == 404
            assert "Content-Security-Policy" not in (await client.get("/healthz")).headers


async def test_session_names_the_user_of_a_token(
    valkey: Valkey, tmp_path: Path, token: Token
) -> None:
    with serving(valkey, tmp_path, JOBCAST_CONSOLE="true") as server:
        async with http_client(server.url) as client:
            path = "/console/session"
            answer = await client.get(path, headers={"Authorization": f"Bearer {token()}"})
            assert answer.json() == {"user": "alice"}
            assert code_of(await client.get(path), 401) == "token_missing"
            assert code_of(await client.get(path, headers=COOKIE), 401) == "token_missing"
            expired = {"Authorization": f"Bearer {token(ttl=-60)}"}
            assert code_of(await client.get(path, headers=expired), 401) == "token_expired"
            assert code_of(await client.post(path), 405) == "method_not_allowed"


async def test_session_names_the_user_of_the_application(valkey: Valkey, tmp_path: Path) -> None:
    env = {**APPLICATION, "JOBCAST_JWT_SECRET": "", "JOBCAST_HTTP_API": "false"}
    with serving(valkey, tmp_path, JOBCAST_CONSOLE="true", **env) as server:
        async with http_client(server.url) as client:
            config = await client.get("/console/config.json")
            assert config.json() == {"server": "..", "sign_in": ["session"]}
            session = await client.get("/console/session", headers=COOKIE)
            assert session.json() == {"user": "ada"}
            broken = await client.get("/console/session", headers={"Cookie": "session=broken"})
            assert code_of(broken, 500) == "internal_error"
            assert (await client.get("/jobs/42", headers=COOKIE)).status_code == 404


async def test_command_serves_the_console(valkey: Valkey, tmp_path: Path) -> None:
    port = free_port()
    command = [*SERVE, "--console", "--port", str(port), "--prefix", "/app"]
    env = {"JOBCAST_URL": valkey.url, "JOBCAST_JWT_SECRET": SECRET}
    with running(Process(command, tmp_path / "log", env)) as process:
        process.expect(lambda: "Uvicorn running" in process.log, "running server")
        assert f"console at http://127.0.0.1:{port}/app/console/" in process.log
        async with http_client(f"http://127.0.0.1:{port}") as client:
            assert '<div id="root">' in (await client.get("/app/console/")).text


@pytest.mark.parametrize("path", ["/jobs", "/socket.io/console", "/", "console"])
async def test_path_of_the_server_itself_is_refused(tmp_path: Path, path: str) -> None:
    env = {"JOBCAST_URL": "memory://", "JOBCAST_JWT_SECRET": SECRET, "JOBCAST_CONSOLE": path}
    with running(Process(SERVE, tmp_path / "log", env)) as process:
        assert await process.wait_exit() == 2
        assert "Error: JOBCAST_CONSOLE should be" in process.log
