"""Origin checks with the headers of various proxies."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from jobcast.errors import SettingsError
from jobcast.realtime.connection.origins import OriginGuard, Origins, normal_origin, own_origins
from jobcast.realtime.connection.refusals import SHOWN
from jobcast.settings import Settings

SECRET = "x" * 32


def origins(*listed: str, **changes: Any) -> Origins:
    return Origins(Settings(url="memory://", jwt_secret=SECRET, cors_origins=listed, **changes))


# For each proxy: the origin of a page of the server, the headers and the scheme of its request.
OWN = {
    "no proxy": ("http://127.0.0.1:8000", {"host": "127.0.0.1:8000"}, "ws"),
    "no proxy, long-polling": ("http://localhost:8000", {"host": "localhost:8000"}, "http"),
    "TLS in uvicorn": ("https://app.example", {"host": "app.example"}, "wss"),
    "Traefik": (
        "https://app.example",
        {
            "host": "app.example",
            "x-forwarded-host": "app.example",
            "x-forwarded-port": "443",
            "x-forwarded-proto": "wss",
        },
        "ws",
    ),
    "Traefik without TLS": (
        "http://app.example",
        {"host": "app.example", "x-forwarded-host": "app.example", "x-forwarded-proto": "ws"},
        "ws",
    ),
    "Traefik on another port": (
        "https://app.example:8443",
        {"host": "app.example:8443", "x-forwarded-port": "8443", "x-forwarded-proto": "wss"},
        "ws",
    ),
    "nginx with Host": (
        "https://app.example",
        {"host": "app.example", "x-forwarded-proto": "https"},
        "ws",
    ),
    "nginx with $host, without a port": (
        "https://app.example:8443",
        {"host": "app.example", "x-forwarded-port": "8443", "x-forwarded-proto": "https"},
        "ws",
    ),
    "nginx with X-Forwarded-Host only": (
        "https://app.example",
        {"host": "backend", "x-forwarded-host": "app.example", "x-forwarded-proto": "https"},
        "ws",
    ),
    "HAProxy without a scheme": ("https://app.example", {"host": "app.example"}, "ws"),
    "two proxies": (
        "https://app.example",
        {
            "host": "inner",
            "x-forwarded-host": "app.example, inner",
            "x-forwarded-proto": "https, http",
        },
        "ws",
    ),
    "a proxy that sends the default port": (
        "https://app.example",
        {"host": "app.example:443", "x-forwarded-proto": "wss"},
        "ws",
    ),
    "capital letters": ("https://app.example", {"host": "App.Example"}, "wss"),
    "IPv6": ("http://[::1]:8000", {"host": "[::1]:8000"}, "ws"),
    "nginx without Host, browser with Sec-Fetch-Site": (
        "https://app.example",
        {"host": "127.0.0.1:8000", "sec-fetch-site": "same-origin"},
        "ws",
    ),
}


@pytest.mark.parametrize("behind", OWN)
def test_page_of_own_origin_is_allowed(behind: str) -> None:
    origin, headers, scheme = OWN[behind]
    assert origins().allow(origin, headers, scheme)
    assert origins("https://other.example").allow(origin, headers, scheme)


@pytest.mark.parametrize("behind", OWN)
@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "https://app.example.evil.example", "null", "", "https://", "https"],
)
def test_page_of_another_origin_is_refused(behind: str, origin: str) -> None:
    _, headers, scheme = OWN[behind]
    sent = {name: value for name, value in headers.items() if name != "sec-fetch-site"}
    assert not origins().allow(origin, sent, scheme)
    assert not origins().allow(origin, {**sent, "sec-fetch-site": "cross-site"}, scheme)


@pytest.mark.parametrize(
    ("origin", "headers"),
    [
        ("http://app.example", {"host": "app.example", "x-forwarded-proto": "wss"}),
        ("https://app.example", {"host": "app.example", "x-forwarded-proto": "ws"}),
        ("http://app.example:8080", {"host": "app.example"}),
        ("https://app.example", {"host": "127.0.0.1:8000"}),
        ("https://app.example", {}),
    ],
)
def test_different_scheme_or_port_is_a_different_origin(
    origin: str, headers: dict[str, str]
) -> None:
    assert not origins().allow(origin, headers, "ws")


@pytest.mark.parametrize(
    ("listed", "origin"),
    [
        ("https://app.example", "https://app.example"),
        ("https://App.Example:443", "https://app.example"),
        ("http://app.example:80", "http://app.example"),
        ("https://app.example:8443", "https://app.example:8443"),
    ],
)
def test_listed_origin_is_allowed_in_any_notation(listed: str, origin: str) -> None:
    assert origins(listed).allow(origin, {"host": "127.0.0.1:8000"}, "ws")
    assert not origins(listed).allow(f"{origin}0", {"host": "127.0.0.1:8000"}, "ws")


def test_wildcard_origin_requires_the_insecure_setting() -> None:
    assert origins("*", insecure_any_origin=True).allow("https://evil.example", {}, "ws")
    assert not origins("*").allow("https://evil.example", {}, "ws")
    assert not origins(insecure_any_origin=True).allow("https://evil.example", {}, "ws")


def test_own_origins_starts_with_the_likeliest_origin() -> None:
    headers = {"host": "inner:8000", "x-forwarded-host": "app.example", "x-forwarded-proto": "wss"}
    assert own_origins(headers, "ws") == ["https://app.example", "https://inner:8000"]


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        ("WSS://App.example:443", "https://app.example"),
        ("ws://app.example:80", "http://app.example"),
        ("https://app.example:80", "https://app.example:80"),
        ("chrome-extension://abc", "chrome-extension://abc"),
        ("null", "null"),
    ],
)
def test_origins_are_normalised_to_browser_notation(written: str, normal: str) -> None:
    assert normal_origin(written) == normal


async def request(guard: OriginGuard, origin: str, **scope: Any) -> list[dict[str, Any]]:
    """Send a request with an origin through a guard, and return the messages sent in response."""
    sent: list[dict[str, Any]] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"host", b"jobs.internal:8000"), (b"origin", origin.encode())]
    scope = {
        "type": "websocket", "scheme": "ws", "path": "/", "query_string": b"",
        **scope, "headers": [*headers, *scope.get("headers", ())],
    }  # fmt: skip
    await guard(scope, receive, send)
    return sent


async def accepting(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "accepted"})


async def test_refused_origin_is_logged_with_the_allowed_origins(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "jobcast")
    guard = OriginGuard(accepting, origins("https://other.example"))
    assert await request(guard, "https://other.example") == [{"type": "accepted"}]
    assert caplog.text == ""
    await request(guard, "https://app.example")
    for part in (
        "'https://app.example'", "'https://jobs.internal:8000'", "https://other.example",
        "JOBCAST_CORS_ORIGINS", "X-Forwarded-Proto",
    ):  # fmt: skip
        assert part in caplog.text


@pytest.mark.parametrize(
    ("query", "accepted"), [("transport=polling", True), ("EIO=4&transport=websocket", False)]
)
async def test_page_that_asks_about_its_websocket_is_judged_as_by_a_handshake(
    query: str, accepted: bool
) -> None:
    headers = [(b"sec-fetch-site", b"same-origin")]
    scope = {"type": "http", "scheme": "http", "headers": headers, "query_string": query.encode()}
    answer = await request(OriginGuard(accepting, origins()), "https://app.example", **scope)
    assert (answer == [{"type": "accepted"}]) is accepted
    handshake = await request(
        OriginGuard(accepting, origins()), "https://app.example", headers=headers
    )
    assert handshake == [{"type": "accepted"}]


async def test_log_of_refused_origins_is_rate_limited(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "jobcast")
    guard = OriginGuard(accepting, origins())
    for number in range(1000):
        await request(guard, f"https://evil-{number}.example\r\nforged" + "x" * 10_000)
    assert 1 <= len(caplog.records) <= 10
    for record in caplog.records:
        assert len(record.getMessage()) < 500 + 3 * SHOWN
        assert "\n" not in record.getMessage()


async def test_refusal_closes_websocket_without_response_extension() -> None:
    guard = OriginGuard(accepting, origins())
    extensions: dict[str, Any] = {"websocket.http.response": {}}
    start, _ = await request(guard, "https://evil.example", extensions=extensions)
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 403)
    start, _ = await request(guard, "https://evil.example", type="http", scheme="http")
    assert (start["type"], start["status"]) == ("http.response.start", 403)
    (closed,) = await request(guard, "https://evil.example")
    assert closed["type"] == "websocket.close"


@pytest.mark.parametrize(
    ("given", "prefix"),
    [("/jobs", "/jobs"), ("jobs/", "/jobs"), ("/a/b.c", "/a/b.c"), ("/", ""), ("", "")],
)
def test_path_prefix_is_normalised(given: str, prefix: str) -> None:
    assert Settings.load({"JOBCAST_PATH_PREFIX": given}).path_prefix == prefix


@pytest.mark.parametrize("given", ["https://app.example/jobs", "/a b", "/a?b", "/a//b", "/{x}"])
def test_invalid_path_prefix_is_refused(given: str) -> None:
    with pytest.raises(SettingsError, match="JOBCAST_PATH_PREFIX should be a path such as /jobs"):
        Settings.load({"JOBCAST_PATH_PREFIX": given})
