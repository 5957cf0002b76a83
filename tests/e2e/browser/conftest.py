"""Chromium, the demo's site, and a real worker."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

from tasks.samples import make_samples
from tests.conftest import Valkey
from tests.e2e.browser.tab import Tab
from tests.support import Worker, running
from tests.support.console import Console, make_demo

SAMPLES = "tasks.checksums,tasks.people,tasks.thumbnails,tasks.flaky,tasks.broken"
HISTORY = {"JOBCAST_HISTORY_SIZE": "20000"}
# Without these options Chromium contacts Google's servers at each start.
QUIET = [
    "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-gpu",
]  # fmt: skip


Launch = Callable[..., AbstractContextManager[Browser]]


# Module scope, because Playwright's event loop would conflict with those of other tests.
@pytest.fixture(scope="module")
def launch() -> Iterator[Launch]:
    """Start a browser: ``with launch("--an-option") as browser``."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    assert chromium, "install Debian's chromium"
    with sync_playwright() as playwright:

        @contextmanager
        def launch(*options: str) -> Iterator[Browser]:
            browser = playwright.chromium.launch(
                executable_path=chromium, args=["--no-sandbox", *QUIET, *options]
            )
            yield browser
            browser.close()

        yield launch


@pytest.fixture(scope="module")
def browser(launch: Launch) -> Iterator[Browser]:
    with launch() as browser:
        yield browser


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory, valkey: Valkey) -> Iterator[Console]:
    """A server with the console's page in the package. ``make console`` builds it."""
    directory = tmp_path_factory.mktemp("site")
    demo = make_demo(directory / "demo")
    make_samples(demo / "samples")
    env = {"JOBCAST_METRICS": "1", **HISTORY}
    with running(Console(directory / "console.log", valkey.url, demo, env)) as console:
        yield console.ready()


@pytest.fixture(scope="module")
def sample_worker(
    tmp_path_factory: pytest.TempPathFactory, console: Console, valkey: Valkey
) -> Iterator[Worker]:
    """A worker with the sample tasks and the test tasks, on the console's queue."""
    log_path = tmp_path_factory.mktemp("worker") / "worker.log"
    with running(
        Worker(
            log_path, valkey.url, valkey.url, "--concurrency=3", "--include", SAMPLES,
            env=HISTORY, name=console.queue,
        )
    ) as worker:  # fmt: skip
        yield worker.ready()


@pytest.fixture
def new_tab(browser: Browser, console: Console) -> Iterator[Callable[..., Tab]]:
    """Open the console as a user: ``new_tab("ada")``. Fail if a tab logs an error or a warning."""
    tabs: list[Tab] = []

    def new_tab(user: str, path: str = "/", *, beside: Tab | None = None, **options: Any) -> Tab:
        url = options.pop("url", console.url)
        within: Browser = options.pop("within", browser)
        context = beside.page.context if beside else within.new_context(**options)
        tab = Tab(context.new_page(), url)
        tabs.append(tab)
        tab.open(path)
        if beside is None:
            tab.sign_in(user)
        return tab

    yield new_tab
    for tab in tabs:
        tab.page.context.close()
    assert [problem for tab in tabs for problem in tab.problems] == []


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """The path of a file that jobs wait for."""
    return tmp_path / "gate"
