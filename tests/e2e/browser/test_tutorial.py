"""The tutorial, followed step by step: its files, its commands, and its page in Chromium."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import metadata
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.e2e.documented import Page as Tutorial
from tests.support import ROOT, TIMEOUT, Process, answers, free_port, running

TUTORIAL = Tutorial("docs/tutorial/first-progress-bar.md")
INSTALL, VALKEY, WORKER, SERVE, WATCH = TUTORIAL.code_blocks("sh")
(HTML,) = TUTORIAL.code_blocks("html")

CDN = "https://cdn.jsdelivr.net/npm/socket.io-client@4/dist/"
PACKAGE = ROOT / "client" / "node_modules" / "socket.io-client" / "dist"


class Reader:
    """A reader of the tutorial, with a folder and unused ports."""

    def __init__(self, folder: Path) -> None:
        folder_line, make_environment, activate, install = INSTALL.splitlines()
        subprocess.run(["bash", "-c", folder_line], cwd=folder, check=True)
        self.folder = folder / "pages"
        # The environment of the tests replaces these commands: it has the package and its extras.
        assert make_environment == "python3 -m venv .venv"
        assert activate == ". .venv/bin/activate"
        assert install == "pip install 'jobcast[all]'"
        assert "all" in (metadata("jobcast").get_all("Provides-Extra") or ())
        (self.folder / ".venv").symlink_to(sys.prefix)
        self.valkey_port, self.port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        for name, code in {**TUTORIAL.modules, "index.html": HTML}.items():
            (self.folder / name).write_text(self._with_ports(code))

    def enter(self, commands: str) -> Process:
        """Type commands into a new terminal."""
        env = {
            "JOBCAST_URL": f"redis://localhost:{self.valkey_port}/0",
            "JOBCAST_PORT": str(self.port),
        }
        commands = f"set -e\n{self._with_ports(commands)}"
        log = self.folder / f"terminal-{len(list(self.folder.glob('*.log')))}.log"
        return Process(["bash", "-c", commands], log, env, self.folder)

    def _with_ports(self, text: str) -> str:
        return text.replace("6379", str(self.valkey_port))

    def serve(self, commands: str) -> Process:
        server = self.enter(commands)
        server.expect(lambda: answers(f"{self.url}/readyz"), "ready server")
        return server


@contextmanager
def reading(folder: Path) -> Iterator[Reader]:
    """A reader with a Valkey server and a worker, as after the third step."""
    reader = Reader(folder)
    with (
        running(reader.enter(f". .venv/bin/activate\n{VALKEY}")) as valkey,
        running(reader.enter(WORKER)) as worker,
    ):
        worker.expect(lambda: " ready." in worker.log, "ready worker")
        assert valkey.popen.poll() is None
        yield reader


def open_page(browser: Browser, url: str) -> Page:
    page = browser.new_page(viewport={"width": 720, "height": 420})
    page.set_default_timeout(1000 * TIMEOUT)
    page.route(f"{CDN}**", _from_the_package)
    page.goto(url)
    return page


def _from_the_package(route: Route) -> None:
    route.fulfill(path=PACKAGE / route.request.url.removeprefix(CDN))


def wait_for_progress(page: Page, least: float) -> None:
    page.wait_for_function("least => document.querySelector('progress').value >= least", arg=least)


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    with reading(tmp_path) as reader:
        yield reader


def test_the_page_shows_a_job_that_survives_a_reload_and_a_restart(
    reader: Reader, browser: Browser
) -> None:
    server = reader.serve(SERVE)
    try:
        page = open_page(browser, reader.url)
        page.get_by_role("button", name="Convert").click()
        wait_for_progress(page, 5)
        page.reload()
        expect(page.locator("pre")).to_contain_text("page 0 is done")
        wait_for_progress(page, 10)
        job_id = page.url.partition("#")[2]
        server.stop()
        # The secret already exists.
        server = reader.serve("\n".join(li for li in SERVE.splitlines() if "openssl" not in li))
        expect(page.locator("p")).to_have_text("done: 100 pages")
        lines = page.locator("pre").inner_text().split("\n")
        assert [line for line in lines if line] == [f"page {n} is done" for n in range(99, -1, -1)]
        with running(
            reader.enter(f"JOB_ID={job_id}\n{WATCH.rstrip()} --url {reader.url}")
        ) as watch:
            assert watch.popen.wait(TIMEOUT) == 0, watch.log
            assert "page 99 is done" in watch.log
        page.close()
    finally:
        server.kill()
