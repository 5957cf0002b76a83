"""Attacks on the HTTP interface: event streams, and requests for the state of a job."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import quote

from tests.support import wire
from tests.support.attacks.attack import Attack, Seen, Target
from tests.support.wire import Gone, Wire

MANY: Final = 5000  # job ids of one request
HUGE: Final = "9" * 30_000

POSITIONS: Final = (
    ":", ":1", "x:", "x:-1", "x:1.5", "x:99999999999999999", "x:1,x:1", "," * 5000, "\xff\xfe:1",
    "x" * 65 + ":1", "a b:1", "x:\u0663", "%00:1", '{"epoch":"x","seq":1}', f"x:{HUGE}",
    f"{HUGE}:1",
)  # fmt: skip
CREDENTIALS: Final = (
    "Bearer", "Bearer ", "Bearer x", f"Bearer {HUGE}", "Basic eDp5", "Bearer a.b.c", "\xff\xff",
    "Bearer Bearer x", ",", "Bearer eyJhbGciOiJub25lIn0.e30.",
)  # fmt: skip


def stream_request(path: str, token: str | None, headers: str = "") -> bytes:
    """Return a GET request with a token. ``headers`` are lines that end with CRLF."""
    credentials = "" if token is None else f"Authorization: Bearer {token}\r\n"
    return get(path, f"{credentials}{headers}")


def get(path: str, headers: str) -> bytes:
    """Return a GET request. Unlike `wire.request`, it encodes headers as Latin-1."""
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}\r\n".encode("latin-1", "replace")


def status_of(head: str) -> int:
    """Return the status of a response's head."""
    return int(head.split(" ", 2)[1])


def malformed_requests(token: str, job_id: str) -> Iterator[bytes]:
    """Return requests with garbage in each part of them."""
    events = f"/jobs/{job_id}/events"
    for position in POSITIONS:
        yield stream_request(events, token, f"Last-Event-ID: {position}\r\n")
        yield stream_request(f"{events}?after={quote(position)}", token)
    for credentials in CREDENTIALS:
        yield get(events, f"Authorization: {credentials}\r\n")
        yield get(f"{events}?token={quote(credentials)}", "")
    for path in malformed_paths(job_id):
        yield stream_request(path, token)


def malformed_paths(job_id: str) -> Iterable[str]:
    """Return paths with invalid job ids or parameters."""
    return (
        "/events", "/events?job=", "/events?job=%00", "/events?job=%ff", f"/events?job={HUGE}",
        "/events?job=a&job=%20", f"/events?{many_jobs(MANY)}", f"/events?{many_jobs(500)}",
        "/jobs/", "/jobs//events", "/jobs/%00/events", "/jobs/%ff", f"/jobs/{'x' * 129}",
        f"/jobs/{job_id}?wait=-1", f"/jobs/{job_id}?wait=nan", f"/jobs/{job_id}?wait=inf",
        f"/jobs/{job_id}?wait={HUGE}", f"/jobs/{job_id}?logs=1e400", f"/jobs/{job_id}?logs=x",
        "/feeds/", "/feeds//events", "/feeds/yours/events", "/feeds/tag%3A%00/events",
        "/feeds/owner%3A%ff%0d%0aINFO/events", f"/feeds/tag%3A{'x' * 129}/events",
        f"/feeds/mine/events?limit={HUGE}", "/feeds/mine/events?status=" + "x," * 500,
        "/jobs?feed=%00", f"/jobs?cursor={HUGE}", "/jobs?cursor=1~%00", f"/jobs?limit={HUGE}",
        "/jobs?since=%00", f"/jobs?task={'x' * 300}", "/jobs?tag=%0d%0aINFO",
    )  # fmt: skip


def many_jobs(count: int) -> str:
    """Return a query with a number of job ids."""
    return "&".join(f"job=job-{n}" for n in range(count))


async def _request(target: Target, seen: Seen, data: bytes, *, window: int = 0) -> Wire:
    """Send a request on a new connection, and read the head of the response."""
    connection = Wire(target.url, window=window, source=target.source)
    try:
        await connection.open()
        await connection.send(data)
        seen.sent += len(data)
        seen.statuses[str(status_of(await connection.read_head()))] += 1
    except BaseException:
        connection.close()
        raise
    return connection


async def _unread_stream(target: Target, seen: Seen) -> None:
    """Open a stream with a long history, and read nothing after the head."""
    data = stream_request(f"/jobs/{target.job_id}/events", target.token)
    connection = await _request(target, seen, data, window=wire.SMALL_WINDOW)
    try:
        await connection.closed_by_server()
    finally:
        connection.close()


async def _stream(target: Target, seen: Seen) -> None:
    """Open a stream of an unknown job, and read it."""
    connection = await _request(target, seen, stream_request("/jobs/unknown/events", target.token))
    try:
        while True:
            seen.received += len(await connection.read())
    finally:
        connection.close()


async def _reconnects(target: Target, seen: Seen) -> None:
    """Open a stream with a long history repeatedly, and reset each at its first bytes."""
    data = stream_request(f"/jobs/{target.job_id}/events", target.token)
    while True:
        (await _request(target, seen, data)).reset()


async def _abandoned_waits(target: Target, seen: Seen) -> None:
    """Ask for the end of a job repeatedly, and disconnect before the answer."""
    for number in itertools.count():
        async with Wire(target.url, source=target.source) as connection:
            data = stream_request(f"/jobs/unknown-{number % 100}?wait=60", target.token)
            await connection.send(data)
            seen.sent += len(data)


async def _malformed(target: Target, seen: Seen) -> None:
    """Send each malformed request on a connection of its own."""
    for data in malformed_requests(target.token, target.job_id):
        try:
            (await _request(target, seen, data)).close()
        except Gone:
            seen.statuses["closed"] += 1


EVENT_STREAM_ATTACKS: Final = (
    Attack("streams", "E8", "event streams", _stream, True),
    Attack("unread-streams", "E8", "event streams, unread", _unread_stream, True),
    Attack("stream-reconnects", "E8", "event streams, reset at once", _reconnects, True),
    Attack("abandoned-waits", "E8", "`?wait=60`, abandoned", _abandoned_waits, True),
    Attack("malformed-streams", "E8", "garbage in requests for event streams", _malformed, True),
)
