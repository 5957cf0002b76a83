"""Checks of every request: it comes from this machine, and from the site's own page."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from jobcast.console.headers import HOST
from jobcast.demo.web import problems
from jobcast.demo.web.loopback import is_loopback
from jobcast.demo.web.site import Site

# Headers that proxies add, in addition to those that begin with X-Forwarded-.
PROXY_HEADERS: Final = frozenset({"forwarded", "via", "x-real-ip"})
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class Guard:
    """Middleware that refuses cross-site requests and requests from other machines."""

    def __init__(self, app: ASGIApp, site: Site) -> None:
        self._app = app
        self._site = site

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            refusal = _refusal(scope, Headers(scope=scope))
            if refusal is not None:
                await problems.answer(403, *refusal)(scope, receive, send)
                return
            scope["jobcast.site"] = self._site
        await self._app(scope, receive, send)


def _refusal(scope: Scope, headers: Headers) -> tuple[str, str] | None:
    """Return the code and the message of a refusal; None if the request is allowed."""
    host = headers.get("host", "")
    if not HOST.fullmatch(host):
        return "wrong_host", "The request names no host."
    # A foreign host name may resolve to this machine (DNS rebinding): its pages could sign in.
    if not (_is_here(scope, host) and _is_direct(headers)):
        return "wrong_host", "The demonstration is for this machine alone: use http://127.0.0.1"
    if scope["method"] not in SAFE_METHODS and not _same_origin(headers, host):
        return "cross_site", "This was sent by the page of another site."
    return None


def _is_here(scope: Scope, host: str) -> bool:
    name = urlsplit(f"//{host}").hostname
    ends = [scope.get("client"), scope.get("server")]
    return is_loopback(name) and all(end is not None and is_loopback(end[0]) for end in ends)


def _is_direct(headers: Headers) -> bool:
    """Return whether no proxy forwarded the request. A proxy without headers goes undetected."""
    return not any(name in PROXY_HEADERS or name.startswith("x-forwarded-") for name in headers)


def _same_origin(headers: Headers, host: str) -> bool:
    """Return whether the request comes from our own page, or not from a browser.

    Clients other than browsers send neither ``Sec-Fetch-Site`` nor ``Origin``.
    """
    if headers.get("sec-fetch-site", "same-origin") != "same-origin":
        return False
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc.lower() == host.lower()
