"""The attacks. Each runs on one connection until the server closes it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from tests.support import wire
from tests.support.attacks.attack import Attack, Seen, Session, Target
from tests.support.attacks.event_streams import EVENT_STREAM_ATTACKS
from tests.support.wire import Gone, WebSocket, Wire, event, filled, frame, text

POLLING: Final = "/socket.io/?EIO=4&transport=polling"
BINARY_EVENT: Final = '459999-["x",{"_placeholder":true,"num":0}]'


async def _flood(
    socket: WebSocket, seen: Seen, payload: bytes, *, reads: bool = True, delay: float = 0.0
) -> None:
    """Send a payload repeatedly until the server closes the connection."""
    reader = asyncio.create_task(_listen(socket, seen)) if reads else None
    try:
        while not (reader is not None and reader.done()):
            await socket.send(payload)
            seen.sent += len(payload)
            await asyncio.sleep(delay)
    finally:
        if reader is not None:
            reader.cancel()
            with suppress(asyncio.CancelledError):
                await reader


async def _listen(socket: WebSocket, seen: Seen) -> None:
    socket.keeps = False
    with suppress(Gone):
        while True:
            before = socket.received
            seen.count_answers(await socket.read_packets())
            seen.received += socket.received - before


async def _hold(socket: Wire) -> None:
    """Keep the connection open without reading."""
    await socket.closed_by_server()


def flood_of(
    payload: bytes, *, token: bool = False, reads: bool = True, first: bytes = b""
) -> Session:
    """Return a session that sends ``first``, then ``payload`` repeatedly."""

    async def session(target: Target, seen: Seen) -> None:
        window = 0 if reads else wire.SMALL_WINDOW
        async with WebSocket(target.url, window=window, source=target.source) as socket:
            if token:
                await socket.greet(target.token)
            else:
                await socket.handshake()
            await socket.send(first)
            await _flood(socket, seen, payload, reads=reads)

    return session


async def _refreshes(target: Target, seen: Seen) -> None:
    async with WebSocket(target.url, source=target.source) as socket:
        await socket.greet(target.token)
        await _flood(socket, seen, filled(event("refresh_token", {"token": target.token}, ack=1)))


async def _logins(target: Target, seen: Seen) -> None:
    """Leave and enter the namespace repeatedly on one connection."""
    relogin = text("41") + text(f"40{json.dumps({'token': target.token})}")
    async with WebSocket(target.url, source=target.source) as socket:
        await socket.greet(target.token)
        await _flood(socket, seen, filled(relogin))


async def _binary(target: Target, seen: Seen, *, token: bool) -> None:
    """Announce attachments, and send them endlessly."""
    async with WebSocket(target.url, source=target.source) as socket:
        if token:
            await socket.greet(target.token)
        else:
            await socket.handshake()
            # The namespace knows the connection while the server verifies the token.
            await socket.send(text(f"40{json.dumps({'token': target.token[:-8]})}"))
        await socket.send(text(BINARY_EVENT))
        await _flood(socket, seen, frame(wire.BINARY, bytes(60_000)), delay=0.0005)


async def _binary_with_token(target: Target, seen: Seen) -> None:
    await _binary(target, seen, token=True)


async def _binary_without_token(target: Target, seen: Seen) -> None:
    await _binary(target, seen, token=False)


def _unread_of(payload: bytes) -> Session:
    """Return a session that sends requests and leaves the answers unread."""
    return flood_of(payload, token=True, reads=False)


async def _behind_unread_join(target: Target, seen: Seen) -> None:
    """Request more than the client reads, and send further requests."""
    async with WebSocket(target.url, window=wire.SMALL_WINDOW, source=target.source) as socket:
        await socket.greet(target.token)
        await socket.send(event("join_job", {"job_id": target.job_id}, ack=1) * 2)
        blob = {"job_id": "x" * 100, "filler": "y" * 20_000}
        await _flood(socket, seen, filled(event("leave_job", blob, ack=1)), reads=False)


async def _unread_history(target: Target, _: Seen) -> None:
    """Request a long history, read nothing, and send pongs without reading the pings."""
    async with WebSocket(target.url, window=wire.SMALL_WINDOW, source=target.source) as socket:
        await socket.greet(target.token)
        await socket.send(event("join_job", {"job_id": target.job_id}, ack=1))
        while not socket.ended:
            await socket.send(text("3"))
            await asyncio.sleep(0.2)


async def _join_loop(target: Target, seen: Seen) -> None:
    """Request a long history repeatedly, and read it."""
    async with WebSocket(target.url, source=target.source) as socket:
        await socket.greet(target.token)
        join = event("join_job", {"job_id": target.job_id}, ack=1)
        socket.keeps = False
        while True:
            await socket.send(join)
            seen.sent += len(join)
            answered = False
            while not answered:
                before = socket.received
                packets = await socket.read_packets()
                seen.received += socket.received - before
                seen.count_answers(packets)
                answered = any(packet.startswith("43") for packet in packets)


async def _many_jobs(target: Target, seen: Seen) -> None:
    """Follow one unknown job after the other without leaving any."""
    joins = b"".join(event("join_job", {"job_id": f"job-{n}"}, ack=n) for n in range(1000))
    async with WebSocket(target.url, source=target.source) as socket:
        await socket.greet(target.token)
        await _flood(socket, seen, joins)


async def _silent(target: Target, _: Seen) -> None:
    async with Wire(target.url, source=target.source) as connection:
        await _hold(connection)


async def _half_head(target: Target, _: Seen) -> None:
    async with Wire(target.url, source=target.source) as connection:
        await connection.send(b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\n")
        await _hold(connection)


async def _slow_head(target: Target, _: Seen) -> None:
    """Send a header line every 250 ms, endlessly."""
    async with Wire(target.url, source=target.source) as connection:
        await connection.send(b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\n")
        number = 0
        while not connection.ended:
            await connection.send(f"X-{number}: y\r\n".encode())
            number += 1
            await asyncio.sleep(0.25)


async def _bodiless(target: Target, _: Seen) -> None:
    """Send a request without its body."""
    async with Wire(target.url, source=target.source) as connection:
        sid = await polling_sid(connection)
        await connection.send(
            wire.request(
                "POST", f"{POLLING}&sid={sid}",
                headers="Content-Type: text/plain\r\nContent-Length: 5000\r\n", body=b"4",
            )
        )  # fmt: skip
        await _hold(connection)


async def _unauthenticated(target: Target, _: Seen) -> None:
    async with WebSocket(target.url, source=target.source) as socket:
        await socket.handshake()
        await _hold(socket)


async def _polling_sessions(target: Target, seen: Seen) -> None:
    """Open long-polling sessions without polling."""
    async with Wire(target.url, source=target.source) as connection:
        while True:
            await connection.send(wire.request("GET", POLLING))
            status, _ = await connection.read_response()
            seen.statuses[str(status)] += 1


async def _polling_posts(target: Target, seen: Seen) -> None:
    """Send packets by long-polling, as many as a request may contain, without pauses."""
    async with Wire(target.url, source=target.source) as connection:
        sid = await polling_sid(connection)
        body = "\x1e".join(["40/x,"] * 16).encode()
        while True:
            await connection.send(wire.post(f"{POLLING}&sid={sid}", body))
            status, _ = await connection.read_response()
            seen.statuses[str(status)] += 1
            if status != 200:
                raise Gone(f"HTTP {status}")


async def _bad_posts(target: Target, seen: Seen) -> None:
    """Send bodies that are no packets; each ends its session."""
    bodies = b"\xff\xfe", b"9", b"4" + b"[" * 5000, b"", b"b!!!!", b"\x1e" * 100, bytes(100_000)
    for body in bodies:
        await _bad_post(target, seen, f"Content-Length: {len(body)}\r\n", body)
    for headers in ("", "Content-Length: -1\r\n", "Transfer-Encoding: chunked\r\n"):
        await _bad_post(target, seen, headers, b"0\r\n\r\n")


async def _bad_post(target: Target, seen: Seen, headers: str, body: bytes) -> None:
    async with Wire(target.url, source=target.source) as connection:
        path = f"{POLLING}&sid={await polling_sid(connection)}"
        await connection.send(wire.request("POST", path, headers=headers, body=body))
        status, _ = await connection.read_response()
        seen.statuses[str(status)] += 1


async def polling_sid(connection: Wire) -> str:
    """Open a long-polling session, and return its id.

    Raises:
        Gone: the server refused the session.
    """
    await connection.send(wire.request("GET", POLLING))
    status, body = await connection.read_response()
    if status != 200:
        raise Gone(f"HTTP {status}")
    return str(json.loads(body[1:])["sid"])


async def _invalid_utf8(target: Target, _: Seen) -> None:
    async with WebSocket(target.url, source=target.source) as socket:
        await socket.handshake()
        await socket.send(frame(wire.TEXT, b"4\xff\xfe"))
        await socket.read_to_the_end()


async def _after_close(target: Target, seen: Seen) -> None:
    """Send more packets after the server has closed the connection."""
    async with WebSocket(target.url, source=target.source) as socket:
        await socket.handshake()
        await socket.send(text("4x"))
        await _flood(socket, seen, filled(text("4x") + text('42["x"]') + frame(wire.BINARY, b"x")))


def _argument_counts() -> bytes:
    names = ("join_job", "leave_job", "refresh_token", "nothing", "message")
    payloads: list[list[object]] = [[], [1, 2, 3], [{}, {}], [None] * 50, [[[]]], ["x" * 1000]]
    return b"".join(
        event(name, *payload, ack=ack) for name in names for payload in payloads for ack in ("", 1)
    )


_PONGS: Final = filled(text("3"))
_LEAVES: Final = filled(event("leave_job", {"job_id": "x"}, ack=1))

ATTACKS: Final[tuple[Attack, ...]] = (
    Attack("pongs", "H1", "Engine.IO PONGs", flood_of(_PONGS)),
    Attack("namespaces", "H1", "`40/x,`", flood_of(filled(text("40/x,")))),
    Attack("attachments", "H1", "binary events before CONNECT",
           flood_of(filled(text('451-["x",{"_placeholder":true,"num":0}]')))),
    Attack("pings", "H1", "WebSocket pings", flood_of(filled(frame(wire.PING, b"x")))),
    Attack("ws-pongs", "H1", "WebSocket pongs", flood_of(filled(frame(wire.PONG, b"x")))),
    Attack("fragments", "H1", "empty continuation frames",
           flood_of(filled(frame(wire.CONTINUATION, fin=False)),
                    first=frame(wire.TEXT, b"3", fin=False))),
    Attack("upgrades", "H1", "Engine.IO upgrade packets", flood_of(filled(text("5")))),
    Attack("bad-tokens", "H1", "CONNECT with a bad token",
           flood_of(filled(text('40{"token":"x"}')))),
    Attack("leaves", "H1", "`leave_job`", flood_of(_LEAVES, token=True), True),
    Attack("unknown-events", "H1", "unknown events",
           flood_of(filled(text('42["x"]')), token=True), True),
    Attack("acknowledgements", "H1", "unsolicited acknowledgements",
           flood_of(filled(text("431[]")), token=True), True),
    Attack("refreshes", "H1", "`refresh_token`", _refreshes, True),
    Attack("logins", "H1", "leaving and entering the namespace", _logins, True),
    Attack("connect-events", "H2", "events named `connect`",
           flood_of(filled(text('42["connect",{},{"token":"x"}]')), token=True), True),
    Attack("disconnect-events", "H2", "events named `disconnect`",
           flood_of(filled(text('42["disconnect","x"]')), token=True), True),
    Attack("binary", "H3", "binary attachments", _binary_with_token, True),
    Attack("binary-unauthenticated", "H3", "binary attachments before the token is verified",
           _binary_without_token),
    Attack("behind-join", "H4", "requests behind an unread join", _behind_unread_join, True),
    Attack("unread-joins", "H4", "`join_job`, unread answers",
           _unread_of(filled(event("join_job", {"job_id": "x" * 100}, ack=1))), True),
    Attack("unread-answers", "H4", "`leave_job`, unread answers", _unread_of(_LEAVES), True),
    Attack("unread-history", "H4", "unread history, pongs sent", _unread_history, True),
    Attack("unread-pings", "H4", "WebSocket pings, unread answers",
           flood_of(filled(frame(wire.PING, b"x" * 125)), reads=False)),
    Attack("unread-upgrades", "H4", "Engine.IO upgrade packets, unread answers",
           flood_of(filled(text("5")), reads=False)),
    Attack("binary-before-connect", "H5", "binary packets before CONNECT",
           flood_of(filled(text("461-1[]") + text('451-["x"]')))),
    Attack("bodiless", "H5", "POST without body", _bodiless),
    Attack("invalid-utf8", "H5", "invalid UTF-8", _invalid_utf8),
    Attack("bad-posts", "H5", "POSTs without valid packets", _bad_posts),
    Attack("arguments", "H5", "wrong argument counts",
           flood_of(_argument_counts(), token=True), True),
    Attack("after-close", "H5", "packets after the server has closed", _after_close),
    Attack("polling-posts", "H5", "POSTs full of packets", _polling_posts),
    Attack("silent", "M6", "silent TCP connections", _silent),
    Attack("half-heads", "M6", "incomplete headers", _half_head),
    Attack("slow-heads", "M6", "a header line every 250 ms", _slow_head),
    Attack("unauthenticated", "M6", "sockets that never authenticate", _unauthenticated),
    Attack("polling-sessions", "M6", "long-polling sessions", _polling_sessions),
    Attack("join-loop", "M7", "joins of a job with 8 MiB of history", _join_loop, True),
    Attack("many-jobs", "M7", "joins of many jobs", _many_jobs, True),
    *EVENT_STREAM_ATTACKS,
)  # fmt: skip

BY_NAME: Final[Mapping[str, Attack]] = {attack.name: attack for attack in ATTACKS}
