"""The demo's site as a process, and an HTTP client for it."""

from __future__ import annotations

import http.client
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from starlette.applications import Starlette

from jobcast.demo.mark import read_queue, write_mark
from jobcast.demo.web.routes import site_routes
from jobcast.demo.web.site import load_site
from jobcast.realtime import create_app as create_plain_app
from jobcast.settings import Settings
from tests.support import SECRET, TIMEOUT, Process, answers, free_port, new_id, wait_for

PEOPLE = "name,email,born\nAda,ada@example.com,1815-12-10\nAlan,alan at example,1912-06-23\n"
LEDGER = "date,text,amount,balance\n2026-01-01,rent,-10.00,-10.00\n2026-01-02,pay,25.00,15.00\n"


def make_demo(directory: Path, queue: str | None = None) -> Path:
    """Create the directory of a demo, as ``jobcast demo`` does."""
    directory.mkdir(mode=0o700)
    write_mark(directory, queue or new_id("queue"))
    return directory


def create_app() -> Starlette:
    """Return the application with a page of the test instead of the built one."""
    settings = Settings.load()
    page = Path(os.environ["TEST_PAGE"])
    return create_plain_app(settings, routes=[site_routes(load_site(settings), page)])


class Console(Process):
    """The demo's site, as the demo starts it."""

    def __init__(
        self, log_path: Path, transport: str, demo: Path, env: Mapping[str, str] | None = None,
        *arguments: str, app: str = "jobcast.demo.app:create_app",
    ) -> None:  # fmt: skip
        self.port = free_port()
        self.demo = demo
        self.url = f"http://127.0.0.1:{self.port}"
        super().__init__(
            [
                sys.executable, "-m", "jobcast.cli", "serve", app, "--factory",
                "--port", str(self.port), *arguments,
            ],
            log_path,
            {
                "JOBCAST_URL": transport, "CELERY_BROKER_URL": transport,
                "JOBCAST_JWT_SECRET": SECRET, "JOBCAST_DEMO": str(demo), **(env or {}),
            },
        )  # fmt: skip

    @property
    def queue(self) -> str:
        """The queue to which the site sends its jobs."""
        return read_queue(self.demo)

    def ready(self) -> Console:
        self.expect(lambda: answers(f"{self.url}/healthz"), "response of /healthz")
        return self


class Answer:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def problem(self) -> tuple[int, str]:
        """The status and the code of an error response, which must have a message too."""
        assert set(self.json) == {"code", "message"}
        assert self.json["message"].endswith((".", "born", "balance", "127.0.0.1"))
        return self.status, self.json["code"]


class Visitor:
    """An HTTP client that keeps one cookie, as a browser does."""

    def __init__(self, console: Console | int, name: str | None = None) -> None:
        self.port = console if isinstance(console, int) else console.port
        self.cookie: str | None = None
        if name is not None:
            assert self.post("/api/session", {"name": name}).status == 200

    def ask(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT)
        sent = {**({"Cookie": self.cookie} if self.cookie else {}), **(headers or {})}
        if isinstance(body, dict):
            body = json.dumps(body)
        if isinstance(body, str):
            body = body.encode()
        try:
            connection.request(method, path, body, sent)
            answer = Answer(connection.getresponse())
        finally:
            connection.close()
        if "Set-Cookie" in answer.headers:
            self.cookie = answer.headers["Set-Cookie"].partition(";")[0]
        return answer

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, headers=headers)

    def post(self, path: str, body: Any = None, **headers: str) -> Answer:
        return self.ask("POST", path, body, headers)

    def delete(self, path: str, **headers: str) -> Answer:
        return self.ask("DELETE", path, headers=headers)

    def upload(self, name: str, body: Any, content_type: str = "text/csv") -> Answer:
        return self.post(f"/api/jobs/{name}", body, **{"Content-Type": content_type})

    @property
    def jobs(self) -> list[str]:
        """The ids of the user's jobs, the newest first."""
        answer = self.list_jobs()
        assert answer.status == 200, answer.body
        return [job["job_id"] for job in answer.json["jobs"]]

    def wait_for_jobs(self, ids: Sequence[str]) -> None:
        """Wait until the list has these jobs, the newest first."""

        def has_jobs() -> bool:
            answer = self.list_jobs()
            # The server may be reconnecting to its transport, or limit the requests.
            return answer.status == 200 and [job["job_id"] for job in answer.json["jobs"]] == ids

        wait_for(has_jobs, f"the list {ids}")

    def list_jobs(self) -> Answer:
        return self.get("/jobs?feed=mine", Authorization=f"Bearer {self.token}")

    @property
    def token(self) -> str:
        return str(self.post("/api/token").json["token"])
