"""``jobcast doctor``: checks of the configuration and of the connections to the servers."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from base64 import b64encode
from collections.abc import Awaitable, Callable
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import TypeVar
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import click
import msgspec

from jobcast.cli.terminal import clean
from jobcast.errors import JobcastError, SettingsError, TransportUnavailable
from jobcast.events import JobComplete, JobStatus
from jobcast.masking import mask, mask_url
from jobcast.settings import Settings, misspelt
from jobcast.transports import Outgoing, Retention, open_manager, open_publisher
from jobcast.transports.base import NO_RECORD, SupportsAdvice
from jobcast.transports.thread_calls import ThreadCalls

PROBE_TTL = 10  # seconds that the transport keeps the probe job
TIMEOUT = 5  # seconds
COLOURS = {"ok": "green", "doubt": "yellow"}
MAX_ANSWER = 4096  # maximum bytes read of an answer
SCHEMES = frozenset({"http", "https"})

# The usual meaning of a status, for answers whose body does not give the reason.
ANSWERS = {
    429: "this address has too many connections or requests; see the server's"
    " JOBCAST_MAX_CONNECTIONS_PER_ADDRESS and the limits of a proxy in front of it, and try again"
    " later",
    502: "a proxy in front of the server does not reach it: is `jobcast serve` running?",
    503: "the server is full (JOBCAST_MAX_CONNECTIONS) or about to exit, or a proxy in front of it"
    " does not reach it; see their logs, and try again later",
    504: "a proxy in front of the server got no answer from it in time; see the server's log",
}


B = TypeVar("B")

logger = logging.getLogger(__name__)


class Readiness(msgspec.Struct):
    """The body of ``/readyz``."""

    status: str


class Problem(msgspec.Struct):
    """The body of a request that the server refuses."""

    message: str


class CheckFailed(JobcastError):
    """A check failed. The message says how to fix the problem."""


def check_url(url: str) -> str:
    """Return ``url`` if it is an ``http`` or ``https`` URL.

    Raises:
        ValueError: the URL is not valid, or it has another scheme.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in SCHEMES and parts.hostname
    except ValueError:
        usable = False
    if not usable:
        raise ValueError(
            f"the server should be a URL such as http://127.0.0.1:8000, not {mask_url(url)!r}"
        )
    return url


async def run_checks(url: str, origin: str | None = None) -> int:
    """Check the settings, the transport, the keys and the server at ``url``. Print the results.

    Args:
        url: the server's URL.
        origin: the origin of a page that should be able to connect, such as
            ``https://app.example.com``. Without it, no origin is checked.

    Returns:
        0 if no check failed (there may be warnings), else 1.
    """
    try:
        settings = Settings.load()
    except SettingsError as exc:
        _print("settings", "failed", str(exc))
        for advice in _unknown_variables():
            _print("configuration", "doubt", advice)
        return 1
    _print("settings", "ok", "all values can be used")
    checks: list[tuple[str, Callable[[], Awaitable[str]]]] = [
        ("transport", lambda: _transport(settings)),
        ("authentication", lambda: _authentication(settings)),
        ("server", lambda: _server(url)),
    ]
    if origin is not None:
        checks.append(("origin", lambda: _origin(url, origin)))
    failed = 0
    for name, check in checks:
        try:
            _print(name, "ok", await check())
        except JobcastError as exc:
            failed += 1
            _print(name, "failed", str(exc))
    for advice in [*_unknown_variables(), *await _advice(settings)]:
        _print("configuration", "doubt", advice)
    return min(1, failed)


async def _transport(settings: Settings) -> str:
    """Publish an event like a worker, then receive it and read its record like a server."""
    job_id = f"doctor-{secrets.token_hex(8)}"
    retention = Retention(ttl=PROBE_TTL, feed_size=0)
    publisher = open_publisher(settings.url, retention, prefix=settings.prefix)
    source = open_manager(settings.url, retention, prefix=settings.prefix).source
    probe = [Outgoing.of(JobComplete(job_id=job_id, result=None))]
    received, calls = asyncio.Event(), ThreadCalls()

    async def resumed() -> None:
        return

    try:
        await calls.run(publisher.publish, probe)  # first: its error is the clearest
        source.start(lambda *_: received.set(), resumed)
        async with asyncio.timeout(TIMEOUT):
            await source.subscribe(job_id)
            # A new run: the store would drop a second terminal event of the same run.
            started = JobStatus(job_id=job_id, status="started")
            await calls.run(publisher.publish, [Outgoing.of(started), *probe])
            await received.wait()
            snapshot = await source.snapshot(job_id)
    except TimeoutError:
        raise CheckFailed(
            f"{settings.masked_url} delivered no published event within {TIMEOUT} s"
        ) from None
    except JobcastError as exc:
        raise CheckFailed(f"{settings.masked_url} (JOBCAST_URL) cannot be used: {exc}") from exc
    finally:
        await calls.close(publisher.close)
        await source.aclose()
    if snapshot.epoch == NO_RECORD:
        raise CheckFailed(f"{settings.masked_url} did not store the published event")
    return f"an event went through {settings.masked_url}"


