"""Validation of HTTP requests to the Socket.IO endpoint."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.types import Message, Receive

from jobcast.realtime.connection.screening import (
    Disconnected,
    Refused,
    address_of,
    read_body,
    replay,
    session_of,
)


def request(query: bytes, method: str = "GET", kind: str = "http") -> dict[str, Any]:
    return {"type": kind, "method": method, "query_string": query}


def receiving(*messages: Message) -> Receive:
    waiting = list(messages)

    async def receive() -> Message:
        return waiting.pop(0)

    return receive


def body(data: bytes, more: bool = False) -> Message:
    return {"type": "http.request", "body": data, "more_body": more}


def test_session_is_read_from_the_query() -> None:
    assert session_of(request(b"EIO=4&transport=polling&sid=a-B_9")) == "a-B_9"
    assert session_of(request(b"EIO=4&transport=websocket", kind="websocket")) is None


@pytest.mark.parametrize(
    ("query", "method", "status"),
    [
        (b"sid=a%0aX", "GET", 400),
        (b"sid=", "GET", 400),
        (b"sid=a&sid=b", "GET", 400),
        (b"sid=" + b"a" * 65, "GET", 400),
        (b"EIO=4&j=0", "GET", 400),
        (b"EIO=4\x00", "GET", 400),
        (b"EIO=4\xff", "POST", 400),
        (b"a=" + b"b" * 3000, "GET", 400),
        (b"EIO=4", "PUT", 405),
        (b"EIO=4", "TRACE", 405),
    ],
)
def test_malformed_request_is_refused(query: bytes, method: str, status: int) -> None:
    with pytest.raises(Refused) as refused:
        session_of(request(query, method))
    assert refused.value.status == status


async def test_body_is_read_and_replayed() -> None:
    receive = receiving(body(b"ab", more=True), body(b"cd"), {"type": "http.disconnect"})
    data = await read_body(receive, limit=4, timeout=5)
    assert data == b"abcd"
    again = replay(data, receive)
    assert await again() == body(b"abcd")
    assert await again() == {"type": "http.disconnect"}


async def test_oversized_or_incomplete_body_is_refused() -> None:
    with pytest.raises(Refused) as refused:
        await read_body(receiving(body(b"abcde", more=True)), limit=4, timeout=5)
    assert refused.value.status == 413
    with pytest.raises(Disconnected):
        await read_body(receiving({"type": "http.disconnect"}), limit=4, timeout=5)


@pytest.mark.parametrize(
    ("client", "address"),
    [
        (("192.0.2.7", 1), "192.0.2.7"),
        (("2001:db8:1:2:3:4:5:6", 1), "2001:db8:1:2::/64"),
        (("2001:db8:1:2::9", 1), "2001:db8:1:2::/64"),
        (("::ffff:192.0.2.7", 1), "192.0.2.7"),
        (("testclient", 50000), "testclient"),
        (None, ""),
    ],
)
def test_address_groups_ipv6_clients_by_network(client: object, address: str) -> None:
    assert address_of({"type": "http", "client": client}) == address
