"""The pages of client/examples, which people copy: served from elsewhere than the server."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Browser, expect

from tests import jobs
from tests.conftest import Valkey
from tests.e2e.browser.tab import Tab
from tests.support import ROOT, Server, Worker, running

CLIENT = ROOT / "client"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None: ...


def installed(directory: Path) -> Path:
    """The plain page, where ``npm install @jobcast/client`` has been."""
    for path in (CLIENT / "examples" / "plain").iterdir():
        (directory / path.name).write_bytes(path.read_bytes())
    for package in ("@jobcast/client", "socket.io-client"):
        source = CLIENT if package == "@jobcast/client" else CLIENT / "node_modules" / package
        target = directory / "node_modules" / package
        target.mkdir(parents=True)
        (target / "dist").symlink_to(source / "dist")
    return directory


@pytest.fixture(params=["plain", "react"])
def page_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The page, on a server of files."""
    react = CLIENT / "examples" / "react" / "dist"
    folder = react if request.param == "react" else installed(tmp_path)
    assert (folder / "index.html").exists(), "make pytest builds it"
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_page_follows_a_job_to_its_end(
    browser: Browser, page_url: str, tmp_path: Path, valkey: Valkey, worker: Worker,
    send: Callable[..., str], token: Callable[..., str], gate: Path,
) -> None:  # fmt: skip
    job_id = send(worker, jobs.count, 4, str(gate), owner="alice")
    log_path = tmp_path / "server.log"
    with running(Server(log_path, valkey.url, {"JOBCAST_CORS_ORIGINS": page_url})) as server:
        server.ready()
        tab = Tab(browser.new_page(), page_url)
        query = {"url": server.url, "job": job_id, "token": token("alice")}
        tab.open(f"/?{urlencode(query)}")
        expect(tab.page.locator("#status")).to_have_text("started")
        expect(tab.page.get_by_role("progressbar")).to_have_attribute("value", "50")
        expect(tab.page.locator("#logs")).to_contain_text("info: step 2")
        gate.touch()
        expect(tab.page.locator("#status")).to_have_text("complete")
        expect(tab.page.locator("#result")).to_have_text('{"steps":4}')
        expect(tab.page.get_by_role("status")).to_be_empty()
        tab.page.close()
    assert tab.problems == []


def test_the_page_says_that_a_job_is_refused(
    browser: Browser, page_url: str, tmp_path: Path, valkey: Valkey, token: Callable[..., str]
) -> None:
    log_path = tmp_path / "server.log"
    with running(Server(log_path, valkey.url, {"JOBCAST_CORS_ORIGINS": page_url})) as server:
        server.ready()
        tab = Tab(browser.new_page(), page_url)
        query = {"url": server.url, "job": "of-somebody-else", "token": token("alice")}
        tab.open(f"/?{urlencode(query)}")
        expect(tab.page.locator("#status")).to_contain_text("not yours to follow")
        tab.page.close()
    assert tab.problems == []


def test_the_page_says_that_its_origin_is_refused(
    browser: Browser, page_url: str, tmp_path: Path, valkey: Valkey, token: Callable[..., str]
) -> None:
    """The browser hides the status of a WebSocket's handshake; the client asks for it."""
    with running(Server(tmp_path / "server.log", valkey.url)) as server:
        server.ready()
        tab = Tab(browser.new_page(), page_url)
        tab.expects(r"WebSocket connection .* failed|status of 403")
        query = {"url": server.url, "job": "any", "token": token("alice")}
        tab.open(f"/?{urlencode(query)}")
        expect(tab.page.get_by_role("status")).to_have_text(
            "refused (403): is this page's origin allowed?"
        )
        tab.page.close()
        assert f"refused a page of the origin '{page_url}'" in server.log
    assert tab.problems == []


def test_the_page_says_that_the_path_is_wrong(
    browser: Browser, page_url: str, tmp_path: Path, valkey: Valkey, token: Callable[..., str]
) -> None:
    with running(Server(tmp_path / "server.log", valkey.url)) as server:
        server.ready()
        tab = Tab(browser.new_page(), page_url)
        tab.expects(r"WebSocket connection .* failed|status of 404")
        query = {"url": f"{server.url}/wrong", "job": "any", "token": token("alice")}
        tab.open(f"/?{urlencode(query)}")
        expect(tab.page.get_by_role("status")).to_contain_text("(404): is the url right?")
        tab.page.close()
    assert tab.problems == []
