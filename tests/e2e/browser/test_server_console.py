"""The console of a server in a browser: the sign-in with a token, and with a session."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests import jobs
from tests.conftest import Valkey
from tests.e2e.browser.tab import Tab
from tests.support import SHORT_LIVED, Server, Worker, answers, running

Send = Callable[..., str]
Token = Callable[..., str]

PATH = "/app/ops/jobs/"
ENV = {
    "JOBCAST_PATH_PREFIX": "/app",
    "JOBCAST_CONSOLE": "/ops/jobs",
    "JOBCAST_AUTHENTICATE": "tests.http_application:user_of",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, valkey: Valkey) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("server") / "log"
    with running(Server(log, valkey.url, ENV)) as server:
        server.expect(lambda: answers(f"{server.url}/app/readyz"), "response of /readyz")
        yield server


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory, valkey: Valkey) -> Iterator[Worker]:
    log = tmp_path_factory.mktemp("worker") / "log"
    with running(Worker(log, valkey.url, valkey.url, "-c", "2")) as worker:
        yield worker.ready()


@pytest.fixture
def tab(browser: Browser, server: Server) -> Iterator[Tab]:
    """The console, without a user. Fail if it logs an error or a warning."""
    context = browser.new_context()
    tab = Tab(context.new_page(), f"{server.url}{PATH.rstrip('/')}")
    tab.allow_message("status of 401")
    tab.open()
    expect(tab.page.get_by_role("heading", name="You are not signed in")).to_be_visible()
    yield tab
    context.close()
    assert tab.problems == []


def test_user_of_the_application_needs_no_token(
    tab: Tab, server: Server, worker: Worker, send: Send, gate: Path
) -> None:
    job_id = send(worker, jobs.count, 10, str(gate), owner="ada")
    expect(tab.page.get_by_role("main")).to_contain_text("Sign in to the application")
    tab.page.context.add_cookies([{"name": "session", "value": "ada", "url": server.url}])
    tab.page.get_by_role("button", name="Try again").click()
    expect(tab.page.get_by_role("banner")).to_contain_text("ada")
    expect(tab.page.get_by_role("banner")).not_to_contain_text("Demonstration")
    expect(tab.page.get_by_role("button", name="Sign out")).to_have_count(0)
    expect(tab.page.get_by_role("link", name="Start a job")).to_have_count(0)
    tab.go(job_id)
    expect(tab.bar).to_have_attribute("aria-valuenow", "50")
    gate.touch()
    tab.expect_status(job_id, "complete")
    assert [socket.url.partition("?")[0] for socket in tab.sockets] == [
        f"{server.url.replace('http', 'ws')}/app/socket.io/"
    ]


def test_token_is_checked_and_stays_in_the_tab(
    tab: Tab, worker: Worker, send: Send, token: Token, gate: Path
) -> None:
    job_id = send(worker, jobs.count, 10, str(gate), owner="ada")
    field = tab.page.get_by_label("Token")
    field.fill(token("ada", ttl=-60))
    field.press("Enter")
    expect(tab.page.get_by_role("alert")).to_contain_text("expired")
    field.fill(token("ada"))
    field.press("Enter")
    expect(tab.page.get_by_role("banner")).to_contain_text("ada")
    tab.go(job_id)
    expect(tab.bar).to_have_attribute("aria-valuenow", "50")
    tab.page.reload()
    expect(tab.bar).to_have_attribute("aria-valuenow", "50")
    gate.touch()
    tab.expect_status(job_id, "complete")
    assert tab.page.evaluate("Object.values(localStorage).join()").count("eyJ") == 0
    assert tab.page.context.cookies() == []
    tab.page.get_by_role("button", name="Sign out").click()
    expect(field).to_be_visible()
    assert tab.page.evaluate("sessionStorage.length") == 0
    tab.page.reload()
    expect(field).to_be_visible()


def test_expired_token_leads_back_to_the_sign_in_and_to_the_same_job(
    tab: Tab, worker: Worker, send: Send, token: Token, gate: Path
) -> None:
    job_id = send(worker, jobs.count, 10, str(gate), owner="ada")
    tab.allow_message("WebSocket")
    field = tab.page.get_by_label("Token")
    field.fill(token("ada", ttl=2 * SHORT_LIVED))
    field.press("Enter")
    tab.go(job_id)
    expect(tab.bar).to_have_attribute("aria-valuenow", "50")
    expect(tab.page.get_by_role("heading", name="Your session has ended")).to_be_visible()
    field.fill(token("ada"))
    field.press("Enter")
    expect(tab.bar).to_have_attribute("aria-valuenow", "50")
    gate.touch()
    tab.expect_status(job_id, "complete")
