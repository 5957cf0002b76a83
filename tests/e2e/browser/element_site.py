"""An application's site with pages that show jobs by the element ``<jobcast-job>``."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.support import ROOT

HTMX = ROOT / "client" / "node_modules" / "htmx.org" / "dist" / "htmx.min.js"
CSRF = "the page's secret"
# `style-src` allows nothing: the element styles itself without inline styles.
POLICY = (
    "default-src 'none'; script-src 'self' {server}; connect-src 'self' {server}; img-src data:;"
    " style-src 'none'"
)
PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="color-scheme" content="light dark">
<meta name="htmx-config" content='{{"includeIndicatorStyles": false, "allowEval": false}}'>
<title>Jobs</title>
<link rel="icon" href="data:,">
{scripts}
</head>
<body><main><h1>Jobs</h1>
{content}
</main></body>
</html>
"""


class Site:
    """A site on an origin of its own. It issues tokens to the page's user with ``POST /token``."""

    def __init__(self, url: str, issue: Callable[[], str | None]) -> None:
        self.url = url
        self.issue = issue  # returns a token; None if no user is signed in
        self.session: str | None = None  # the session cookie that the token endpoint requires
        self.token_requests = 0
        self.server_url = ""
        self._pages: dict[str, tuple[str, str]] = {}

    def page(self, content: str, *, scripts: str | None = None) -> str:
        """Add a page and return its URL. Without ``scripts`` it has the server's script."""
        return self.add("/", PAGE.format(scripts=scripts or self.script, content=content))

    @property
    def script(self) -> str:
        return f'<script src="{self.server_url}/jobcast.js" defer></script>'

    def add(self, path: str, html: str, media_type: str = "text/html; charset=utf-8") -> str:
        """Add an answer to requests of a path, and return its URL."""
        self._pages[path] = (media_type, html)
        return self.url + path

    def element(self, job_id: str, attributes: str = "") -> str:
        """Return the element for a job, with the site's tokens."""
        return (
            f'<jobcast-job job-id="{job_id}" base-url="{self.server_url}" token-url="/token"'
            f' csrf-token="{CSRF}" {attributes}></jobcast-job>'
        )

    def answer(self, request: BaseHTTPRequestHandler) -> tuple[int, str, str]:
        """Return the status, the media type and the body for a request."""
        if request.path == "/token":
            return self._answer_token(request)
        if request.path not in self._pages:
            return 404, "text/plain", "nothing is here"
        return 200, *self._pages[request.path]

    def _answer_token(self, request: BaseHTTPRequestHandler) -> tuple[int, str, str]:
        self.token_requests += 1
        if request.command != "POST" or request.headers["X-CSRFToken"] != CSRF:
            return 400, "text/plain", "a token is requested with POST and the page's CSRF token"
        cookies = SimpleCookie(request.headers["Cookie"] or "")
        session = cookies["session"].value if "session" in cookies else None
        token = self.issue() if session == self.session else None
        return (200 if token else 401), "application/json", json.dumps({"token": token})


@contextmanager
def serving_site(issue: Callable[[], str | None]) -> Iterator[Site]:
    """Serve a site within the context."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, media_type, body = site.answer(self)
            data = body.encode()
            self.send_response(status)
            self.send_header("Content-Type", media_type)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Content-Security-Policy", POLICY.format(server=site.server_url))
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    site = Site(f"http://127.0.0.1:{server.server_port}", issue)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
