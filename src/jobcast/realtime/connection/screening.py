"""Validation of HTTP requests to the Socket.IO endpoint before python-engineio reads them."""

from __future__ import annotations

import asyncio
import json
import re
from functools import lru_cache
from http import HTTPStatus
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final
from urllib.parse import parse_qs

from starlette.types import Message, Receive, Scope, Send

METHODS: Final = frozenset({"GET", "POST", "OPTIONS"})
MAX_QUERY: Final = 2048  # bytes
DRAINING_MESSAGE: Final = "the server process is about to exit; try again"
DRAINING_RETRY_AFTER: Final = 1  # seconds; another process may accept the connection at once
ADDRESSES_CACHED: Final = 1024  # a connection asks for its address several times

# Browsers encode queries as printable ASCII without spaces.
_QUERY: Final = re.compile(rb"[\x21-\x7e]*\Z")
# Whether a query may have the parameter ``sid`` or ``j``; percent-encoding can hide both.
_NAMES_SESSION: Final = re.compile(rb"sid|j=|j\Z|j&|%")
_SID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")


class Refused(Exception):
    """A request is refused with an HTTP error.

    Args:
        status: the HTTP status.
        message: the message for the client.
        retry_after: seconds until the client should retry; None for no such header.
    """

    def __init__(self, status: HTTPStatus, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.retry_after = retry_after


class Disconnected(Exception):
    """The client disconnected before its request or the response was complete."""


def session_of(scope: Scope) -> str | None:
    """Return the Engine.IO session id of a request, or None if the request opens a session.

    Raises:
        Refused: the request is malformed.
    """
    if scope["type"] == "http" and scope["method"] not in METHODS:
        raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, "the method is not supported")
    query: bytes = scope["query_string"]
    if len(query) > MAX_QUERY or not _QUERY.match(query):
        raise Refused(HTTPStatus.BAD_REQUEST, "the query is malformed")
    if not _NAMES_SESSION.search(query):
        return None
    parameters = parse_qs(query.decode("ascii"), keep_blank_values=True)
    if "j" in parameters:
        raise Refused(HTTPStatus.BAD_REQUEST, "JSONP is not supported")
    sids = parameters.get("sid")
    if sids is None:
        return None
    [sid, *others] = sids
    if others or not _SID.match(sid):
        raise Refused(HTTPStatus.BAD_REQUEST, "the session id is malformed")
    return sid


async def read_body(receive: Receive, *, limit: int, timeout: float) -> bytes:
    """Read the body of a request.

    Args:
        receive: the ASGI ``receive`` callable.
        limit: the maximum size in bytes.
        timeout: the maximum time for the whole body, in seconds.

    Raises:
        Refused: the body is too large, or did not arrive in time.
        Disconnected: the client disconnected.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(timeout):
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    raise Disconnected
                body += message.get("body", b"")
                if len(body) > limit:
                    raise Refused(
                        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                        f"a request may have at most {limit} bytes",
                    )
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError:
        raise Refused(HTTPStatus.REQUEST_TIMEOUT, "the request did not arrive in time") from None


def replay(body: bytes, receive: Receive) -> Receive:
    """Return a ``receive`` that yields an already read body, then the remaining messages."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return messages.pop() if messages else await receive()

    return receive_again


def address_of(scope: Scope) -> str:
    """Return the client's address for connection limits. For IPv6 it is the /64 network."""
    client = scope.get("client")
    return _network_of(str(client[0])) if client else ""


@lru_cache(maxsize=ADDRESSES_CACHED)
def _network_of(host: str) -> str:
    try:
        address = ip_address(host)
    except ValueError:
        return host[:64]
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ip_network((address.packed, 64), strict=False))
    return str(address)


async def refuse(scope: Scope, receive: Receive, send: Send, problem: Refused) -> None:
    """Answer a request or a WebSocket handshake with an error."""
    body = json.dumps({"message": problem.message}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
        # Pages of any origin may read the reason, which the WebSocket API does not expose.
        (b"access-control-allow-origin", b"*"),
    ]
    if problem.retry_after is not None:
        headers.append((b"retry-after", str(problem.retry_after).encode()))
    prefix = ""
    if scope["type"] == "websocket":
        await receive()  # websocket.connect
        if "websocket.http.response" not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": 1008, "reason": ""})
            return
        prefix = "websocket."
    start = {"type": f"{prefix}http.response.start", "status": problem.status, "headers": headers}
    await send(start)
    await send({"type": f"{prefix}http.response.body", "body": body})