def _unknown_variables() -> list[str]:
    """Return a warning about each ``JOBCAST_*`` variable that has no effect."""
    return [
        f"{name} is not a setting and has no effect" + (f": is {near} meant?" if near else "")
        for name, near in misspelt(os.environ).items()
    ]


async def _advice(settings: Settings) -> list[str]:
    """Return warnings about server settings that weaken the delivery guarantees."""
    publisher = open_publisher(settings.url, settings.retention, prefix=settings.prefix)
    calls = ThreadCalls()
    try:
        if isinstance(publisher, SupportsAdvice):
            return await calls.run(publisher.advice)
    except TransportUnavailable as exc:
        # The transport check has already reported that the server cannot be reached.
        logger.debug("could not read the configuration of %s: %s", settings.masked_url, exc)
    finally:
        await calls.close(publisher.close)
    return []


async def _authentication(settings: Settings) -> str:
    try:
        settings.require_authentication()
        from jobcast.tokens import TokenVerifier
    except ModuleNotFoundError as exc:
        raise CheckFailed("this needs jobcast[server]: pip install 'jobcast[server]'") from exc
    verifier = TokenVerifier(settings)
    try:
        await verifier.check()
    finally:
        verifier.close()
    count = len(settings.secrets or settings.public_keys)
    noun = "secret" if settings.secrets else "public key"
    kind = f"a {noun}" if count == 1 else f"{count} {noun}s"
    if settings.jwks_url:
        kind = f"the keys at {mask_url(settings.jwks_url)}"
    return f"tokens are verified with {kind}, {' or '.join(settings.algorithms)}"


async def _server(url: str) -> str:
    url = url.rstrip("/")

    def ask() -> tuple[int, bytes]:
        try:
            with urlopen(Request(f"{url}/readyz"), timeout=TIMEOUT) as answer:  # noqa: S310
                return answer.status, answer.read(MAX_ANSWER)
        except HTTPError as exc:
            return exc.code, exc.read(MAX_ANSWER)

    try:
        status, body = await asyncio.to_thread(ask)
    except (URLError, HTTPException, OSError, ValueError) as exc:
        raise CheckFailed(f"{url} cannot be reached ({exc}): {_hint(exc)}") from exc
    if status == 503 and (reason := _body(body, Readiness)) is not None:
        raise CheckFailed(f"{url} is not ready: {reason.status}; see its log")
    if status in ANSWERS:
        raise CheckFailed(f"{url} answers {status} for /readyz: {_meaning(status, body)}")
    if status != 200:
        raise CheckFailed(f"{url} answers {status} for /readyz: is it jobcast?")
    return f"{url} is ready"


async def _origin(url: str, origin: str) -> str:
    """Send the WebSocket handshake of a page of ``origin``."""
    parts = urlsplit(url.rstrip("/"))
    secure = parts.scheme in ("https", "wss")
    headers = {
        "Origin": origin.rstrip("/"),
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": b64encode(secrets.token_bytes(16)).decode(),
    }

    def ask() -> tuple[int, bytes]:
        connect = HTTPSConnection if secure else HTTPConnection
        connection = connect(parts.hostname or "", parts.port, timeout=TIMEOUT)
        try:
            path = f"{parts.path}/socket.io/?EIO=4&transport=websocket"
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            # After status 101 the response has no body that ends.
            return answer.status, b"" if answer.status == 101 else answer.read(MAX_ANSWER)
        finally:
            connection.close()

    try:
        status, body = await asyncio.to_thread(ask)
    except (HTTPException, OSError, ValueError) as exc:
        raise CheckFailed(f"{url} cannot be reached ({exc}): {_hint(exc)}") from exc
    if status == 403:
        raise CheckFailed(
            f"{url} refuses pages of {origin}: add it to JOBCAST_CORS_ORIGINS of the server, or, if"
            " it is the server's own, have the proxy pass on Host and X-Forwarded-Proto; the"
            " server's log shows the compared values"
        )
    if status in ANSWERS:
        raise CheckFailed(
            f"{url} answers {status} instead of opening a WebSocket: {_meaning(status, body)}"
        )
    if status != 101:
        raise CheckFailed(
            f"{url} answers {status} instead of opening a WebSocket: is the path right, and does"
            " the proxy pass on Upgrade and Connection?"
        )
    return f"pages of {origin} may connect to {url}"


def _hint(exc: Exception) -> str:
    reason = exc.reason if isinstance(exc, URLError) else exc
    if isinstance(reason, ConnectionResetError):
        return "is it full (JOBCAST_MAX_CONNECTIONS)?"
    return "is `jobcast serve` running?"


def _meaning(status: int, body: bytes) -> str:
    """Return the reason in an answer's body, or the usual meaning of its status."""
    problem = _body(body, Problem)
    return ANSWERS[status] if problem is None else problem.message


def _body(body: bytes, cls: type[B]) -> B | None:
    """Return the decoded body of an answer; None if it is not a ``cls``, as from a proxy."""
    try:
        return msgspec.json.decode(body, type=cls)
    except msgspec.DecodeError:
        return None


def _print(name: str, outcome: str, text: str) -> None:
    shown = click.style(f"{outcome:<6}", fg=COLOURS.get(outcome, "red"))
    click.echo(f"{shown}  {name:<14}  {clean(mask(text))}")
