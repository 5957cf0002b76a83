"""Invalid HTTP, WebSocket, Engine.IO and Socket.IO data."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import suppress
from typing import Any

import pytest

from jobcast.realtime.connection.refusals import BURST, RATE
from tests.e2e.hostile.conftest import (
    AUTHENTICATED_LOG_LINES,
    LOG_LINES,
    Serve,
    Token,
    Undisturbed,
    attack_until_contained,
    log_lines,
    wait_for_events,
)
from tests.support import TIMEOUT, wire
from tests.support.attacks.attack import Attack, Target
from tests.support.attacks.catalogue import ATTACKS, POLLING, polling_sid
from tests.support.attacks.server import Served, server_errors
from tests.support.wire import (
    ENGINE_PATH,
    Gone,
    WebSocket,
    Wire,
    event,
    frame,
    request,
    text,
    upgrade,
)

LONGEST_LINE = 1000  # characters
REQUEST_LOG_LINES = 6  # log lines that one invalid request may cause, including the access log
MALFORMED = [attack for attack in ATTACKS if attack.row == "H5" and attack.name != "bodiless"]


@pytest.mark.parametrize("attack", MALFORMED, ids=lambda attack: attack.name)
async def test_malformed_packets_leave_no_traceback(
    served: Served, target: Target, undisturbed: Undisturbed, attack: Attack
) -> None:
    async with undisturbed(served) as client:
        lines = len(served.log.splitlines())
        attacking = asyncio.create_task(attack_until_contained(attack, target))
        await wait_for_events(client)
        await attacking
        # Each long-polling request has a line in the access log.
        limit = (
            AUTHENTICATED_LOG_LINES if attack.needs_token or "posts" in attack.name else LOG_LINES
        )
        assert len(served.log.splitlines()) - lines < limit


def check_lines(lines: list[str], limit: int) -> None:
    """Check the log lines that one test has caused.

    Lines about abandoned long-polling sessions of other tests are ignored.
    """
    lines = [line for line in lines if "did not authenticate" not in line]
    text = "\n".join(lines)
    assert "Traceback" not in text, text
    assert not server_errors(text)
    assert len(lines) < limit, text
    assert all(len(line) < LONGEST_LINE for line in lines), text


PACKETS = {
    "empty message": text("4"),
    "not a packet": text("x"),
    "empty frame": text(""),
    "unknown Engine.IO type": text("9"),
    "unknown Socket.IO type": text("47"),
    "connect_error": text("44{}"),
    "event without a name": text("42[]"),
    "event of a number": text("42[1]"),
    "event of an object": text("42{}"),
    "event without data": text("42"),
    "half JSON": text('42["join_job"'),
    "deep JSON": text(f"42{'[' * 30_000}"),
    "deep request": text(f'42["join_job",{"[" * 20_000}{"]" * 20_000}]'),
    "huge number": text(f'42["join_job",{"9" * 30_000}]'),
    "huge acknowledgement id": text(f'42{"9" * 99}["join_job",{{}}]'),
    "too long acknowledgement id": text(f'42{"9" * 200}["join_job",{{}}]'),
    "lone surrogate": text('42["join_job",{"job_id":"\\ud800"}]'),
    "surrogate as a name": text('42["\\ud800",1]'),
    "null character in a name": text('42["\\u0000",1]'),
    "unicode digits": text('42\u0663["join_job",{}]'),
    "unicode attachments": text('45\u0663-["x"]'),
    "long namespace": text(f"40/{'x' * 30_000},"),
    "query in a namespace": text("40/?a=b,{}"),
    "connect with an array": text('40["token"]'),
    "connect with a deep token": text(f'40{{"token":{"[" * 20_000}{"]" * 20_000}}}'),
    "connect with a number": text("401"),
    "disconnect with data": text('41["x"]'),
    "acknowledgement without data": text("43"),
    "acknowledgement without an id": text("43[]"),
    "acknowledgement of an object": text("431{}"),
    "unasked acknowledgement": text("4399[1]"),
    "upgrade": text("5"),
    "probe": text("2probe"),
    "noop": text("6"),
    "open": text("0{}"),
    "close": text("1"),
    "base64": text("bAAAA"),
    "bad base64": text("b!"),
    "invalid UTF-8": frame(wire.TEXT, b"42\xff"),
    "half a character": frame(wire.TEXT, b'42["\xc3'),
    "utf-16 surrogates": frame(wire.TEXT, b'42["\xed\xa0\x80"]'),
    "unmasked frame": frame(wire.TEXT, b"3", masked=False),
    "reserved bits": frame(wire.TEXT, b"3", rsv=4),
    "reserved opcode": frame(0x3, b"x"),
    "reserved control opcode": frame(0xB, b"x"),
    "long ping": frame(wire.PING, bytes(126)),
    "fragmented ping": frame(wire.PING, b"x", fin=False),
    "continuation without a start": frame(wire.CONTINUATION, b"3"),
    "text within a text": frame(wire.TEXT, b"3", fin=False) + frame(wire.TEXT, b"3"),
    "oversized frame": b"\x81\xff" + (2**63 - 1).to_bytes(8) + bytes(4),
    "negative length": b"\x81\xff" + b"\xff" * 8 + bytes(4),
    "large frame": frame(wire.TEXT, b"4" + b"x" * 70_000),
    "large fragments": frame(wire.TEXT, b"42", fin=False)
    + frame(wire.CONTINUATION, bytes(40_000), fin=False) * 3,
    "close without a code": frame(wire.CLOSE),
    "close with half a code": frame(wire.CLOSE, b"\x03"),
    "close with a wrong code": frame(wire.CLOSE, b"\x00\x01"),
    "close with invalid UTF-8": frame(wire.CLOSE, b"\x03\xe8\xff"),
    "close twice": frame(wire.CLOSE, b"\x03\xe8") * 2 + text("3"),
    "HTTP": request("GET", "/healthz"),
    "null bytes": b"\x00" * 1000,
}


@pytest.mark.parametrize("authenticated", [True, False], ids=["authenticated", "unauthenticated"])
@pytest.mark.parametrize("payload", PACKETS.values(), ids=PACKETS.keys())
async def test_malformed_frame_causes_few_log_lines(
    shared: Served, shared_target: Target, token: Token, payload: bytes, authenticated: bool
) -> None:
    before = len(await log_lines(shared, token))
    async with WebSocket(shared.url) as socket:
        if authenticated:
            await socket.greet(shared_target.token)
        else:
            await socket.handshake()
        # The server closes the connection after an unreadable packet, perhaps before the client
        # has sent everything.
        with suppress(Gone):
            await socket.send(payload)
            await socket.send(text("4x"))
        async with asyncio.timeout(TIMEOUT):
            await socket.read_until_closed()
    check_lines((await log_lines(shared, token))[before:], 2 * REQUEST_LOG_LINES)


SID = "&sid={sid}"
REQUESTS = {
    "no Engine.IO version": request("GET", "/socket.io/?transport=polling"),
    "Engine.IO 3": request("GET", "/socket.io/?EIO=3&transport=polling"),
    "unknown version": request("GET", "/socket.io/?EIO=x&transport=polling"),
    "unknown transport": request("GET", "/socket.io/?EIO=4&transport=carrier"),
    "WebSocket without an upgrade": request("GET", ENGINE_PATH),
    "unknown sid": request("GET", f"{POLLING}&sid=unknown"),
    "sid with a line break": request("GET", f"{POLLING}&sid=a%0d%0aX"),
    "POST without a sid": wire.post(POLLING, b"40"),
    "POST to an unknown sid": wire.post(f"{POLLING}&sid=unknown", b"40"),
    "JSONP": request("GET", f"{POLLING}&j=0"),
    "JSONP with a script": request("GET", f"{POLLING}&j=%3Cscript%3E"),
    "PUT": request("PUT", POLLING),
    "DELETE": request("DELETE", f"{POLLING}{SID}"),
    "OPTIONS": request("OPTIONS", POLLING),
    "HEAD": request("HEAD", POLLING),
    "not a packet": wire.post(f"{POLLING}{SID}", b"\xff\xfe"),
    "no body": wire.post(f"{POLLING}{SID}", b""),
    "many packets": wire.post(f"{POLLING}{SID}", b"\x1e".join([b"3"] * 1000)),
    "separators": wire.post(f"{POLLING}{SID}", b"\x1e" * 1000),
    "bad base64": wire.post(f"{POLLING}{SID}", b"b!!!"),
    "unknown packet": wire.post(f"{POLLING}{SID}", b"9"),
    "deep JSON": wire.post(f"{POLLING}{SID}", b"42" + b"[" * 30_000),
    "too large": wire.post(f"{POLLING}{SID}", b"4" + b"x" * 2_000_000),
    "form field d": wire.post(f"{POLLING}{SID}", b"d=42[]"),
    "no length": request("POST", f"{POLLING}{SID}"),
    "negative length": request(
        "POST", f"{POLLING}{SID}", headers="Content-Length: -1\r\n", body=b"3"
    ),
    "non-numeric length": request(
        "POST", f"{POLLING}{SID}", headers="Content-Length: x\r\n", body=b"3"
    ),
    "huge length": request(
        "POST", f"{POLLING}{SID}", headers="Content-Length: 99999999999999999999\r\n", body=b"3"
    ),
    "two lengths": request(
        "POST", f"{POLLING}{SID}", headers="Content-Length: 1\r\nContent-Length: 2\r\n", body=b"33"
    ),
    "chunked": request(
        "POST", f"{POLLING}{SID}", headers="Transfer-Encoding: chunked\r\n",
        body=b"1\r\n3\r\n0\r\n\r\n",
    ),
    "bad chunks": request(
        "POST", f"{POLLING}{SID}", headers="Transfer-Encoding: chunked\r\n", body=b"zz\r\n3\r\n"
    ),
    "chunked with a length": request(
        "POST", f"{POLLING}{SID}", headers="Transfer-Encoding: chunked\r\nContent-Length: 1\r\n",
        body=b"1\r\n3\r\n0\r\n\r\n",
    ),
    "chunked without an end": request(
        "POST", f"{POLLING}{SID}", headers="Transfer-Encoding: chunked\r\nConnection: close\r\n",
        body=b"f4240\r\n" + b"x" * 1_000_000 + b"\r\n0\r\n\r\n",
    ),
    "upgrade of an unknown sid": upgrade(f"{ENGINE_PATH}&sid=unknown"),
    "upgrade without a transport": upgrade("/socket.io/"),
    "upgrade to polling": upgrade(POLLING),
    "upgrade elsewhere": upgrade("/healthz"),
    "upgrade to nowhere": upgrade("/"),
    "upgrade by POST": upgrade().replace(b"GET", b"POST", 1),
    "upgrade without a key": upgrade().replace(b"Sec-WebSocket-Key", b"X-Key"),
    "upgrade of another version": upgrade().replace(b"Version: 13", b"Version: 7"),
    "upgrade to HTTP/2": request(
        "GET", ENGINE_PATH, headers="Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    ),
    "upgrade with a body": upgrade(headers="Content-Length: 5\r\n") + b"hello",
    "upgrade with header bytes": upgrade().replace(b"\r\n\r\n", b"\r\nX-Y: \xff\xfe\r\n\r\n"),
    "foreign origin": upgrade(headers="Origin: https://evil.example\r\n"),
    "bad origin": upgrade(headers="Origin: \x01\r\n"),
    "no host": b"GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\n\r\n",
    "two hosts": request("GET", POLLING, headers="Host: evil.example\r\n"),
    "HTTP/1.0": f"GET {POLLING} HTTP/1.0\r\n\r\n".encode(),
    "HTTP/0.9": f"GET {POLLING}\r\n".encode(),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": bytes.fromhex("16030100c8010000c40303"),
    "not HTTP": b"\x00\x01\x02\r\n\r\n",
    "absolute path": request("GET", f"http://evil.example{POLLING}"),
    "path with bytes": b"GET /socket.io/\xff?EIO=4&transport=polling HTTP/1.1\r\nHost: x\r\n\r\n",
    "path with escapes": request("GET", "/socket.io/%ff%00?EIO=4&transport=polling"),
    "query with bytes": b"GET /socket.io/?EIO=4&transport=\xff HTTP/1.1\r\nHost: x\r\n\r\n",
    "large head": request("GET", POLLING, headers=f"X-Y: {'x' * 200_000}\r\n"),
    "many headers": request("GET", POLLING, headers="X: y\r\n" * 5000),
    "expect": request(
        "POST", f"{POLLING}{SID}", headers="Expect: 100-continue\r\nContent-Length: 1\r\n",
        body=b"3",
    ),
    "pipelined": request("GET", "/healthz") * 50,
}  # fmt: skip


@pytest.mark.parametrize("payload", REQUESTS.values(), ids=REQUESTS.keys())
async def test_malformed_request_is_answered_or_closed(
    shared: Served, payload: bytes, token: Token
) -> None:
    before = len(await log_lines(shared, token))
    async with Wire(shared.url) as session, Wire(shared.url) as connection:
        sid = await polling_sid(session)
        try:
            await connection.send(payload.replace(b"{sid}", sid.encode()))
            await connection.send(request("GET", "/nowhere", headers="Connection: close\r\n"))
        except Gone:
            pass
        async with asyncio.timeout(TIMEOUT):
            answer = await connection.read_to_the_end()
    statuses = [line.split()[1] for line in answer.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]
    assert all(status[:1] in (b"1", b"2", b"4") for status in statuses), answer
    requests = payload.count(b" HTTP/1.1\r\n")
    check_lines((await log_lines(shared, token))[before:], 2 * REQUEST_LOG_LINES + requests)


ARGUMENTS: dict[str, list[Any]] = {
    "none": [],
    "null": [None],
    "two": [{"job_id": "a"}, "more"],
    "many": [{"job_id": "a"}] * 100,
    "array": [["a"]],
    "text": ["a"],
    "long text": ["a" * 50_000],
    "wrong field": [{"id": "a"}],
    "wrong type": [{"job_id": {"a": 1}}],
    "long id": [{"job_id": "a" * 50_000}],
    "control characters": [{"job_id": "a\r\nINFO forged"}],
    "wrong cursor": [{"job_id": "a", "after": {"epoch": 1, "seq": "x"}}],
    "huge cursor": [{"job_id": "a", "after": {"epoch": "x", "seq": 2**64}}],
    "negative cursor": [{"job_id": "a", "after": {"epoch": "x", "seq": -1}}],
    "extra": [{"job_id": "a", "x": [[[]]]}],
    "long feed": [{"feed": "owner:" + "a" * 50_000}],
    "feed with control characters": [{"feed": "tag:a\r\nINFO forged"}],
    "owner with control characters": [{"feed": "owner:a\r\nINFO forged"}],
    "wrong filter": [{"feed": "mine", "filter": {"status": [["running"]]}}],
    "long filter": [{"feed": "mine", "filter": {"status": ["a"] * 10_000}}],
    "wrong time": [{"feed": "mine", "filter": {"since": "9999-99-99T99:99:99Z"}}],
    "huge limit": [{"feed": "mine", "limit": 2**64}],
    "wrong place": [{"feed": "mine", "after": "9" * 200}],
    "place without a join": [{"feed": "mine", "after": "1~a"}],
}


@pytest.mark.parametrize(
    "name",
    ["join_job", "leave_job", "refresh_token", "join_feed", "leave_feed", "unknown", "*"],
)
async def test_arguments_of_an_event_are_checked(
    shared: Served, shared_target: Target, token: Token, name: str
) -> None:
    before = len(await log_lines(shared, token))
    async with WebSocket(shared.url) as socket:
        await socket.greet(shared_target.token)
        for arguments in ARGUMENTS.values():
            await socket.send(event(name, *arguments))
            await socket.send(event(name, *arguments, ack=1))
        assert (await socket.ask("leave_job", {"job_id": "any"}))["ok"]
    new = (await log_lines(shared, token))[before:]
    check_lines(new, 4 * len(ARGUMENTS))
    assert not [line for line in new if line.startswith("INFO forged")]


async def test_second_websocket_of_a_session_is_refused(shared: Served, token: Token) -> None:
    """A client that knows the sid of another client's session cannot take the session over."""
    before = len(await log_lines(shared, token))
    async with WebSocket(shared.url) as socket:
        await socket.handshake()
        sid = json.loads((await socket.read_until("0"))[1:])["sid"]
        for path in (f"{ENGINE_PATH}&sid={sid}", f"{POLLING}&sid={sid}"):
            async with Wire(shared.url) as intruder, asyncio.timeout(TIMEOUT):
                await intruder.send(upgrade(path) + text("2probe") + text("5"))
                await intruder.read_to_the_end()
        async with Wire(shared.url) as intruder:
            await intruder.send(wire.post(f"{POLLING}&sid={sid}", b"9"))
            status, _ = await intruder.read_response()
            assert status == 400
        await socket.send(text(f'40{{"token":"{token()}"}}'))
        await socket.read_until("40")
    check_lines((await log_lines(shared, token))[before:], 4 * REQUEST_LOG_LINES)


