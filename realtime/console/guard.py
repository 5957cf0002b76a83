"""Checks of every request, and security headers for every response."""

import re
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from realtime.console import problems
from realtime.console.demonstration import is_loopback
from realtime.console.site import Site

HOST = re.compile(r"([A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\])(:\d{1,5})?")
# Headers that proxies add, in addition to those that begin with X-Forwarded-.
OF_A_PROXY = {"forwarded", "via", "x-real-ip"}
SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
# The page loads everything from its own origin. The WebSocket sources are listed for browsers in
# which 'self' does not include WebSockets.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    " font-src 'self'; connect-src 'self' ws://{host} wss://{host}; base-uri 'none';"
    " form-action 'self'; frame-ancestors 'none'"
)


class Guard:
    """Middleware that refuses cross-site requests and, in a demo, requests from other machines."""

    def __init__(self, app: ASGIApp, site: Site) -> None:
        self._app = app
        self._site = site

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope["jobcast.site"] = self._site
        headers = Headers(scope=scope)
        refusal = self._refusal(scope, headers)
        host = headers.get("host", "") if refusal is None else ""

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer = MutableHeaders(scope=message)
                answer.update(HEADERS)
                answer["Content-Security-Policy"] = POLICY.format(host=host or "localhost")
                answer.setdefault("Cache-Control", "no-store")
            await send(message)

        if refusal is None:
            await self._app(scope, receive, guarded)
        else:
            await problems.answer(403, *refusal)(scope, receive, guarded)

    def _refusal(self, scope: Scope, headers: Headers) -> tuple[str, str] | None:
        """Return the code and the message of a refusal; None if the request is allowed."""
        host = headers.get("host", "")
        if not HOST.fullmatch(host):
            return "wrong_host", "The request names no host."
        # A foreign host name may resolve to this machine (DNS rebinding): its pages could sign in.
        if self._site.is_demonstration and not (_is_here(scope, host) and _is_direct(headers)):
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
    return not any(name in OF_A_PROXY or name.startswith("x-forwarded-") for name in headers)


def _same_origin(headers: Headers, host: str) -> bool:
    """Return whether the request comes from our own page, or not from a browser.

    Clients other than browsers send neither ``Sec-Fetch-Site`` nor ``Origin``.
    """
    if headers.get("sec-fetch-site", "same-origin") != "same-origin":
        return False
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc.lower() == host.lower()
