"""The security headers of the console's page."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse

from jobcast.console.headers import SecurityHeaders


async def response_headers(host: bytes) -> Headers:
    """Return the headers of a response to a request for this host."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"host", host)]}
    await SecurityHeaders(PlainTextResponse("page"))(scope, receive, send)
    return Headers(raw=sent[0]["headers"])


async def test_policy_allows_websockets_of_the_requested_host() -> None:
    headers = await response_headers(b"jobs.example.com:8443")
    assert "connect-src 'self' ws://jobs.example.com:8443 " in headers["Content-Security-Policy"]
    assert headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("host", [b"", b"x; script-src *", b"x *", b"[::1", b"x:y"])
async def test_request_cannot_add_to_the_policy(host: bytes) -> None:
    policy = (await response_headers(host))["Content-Security-Policy"]
    assert "connect-src 'self' ws://localhost wss://localhost;" in policy
