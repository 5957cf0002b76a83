"""Pages behind a proxy that does not forward what the server needs. They show the reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Browser, expect

from tests.conftest import Valkey
from tests.e2e.browser.tab import Tab
from tests.e2e.browser.test_examples import install, serving
from tests.e2e.test_proxies import nginx
from tests.support import Server, answers, free_port, running

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
    install("plain", tmp_path / "page")
    folder = tmp_path / "nginx"
    folder.mkdir()
    with (
        serving(tmp_path / "page") as page,
        running(Server(tmp_path / "server.log", valkey.url)) as server,
        running(
            nginx(SITE.format(page=page.url, headers=headers), free_port(), server.port, folder)
        ) as proxy,
    ):
        server.ready()
        proxy.expect(lambda: answers(f"{proxy.url}/index.html"), "page through the proxy")
        tab = Tab(browser.new_page(), proxy.url)
        tab.allow_message(r"WebSocket connection .* failed|status of 40[03]")
        tab.open(f"/?{urlencode({'job': 'any', 'token': token('alice')})}")
        expect(tab.page.get_by_role("status")).to_contain_text(reason)
        tab.page.close()
    assert tab.problems == []