async def test_truncated_request_leaves_no_traceback(shared: Served, token: Token) -> None:
    """Requests are cut at every seventh byte, by a close and by a reset."""
    before = len(await log_lines(shared, token))
    async with Wire(shared.url) as session:
        sid = await polling_sid(session)
    whole = wire.post(f"{POLLING}&sid={sid}", b"40/x,")
    for cut in range(1, len(whole), 7):
        for leave in (Wire.close, Wire.reset):
            async with Wire(shared.url) as connection:
                await connection.send(whole[:cut])
                leave(connection)
    handshake = upgrade() + text('40{"token":"x"}') + frame(wire.BINARY, b"x" * 200)
    for cut in range(1, len(handshake), 7):
        for leave in (Wire.close, Wire.reset):
            async with Wire(shared.url) as connection:
                await connection.send(handshake[:cut])
                await asyncio.sleep(0)
                leave(connection)
    check_lines((await log_lines(shared, token))[before:], 8 * (len(whole) + len(handshake)) // 7)


async def test_log_of_many_bad_requests_is_bounded(
    serve: Serve, token: Token, undisturbed: Undisturbed
) -> None:
    """The number of log lines does not grow in proportion to refused connections."""
    served = serve()

    async def send_bad_requests() -> None:
        for _ in range(10):
            async with WebSocket(served.url) as socket:
                with suppress(Gone):
                    await socket.handshake()
                    await socket.send(text("4x"))
                    await socket.read_until_closed()

    async with undisturbed(served):
        before, begin = len(served.log), time.monotonic()
        await asyncio.gather(*(send_bad_requests() for _ in range(50)))
        # uvicorn logs two lines about each connection; the number of jobcast's lines is bounded.
        own_lines = [line for line in served.log[before:].splitlines() if " closed " in line]
        assert BURST <= len(own_lines) <= BURST + RATE * (time.monotonic() - begin) + 1
