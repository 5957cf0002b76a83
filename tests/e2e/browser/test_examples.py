"""The pages of client/examples, which people copy: served from elsewhere than the server."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Browser, expect

from tests import jobs
from tests.conftest import Valkey
from tests.e2e.browser.tab import Tab
from tests.support import ROOT, Server, Worker, running

CLIENT = ROOT / "client"


class Page:
    """A copy of an example, on a server of files."""

    def __init__(self, folder: Path, url: str, requests: list[str]) -> None:
        self.url = url
        self.requests = requests  # all that this server was asked for
        self._index = folder / "index.html"

    def use(self, server_url: str) -> None:
        """Name the jobcast server in the page, as its README says."""
        html = self._index.read_text()
        assert html.count(EMPTY) == 1
        self._index.write_text(html.replace(EMPTY, f'name="jobcast-server" content="{server_url}"'))


EMPTY = 'name="jobcast-server" content=""'


def install(example: str, folder: Path) -> None:
    """Copy a page to where ``npm install @jobcast/client`` has been."""
    if example == "react":
        built = CLIENT / "examples" / "react" / "dist"
        assert (built / "index.html").exists(), "make pytest builds it"
        shutil.copytree(built, folder)
        return
    shutil.copytree(CLIENT / "examples" / "plain", folder)
    for package in ("@jobcast/client", "socket.io-client"):
        source = CLIENT if package == "@jobcast/client" else CLIENT / "node_modules" / package
        target = folder / "node_modules" / package
        target.mkdir(parents=True)
        (target / "dist").symlink_to(source / "dist")


@contextmanager
def serving(folder: Path) -> Iterator[Page]:
    requests: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_request(self, *_: object) -> None:
            requests.append(self.path)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield Page(folder, f"http://127.0.0.1:{server.server_port}", requests)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(params=["plain", "react"])
def page(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Page]:
    install(request.param, tmp_path / "page")
    with serving(tmp_path / "page") as page:
        yield page


def test_the_page_follows_a_job_to_its_end(
    browser: Browser, page: Page, tmp_path: Path, valkey: Valkey, worker: Worker,
    send: Callable[..., str], token: Callable[..., str], gate: Path,
) -> None:  # fmt: skip
    job_id = send(worker, jobs.count, 4, str(gate), owner="alice")
    log_path = tmp_path / "server.log"
    with running(Server(log_path, valkey.url, {"JOBCAST_CORS_ORIGINS": page.url})) as server:
        page.use(server.ready().url)
        tab = Tab(browser.new_page(), page.url)
        query = {"job": job_id, "token": token("alice")}
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
    browser: Browser, page: Page, tmp_path: Path, valkey: Valkey, token: Callable[..., str]
) -> None:
    log_path = tmp_path / "server.log"
    with running(Server(log_path, valkey.url, {"JOBCAST_CORS_ORIGINS": page.url})) as server:
        page.use(server.ready().url)
        tab = Tab(browser.new_page(), page.url)
        query = {"job": "of-somebody-else", "token": token("alice")}
        tab.open(f"/?{urlencode(query)}")
        expect(tab.page.locator("#status")).to_contain_text("not yours to follow")
        tab.page.close()
    assert tab.problems == []


def test_the_page_sends_a_token_to_no_server_that_its_address_names(
    browser: Browser, page: Page, tmp_path: Path, valkey: Valkey, token: Callable[..., str]
) -> None:
    log_path = tmp_path / "server.log"
    (tmp_path / "elsewhere").mkdir()
    with (
        running(Server(log_path, valkey.url, {"JOBCAST_CORS_ORIGINS": page.url})) as server,
        serving(tmp_path / "elsewhere") as elsewhere,
    ):
        page.use(server.ready().url)
        tab = Tab(browser.new_page(), page.url)
        query = {"url": elsewhere.url, "job": "of-somebody-else", "token": token("alice")}
        tab.open(f"/?{urlencode(query)}")
        expect(tab.page.locator("#status")).to_contain_text("not yours to follow")
        tab.page.close()
    assert elsewhere.requests == []


def test_the_page_says_that_its_origin_is_refused(
    browser: Browser, page: Page, tmp_path: Path, valkey: Valkey, token: Callable[..., str]
) -> None:
    """The browser hides the status of a WebSocket's handshake; the client asks for it."""
    with running(Server(tmp_path / "server.log", valkey.url)) as server:
        page.use(server.ready().url)
        tab = Tab(browser.new_page(), page.url)
        tab.expects(r"WebSocket connection .* failed|status of 403")
        query = {"job": "any", "token": token("alice")}
        tab.open(f"/?{urlencode(query)}")
        expect(tab.page.get_by_role("status")).to_have_text(
            "refused (403): is this page's origin allowed?"
        )
        tab.page.close()
        assert f"refused a page of the origin '{page.url}'" in server.log
    assert tab.problems == []


def test_the_page_says_that_the_path_is_wrong(
    browser: Browser, page: Page, tmp_path: Path, valkey: Valkey, token: Callable[..., str]
) -> None:
    with running(Server(tmp_path / "server.log", valkey.url)) as server:
        page.use(f"{server.ready().url}/wrong")
        tab = Tab(browser.new_page(), page.url)
        tab.expects(r"WebSocket connection .* failed|status of 404")
        query = {"job": "any", "token": token("alice")}
        tab.open(f"/?{urlencode(query)}")
        expect(tab.page.get_by_role("status")).to_contain_text("(404): is the url right?")
        tab.page.close()
    assert tab.problems == []
