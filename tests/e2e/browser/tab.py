"""A browser tab that shows the console."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import ConsoleMessage, Locator, Page, WebSocket, expect

from tests.support import TIMEOUT

expect.set_options(timeout=1000 * TIMEOUT)


class Tab:
    """A tab. It records the errors and warnings that the page logs."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.problems: list[str] = []
        self.sockets: list[WebSocket] = []
        self._allowed: list[re.Pattern[str]] = []
        page.set_default_timeout(1000 * TIMEOUT)
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.problems.append(f"uncaught: {error}"))
        page.on("websocket", lambda socket: self.sockets.append(socket))

    def allow_message(self, pattern: str) -> None:
        """Allow errors and warnings that match a pattern."""
        self._allowed.append(re.compile(pattern))

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not any(
            pattern.search(message.text) for pattern in self._allowed
        ):
            self.problems.append(f"{message.type}: {message.text} ({message.location['url']})")

    def open(self, path: str = "/") -> None:
        self.page.goto(self.url + path)

    def sign_in(self, user: str) -> None:
        form = self.page.get_by_role("form", name="Sign in")
        form.get_by_label("Name").fill(user)
        form.get_by_role("button", name="Sign in").click()
        expect(self.page.locator(".console")).to_be_visible()

    def go(self, job_id: str) -> Locator:
        """Open a job's page."""
        self.page.goto(f"{self.url}/#/jobs/{job_id}")
        return self.job(job_id)

    def job(self, job_id: str) -> Locator:
        return self.page.locator(f'article[data-job-id="{job_id}"]')

    def row(self, job_id: str) -> Locator:
        return self.page.locator(f'li[data-job-id="{job_id}"]')

    def expect_status(self, job_id: str, status: str) -> None:
        expect(self.job(job_id)).to_have_attribute("data-status", status)

    def expect_connection(self, state: str = "connected") -> None:
        expect(self.page.locator(".console")).to_have_attribute("data-connection", state)

    @property
    def status_panel(self) -> Locator:
        """The panel with the job's status in one sentence."""
        return self.page.get_by_role("region", name="State")

    @property
    def bar(self) -> Locator:
        return self.page.locator("article").get_by_role("progressbar")

    @property
    def log(self) -> Locator:
        return self.page.get_by_role("log", name="Log lines")

    def downloaded_log(self, directory: Path) -> list[str]:
        """Download the log and return its lines."""
        with self.page.expect_download() as download:
            self.page.get_by_role("button", name="Download").click()
        path = directory / "downloaded.log"
        download.value.save_as(path)
        return path.read_text().splitlines()

    def start(self, name: str) -> str:
        """Start a sample task on the page and return the job's id."""
        if self.page.locator(".start").count() == 0:
            self.page.get_by_role("link", name="Start a job").click()
        return self.start_with(lambda: self.page.get_by_role("button", name=name).click())

    def start_with(self, act: Callable[[], Any]) -> str:
        """Start a job by an action on the page and return the job's id."""
        with self.page.expect_response(
            lambda response: "/api/jobs/" in response.url and response.request.method == "POST"
        ) as answer:
            act()
        job_id: str = answer.value.json()["job_id"]
        return job_id
