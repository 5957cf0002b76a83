"""The pages of client/examples, served from another origin than the jobcast server."""

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
from tests.support import ROOT, Server, Worker, new_id, running

CLIENT = ROOT / "client"


class Page:
    """A copy of an example, on a static file server."""

    def __init__(self, folder: Path, url: str, requests: list[str]) -> None:
        self.url = url
        self.requests = requests  # the paths of all requests to this server
        self._index = folder / "index.html"

    def use(self, server_url: str) -> None:
        """Set the URL of the jobcast server in the page, as its README describes."""
        html = self._index.read_text()
        assert html.count(EMPTY) == 1
        self._index.write_text(html.replace(EMPTY, f'name="jobcast-server" content="{server_url}"'))


EMPTY = 'name="jobcast-server" content=""'


def install(example: str, folder: Path) -> None:
    """Copy an example into a folder, together with the packages it imports."""
    if example == "react":
        built = CLIENT / "examples" / "react" / "dist"
        assert (built / "index.html").exists(), "run make pytest, which builds the example"
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


def test_the_react_page_lists_the_jobs_of_the_user_live(
    browser: Browser, tmp_path: Path, valkey: Valkey, worker: Worker,
    send: Callable[..., str], token: Callable[..., str], gate: Path,
) -> None:  # fmt: skip
    install("react", tmp_path / "page")
    owner = new_id("owner")
    job_id = send(worker, jobs.count, 4, str(gate), owner=owner)
    with (
        serving(tmp_path / "page") as page,
        running(
            Server(tmp_path / "server.log", valkey.url, {"JOBCAST_CORS_ORIGINS": page.url})
        ) as server,
    ):
        page.use(server.ready().url)
        tab = Tab(browser.new_page(), page.url)
        tab.open(f"/?{urlencode({'token': token(owner)})}")
        rows = tab.page.locator("#jobs li")
        expect(rows).to_have_count(1)
        expect(rows.get_by_role("progressbar")).to_have_attribute("value", "50")
        send(worker, jobs.fail, "no such row", owner=owner)
        expect(rows).to_have_count(2)
        expect(rows.first).to_contain_text("error")
        gate.touch()
        expect(rows.last).to_contain_text("complete")
        expect(tab.page.get_by_role("status")).to_have_text("2 jobs")
        rows.last.get_by_role("link").click()
        expect(tab.page.locator("#result")).to_have_text('{"steps":4}')
        assert job_id in tab.page.url
        tab.page.close()
    assert tab.problems == []


def test_the_page_shows_the_refusal_of_a_job(
    browser: Browser, page: Page, tmp_path: Path, valkey: Valkey, token: Callable[..., str]
) -> None:
    log_path = tmp_path / "server.log"
    with running(Server(log_path, valkey.url, {"JOBCAST_CORS_ORIGINS": page.url})) as server:
        page.use(server.ready().url)
        tab = Tab(browser.new_page(), page.url)
        query = {"job": "of-another-user", "token": token("alice")}
        tab.open(f"/?{urlencode(query)}")
        expect(tab.page.locator("#status")).to_contain_text("you may not follow it")
        tab.page.close()
    assert tab.problems == []


def test_the_page_ignores_a_server_url_in_its_address(
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
        query = {"url": elsewhere.url, "job": "of-another-user", "token": token("alice")}
        tab.open(f"/?{urlencode(query)}")
        expect(tab.page.locator("#status")).to_contain_text("you may not follow it")
        tab.page.close()
    assert elsewhere.requests == []


def test_the_page_shows_that_its_origin_is_refused(
    browser: Browser, page: Page, tmp_path: Path, valkey: Valkey, token: Callable[..., str]
) -> None:
    """The browser hides the status of the WebSocket handshake; the client probes for it."""
    with running(Server(tmp_path / "server.log", valkey.url)) as server:
        page.use(server.ready().url)
        tab = Tab(browser.new_page(), page.url)
        tab.allow_message(r"WebSocket connection .* failed|status of 403")
        query = {"job": "any", "token": token("alice")}
        tab.open(f"/?{urlencode(query)}")
        expect(tab.page.get_by_role("status")).to_contain_text("JOBCAST_CORS_ORIGINS")
        tab.page.close()
        refused = f"refused a page of the origin '{page.url}'"
        server.expect(lambda: refused in server.log, refused)
    assert tab.problems == []


def test_the_page_shows_that_the_path_is_wrong(
    browser: Browser, page: Page, tmp_path: Path, valkey: Valkey, token: Callable[..., str]
) -> None:
    with running(Server(tmp_path / "server.log", valkey.url)) as server:
        page.use(f"{server.ready().url}/wrong")
        tab = Tab(browser.new_page(), page.url)
        tab.allow_message(r"WebSocket connection .* failed|status of 404")
        query = {"job": "any", "token": token("alice")}
        tab.open(f"/?{urlencode(query)}")
        expect(tab.page.get_by_role("status")).to_contain_text("(404): check the url option")
        tab.page.close()
    assert tab.problems == []
