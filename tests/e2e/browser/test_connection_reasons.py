"""Pages that a proxy or a server keeps from connecting. They show the reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Browser, expect

from tests.conftest import Valkey
from tests.e2e.browser.tab import Tab
from tests.e2e.browser.test_examples import install, serving
from tests.e2e.test_proxies import nginx
from tests.support import SLOW_DRAIN, Server, answers, free_port, running

UPGRADE = 'proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";'
HOST = "proxy_set_header Host $http_host;"
SITE = """
server {{
    listen 80;
    location / {{ proxy_pass {page}; }}
    location /socket.io/ {{
        proxy_pass http://127.0.0.1:8000;
        proxy_http_version 1.1;
        {headers}
    }}
}}
"""


@contextmanager
def page_behind_nginx(headers: str, server: Server, folder: Path) -> Iterator[str]:
    """Serve a page and a server from one origin."""
    with running(server):
        install("plain", folder / "page")
        (folder / "nginx").mkdir()
        with serving(folder / "page") as page:
            site = SITE.format(page=page.url, headers=headers)
            with running(nginx(site, free_port(), server.port, folder / "nginx")) as proxy:
                server.ready()
                proxy.expect(lambda: answers(f"{proxy.url}/index.html"), "page through the proxy")
                yield proxy.url


def assert_shows(reason: str, browser: Browser, url: str, token: str, statuses: str) -> None:
    tab = Tab(browser.new_page(), url)
    tab.allow_message(rf"WebSocket connection .* failed|status of ({statuses})")
    tab.open(f"/?{urlencode({'job': 'any', 'token': token})}")
    expect(tab.page.get_by_role("status")).to_contain_text(reason)
    tab.page.close()
    assert tab.problems == []


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        pytest.param(UPGRADE, "JOBCAST_CORS_ORIGINS has to contain its origin", id="no host"),
        pytest.param(HOST, "has to forward WebSockets", id="no WebSocket"),
        pytest.param("", "JOBCAST_CORS_ORIGINS has to contain its origin", id="neither"),
    ],
)
def test_page_of_the_proxys_origin_shows_what_the_proxy_lacks(
    headers: str, reason: str, browser: Browser, tmp_path: Path, valkey: Valkey,
    token: Callable[..., str],
) -> None:  # fmt: skip
    server = Server(tmp_path / "server.log", valkey.url)
    with page_behind_nginx(headers, server, tmp_path) as url:
        assert_shows(reason, browser, url, token("alice"), "400|403")


def test_page_shows_that_the_server_is_about_to_exit(
    browser: Browser, tmp_path: Path, valkey: Valkey, token: Callable[..., str]
) -> None:
    server = Server(tmp_path / "server.log", valkey.url, app=SLOW_DRAIN)
    with page_behind_nginx(f"{HOST} {UPGRADE}", server, tmp_path) as url:
        server.drain()
        assert_shows("about to exit", browser, url, token("alice"), "503")
