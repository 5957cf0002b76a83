"""The console while its server, or the store of the server, does not answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, expect

from tests.conftest import Valkey
from tests.e2e.browser.tab import Tab
from tests.support import SLOW_DRAIN, Server, running

Token = Callable[..., str]
OpenTab = Callable[..., Tab]


@pytest.fixture
def server(tmp_path: Path, own_valkey: Valkey) -> Iterator[Server]:
    env = {"JOBCAST_CONSOLE": "/console"}
    server = Server(tmp_path / "server.log", own_valkey.url, env, app=SLOW_DRAIN)
    with running(server):
        yield server.ready()


@pytest.fixture
def open_tab(browser: Browser, server: Server, token: Token) -> Iterator[OpenTab]:
    """Open the console with a token. The browser logs each attempt to connect that fails."""
    contexts = []

    def open_tab(user: str, path: str = "/", **options: Any) -> Tab:
        context = browser.new_context(**options)
        contexts.append(context)
        tab = Tab(context.new_page(), f"{server.url}/console")
        tab.page.add_init_script(f"sessionStorage.setItem('jobcast.token', '{token(user)}')")
        tab.open(path)
        return tab

    yield open_tab
    for context in contexts:
        context.close()


def test_list_that_has_not_arrived_tells_why_and_recovers(
    server: Server, own_valkey: Valkey, open_tab: OpenTab
) -> None:
    own_valkey.kill()
    tab = open_tab("ada")
    pane = tab.page.get_by_role("navigation", name="Jobs")
    expect(pane.get_by_role("status")).to_have_text(
        "The server cannot list the jobs at the moment. Trying again…"
    )
    server.kill()
    expect(pane.get_by_role("status")).to_have_text(
        "The page is not connected to the server. Trying again…"
    )
    own_valkey.start()
    own_valkey.ready()
    server.start()
    expect(pane).to_contain_text("No jobs yet.")
    tab.expect_connection()


def test_job_that_has_not_arrived_tells_why_and_recovers(
    server: Server, own_valkey: Valkey, open_tab: OpenTab
) -> None:
    own_valkey.kill()
    tab = open_tab("ada", "/#/jobs/42")
    state = tab.status_panel.get_by_role("heading")
    expect(state).to_have_text("Loading…")
    tab.expect_connection()
    server.kill()
    expect(state).to_have_text("The page is not connected to the server")
    own_valkey.start()
    own_valkey.ready()
    server.start()
    expect(state).to_have_text("Job not found")


@pytest.mark.parametrize("width", [320, 375])
@pytest.mark.parametrize("user", ["ada", "ada.lovelace@example.com"])
def test_header_of_a_phone_has_room_for_the_user_and_the_status(
    server: Server, open_tab: OpenTab, user: str, width: int
) -> None:
    tab = open_tab(user, viewport={"width": width, "height": 740})
    tab.expect_connection()
    server.kill()
    tab.expect_connection("reconnecting")
    banner = tab.page.get_by_role("region", name="Connection")
    expect(banner).to_contain_text(re.compile(r"\d attempts so far"))
    name = tab.page.get_by_text(user, exact=True)
    expect(name).to_be_in_viewport(ratio=1)
    assert is_whole(name)
    status = tab.page.locator(".connection-status")
    expect(status).to_contain_text("Reconnecting")
    expect(status).to_be_in_viewport(ratio=1)
    assert is_whole(status)
    expect(tab.page.get_by_role("button", name="Sign out")).to_be_in_viewport(ratio=1)
    assert tab.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_console_of_a_server_that_is_about_to_exit_tells_so(
    server: Server, open_tab: OpenTab
) -> None:
    server.drain()
    tab = open_tab("ada")
    banner = tab.page.get_by_role("region", name="Connection")
    expect(banner).to_contain_text("The server accepts no connection now.")
    expect(banner).to_contain_text("about to exit")


def is_whole(text: Locator) -> bool:
    """Return whether no part of a text is cut off."""
    whole: bool = text.evaluate(
        "(it) => it.scrollWidth <= it.clientWidth && it.scrollHeight <= it.clientHeight"
    )
    return whole
