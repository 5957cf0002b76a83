"""Which origins a server lets in, by the headers that proxies send."""

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


# What a request of a page of the second column has, behind what the first one names.
OWN = {
    "nothing": ("http://127.0.0.1:8000", {"host": "127.0.0.1:8000"}, "ws"),
    "nothing, by polling": ("http://localhost:8000", {"host": "localhost:8000"}, "http"),
    "TLS of uvicorn's own": ("https://app.example", {"host": "app.example"}, "wss"),
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
    "nginx with $host, which has no port": (
        "https://app.example:8443",
        {"host": "app.example", "x-forwarded-port": "8443", "x-forwarded-proto": "https"},
        "ws",
    ),
    "nginx with X-Forwarded-Host only": (
        "https://app.example",
        {"host": "backend", "x-forwarded-host": "app.example", "x-forwarded-proto": "https"},
        "ws",
    ),
    "HAProxy, which tells no scheme": ("https://app.example", {"host": "app.example"}, "ws"),
    "two proxies": (
        "https://app.example",
        {
            "host": "inner",
            "x-forwarded-host": "app.example, inner",
            "x-forwarded-proto": "https, http",
        },
        "ws",
    ),
    "a proxy that names the port of the scheme": (
        "https://app.example",
        {"host": "app.example:443", "x-forwarded-proto": "wss"},
        "ws",
    ),
    "capital letters": ("https://app.example", {"host": "App.Example"}, "wss"),
    "IPv6": ("http://[::1]:8000", {"host": "[::1]:8000"}, "ws"),
    "nginx without Host, in a browser that tells": (
        "https://app.example",
        {"host": "127.0.0.1:8000", "sec-fetch-site": "same-origin"},
        "ws",
    ),
}


@pytest.mark.parametrize("behind", OWN)
def test_a_page_of_the_servers_own_origin_is_allowed_behind(behind: str) -> None:
    origin, headers, scheme = OWN[behind]
    assert origins().allow(origin, headers, scheme)
    assert origins("https://other.example").allow(origin, headers, scheme)


@pytest.mark.parametrize("behind", OWN)
@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "https://app.example.evil.example", "null", "", "https://", "https"],
)
def test_a_page_of_another_origin_is_refused_behind(behind: str, origin: str) -> None:
    _, headers, scheme = OWN[behind]
    told = {name: value for name, value in headers.items() if name != "sec-fetch-site"}
    assert not origins().allow(origin, told, scheme)
    assert not origins().allow(origin, {**told, "sec-fetch-site": "cross-site"}, scheme)


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
def test_another_scheme_or_port_is_another_origin(origin: str, headers: dict[str, str]) -> None:
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
def test_a_listed_origin_is_allowed_however_it_is_written(listed: str, origin: str) -> None:
    assert origins(listed).allow(origin, {"host": "127.0.0.1:8000"}, "ws")
    assert not origins(listed).allow(f"{origin}0", {"host": "127.0.0.1:8000"}, "ws")


def test_any_origin_is_allowed_only_by_the_setting_that_says_insecure() -> None:
    assert origins("*", insecure_any_origin=True).allow("https://evil.example", {}, "ws")
    assert not origins("*").allow("https://evil.example", {}, "ws")
    assert not origins(insecure_any_origin=True).allow("https://evil.example", {}, "ws")


def test_the_likeliest_origin_is_named_first() -> None:
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
def test_origins_are_compared_as_browsers_write_them(written: str, normal: str) -> None:
    assert normal_origin(written) == normal


async def ask(guard: OriginGuard, origin: str, **scope: Any) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"host", b"jobs.internal:8000"), (b"origin", origin.encode())]
    scope = {"type": "websocket", "scheme": "ws", "path": "/", "headers": headers, **scope}
    await guard(scope, receive, send)
    return sent


async def let_in(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "let in"})


async def test_a_refused_origin_is_logged_with_what_it_was_compared_with(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "jobcast")
    guard = OriginGuard(let_in, origins("https://other.example"))
    assert await ask(guard, "https://other.example") == [{"type": "let in"}]
    assert caplog.text == ""
    await ask(guard, "https://app.example")
    for part in (
        "'https://app.example'", "'https://jobs.internal:8000'", "https://other.example",
        "JOBCAST_CORS_ORIGINS", "X-Forwarded-Proto",
    ):  # fmt: skip
        assert part in caplog.text


async def test_refused_origins_fill_no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "jobcast")
    guard = OriginGuard(let_in, origins())
    for number in range(1000):
        await ask(guard, f"https://evil-{number}.example\r\nforged" + "x" * 10_000)
    assert 1 <= len(caplog.records) <= 10
    for record in caplog.records:
        assert len(record.getMessage()) < 500 + 3 * SHOWN
        assert "\n" not in record.getMessage()


async def test_a_refusal_has_a_status_also_where_a_server_gives_websockets_none() -> None:
    guard = OriginGuard(let_in, origins())
    extensions: dict[str, Any] = {"websocket.http.response": {}}
    start, _ = await ask(guard, "https://evil.example", extensions=extensions)
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 403)
    start, _ = await ask(guard, "https://evil.example", type="http", scheme="http")
    assert (start["type"], start["status"]) == ("http.response.start", 403)
    (closed,) = await ask(guard, "https://evil.example")
    assert closed["type"] == "websocket.close"


@pytest.mark.parametrize(
    ("given", "prefix"),
    [("/jobs", "/jobs"), ("jobs/", "/jobs"), ("/a/b.c", "/a/b.c"), ("/", ""), ("", "")],
)
def test_a_path_prefix_has_a_slash_before_it_and_none_after(given: str, prefix: str) -> None:
    assert Settings.load({"JOBCAST_PATH_PREFIX": given}).path_prefix == prefix


@pytest.mark.parametrize("given", ["https://app.example/jobs", "/a b", "/a?b", "/a//b", "/{x}"])
def test_a_path_prefix_that_is_none_is_refused(given: str) -> None:
    with pytest.raises(SettingsError, match="JOBCAST_PATH_PREFIX should be a path such as /jobs"):
        Settings.load({"JOBCAST_PATH_PREFIX": given})
