"""Valid and mutated structures: JSON, Socket.IO, Engine.IO, WebSocket, HTTP.

All random choices come from one ``random.Random``, so that a seed reproduces them.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Final, TypeVar

from tests.support import wire

T = TypeVar("T")

EVENTS: Final = (
    "join_job", "leave_job", "refresh_token", "connect", "disconnect", "connect_error",
    "disconnecting", "message", "unknown", "*", "", "join_feed", "cancel_job", "__proto__",
)  # fmt: skip
NAMESPACES: Final = ("", "/", "/,", "/jobs,", "/x", "/?a=b,", "//,", f"/{'n' * 5000},", "/é,", ",")
NUMBERS: Final = (
    "0", "-1", "1", "1.5", "-0.0", "1e400", "9007199254740993", str(2**63), str(2**64), "9" * 400,
    "NaN", "Infinity", "01", "0x1", "\u0663",
)  # fmt: skip
TEXTS: Final = (
    '""', '"a"', '"\\ud800"', '"\\udc00\\ud800"', '"\\u0000"', '"a\\r\\nINFO forged"',
    '"\u001b[31m"', '"\\u001b]8;;x"', '"é"', '"\U0001f600"', '"', '"\\x"', '"%s%n{0}"',
)  # fmt: skip
OPCODES: Final = (0, 1, 1, 1, 1, 2, 3, 7, 8, 9, 10, 11, 15)
SIZES: Final = (0, 1, 125, 126, 127, 1000, 65_535, 65_536, 70_000)
METHODS: Final = (
    "GET",
    "GET",
    "POST",
    "POST",
    "OPTIONS",
    "HEAD",
    "PUT",
    "DELETE",
    "TRACE",
    "get",
    "",
)
LENGTHS: Final = ("0", "1", "5", "-1", "x", "", "1e3", "99999999999999999999", "5, 5", "+5", " 5")


class Mutations:
    """Generator of random input for a server.

    Args:
        rng: the source of all choices.
        token: a valid token, which also appears in wrong places.
        jobs: job ids, some of which exist.
    """

    def __init__(self, rng: Random, token: str, jobs: Sequence[str]) -> None:
        self.rng = rng
        self._token = token
        self._jobs = jobs

    def rarely(self, chance: float = 0.1) -> bool:
        return self.rng.random() < chance

    def call_any(self, *makers: Callable[[], T]) -> T:
        return self.rng.choice(makers)()

    # JSON ---------------------------------------------------------------------------------------

    def json(self, depth: int = 4) -> str:
        """Return JSON of any shape, often valid."""
        if self.rarely(0.02):
            return self._deep()
        if depth <= 0 or self.rarely(0.4):
            return self.rng.choice(
                (*NUMBERS, *TEXTS, "null", "true", "false", "[]", "{}", "", f'"{"x" * 5000}"')
            )
        if self.rarely(0.5):
            return f"[{','.join(self.json(depth - 1) for _ in range(self.rng.randrange(4)))}]"
        return self._object(depth)

    def _object(self, depth: int) -> str:
        keys = ("job_id", "token", "after", "epoch", "seq", "_placeholder", "num", "a", "a", "é")
        pairs = (
            f'"{self.rng.choice(keys)}":{self.json(depth - 1)}'
            for _ in range(self.rng.randrange(4))
        )
        return f"{{{','.join(pairs)}}}"

    def _deep(self) -> str:
        levels, opening = self.rng.choice((50, 600, 2000, 20_000)), self.rng.choice(("[", '{"a":'))
        closing = "]" if opening == "[" else "}"
        return opening * levels + (closing * levels if self.rarely(0.5) else "")

    def request(self) -> Any:
        """Return a payload that matches the protocol, or nearly does."""
        job_id = self.rng.choice((*self._jobs, "x" * 256, "x" * 257, "a/b", "", "é\u2028", "*"))
        payload: dict[str, Any] = {"job_id": job_id}
        if self.rarely(0.3):
            payload["after"] = {
                "epoch": self.rng.choice(("", "x", "é" * 100)),
                "seq": self.rng.choice((-1, 0, 1, 2**53, 2**64, "1", None)),
            }
        if self.rarely(0.2):
            payload["token"] = self.rng.choice((self._token, self._token[:-3], "", 7))
        return payload

    def arguments(self) -> str:
        """Return the arguments after an event's name."""
        if self.rarely(0.5):
            return json.dumps(self.request())
        return ",".join(self.json() for _ in range(self.rng.choice((0, 1, 1, 2, 3, 40))))

    # Socket.IO ----------------------------------------------------------------------------------

    def message(self) -> str:
        """Return a Socket.IO packet."""
        kind = self.rng.choice("0122222222333456789x") if self.rarely(0.6) else "2"
        attachments = ""
        if kind in "56" or self.rarely(0.03):
            attachments = f"{self.rng.choice((0, 1, 1, 2, 10, 459_999, 10**9, 10**12))}-"
        namespace = self.rng.choice(NAMESPACES) if self.rarely(0.2) else ""
        ack = self.rng.choice(("", "", "0", "1", "17", "9" * 50, "9" * 101, "-1"))
        return self._damaged(f"{kind}{attachments}{namespace}{ack}{self._payload(kind)}")

    def _payload(self, kind: str) -> str:
        if kind == "0":
            valid = json.dumps({"token": self._token})
            return self.call_any(lambda: valid, lambda: "", self.json)
        if kind in "25":
            name = self.rng.choice(EVENTS) if self.rarely(0.5) else "join_job"
            arguments = self.arguments()
            if kind == "5" and self.rarely(0.7):
                arguments = (
                    f'{{"_placeholder":true,"num":{self.rng.choice((0, 0, 1, -1, 99, "x"))}}}'
                )
            return f"[{json.dumps(name)}{',' if arguments else ''}{arguments}]"
        return self.call_any(self.json, lambda: "[]", lambda: "")

    def _damaged(self, text: str) -> str:
        """Return the text, occasionally with a piece removed, repeated or replaced."""
        if not text or not self.rarely(0.15):
            return text
        at, length = self.rng.randrange(len(text)), self.rng.randrange(1, 6)
        piece = self.rng.choice(
            ("", text[at : at + length] * 2, "\x00", "\x1e", "é", "\ufeff", "9" * 20)
        )
        return text[:at] + piece + text[at + length :]

    # Engine.IO ----------------------------------------------------------------------------------

    def packet(self) -> str:
        """Return an Engine.IO packet."""
        if self.rarely(0.75):
            return f"4{self.message()}"
        data = base64.b64encode(self.rng.randbytes(self.rng.choice((0, 1, 3, 300)))).decode()
        return self.rng.choice(
            ("3", "3probe", "2", "2probe", "5", "6", "1", "0{}", "7", "x", "", "\x1e", "4",
             f"b{data}", f"b{data}!", "bé", "3" * 2000)
        )  # fmt: skip

    def payload(self) -> bytes:
        """Return the body of a long-polling request."""
        count = self.rng.choice((1, 1, 1, 2, 5, 16, 17, 200))
        body = "\x1e".join(self.packet() for _ in range(count)).encode("utf-8", "surrogatepass")
        if self.rarely(0.1):
            body = self.rng.choice(
                (b"", b"\xff\xfe", b"d=" + body, body[: len(body) // 2], b"\x1e" * 500,
                 b"4" + b"x" * 150_000)
            )  # fmt: skip
        return body

    # WebSocket ----------------------------------------------------------------------------------

    def frames(self) -> bytes:
        """Return WebSocket frames of a client, complete or not."""
        if self.rarely(0.12):
            return self._wrong_frame()
        if self.rarely(0.05):
            return wire.frame(wire.BINARY, self.rng.randbytes(self.rng.choice(SIZES)))
        if self.rarely(0.05):
            return wire.frame(
                self.rng.choice((wire.PING, wire.PONG)), b"x" * self.rng.randrange(126)
            )
        data = self.packet().encode("utf-8", "surrogatepass")
        if self.rarely(0.1):
            return self._fragments(data)
        return wire.frame(wire.TEXT, data)

    def _fragments(self, data: bytes) -> bytes:
        cut = self.rng.randrange(len(data) + 1)
        middle = self.rng.choice((b"", wire.frame(wire.PING, b"x"), wire.frame(wire.TEXT, b"3")))
        empty = wire.frame(wire.CONTINUATION, fin=False) * self.rng.choice((0, 0, 1, 300))
        last = wire.frame(wire.CONTINUATION, data[cut:], fin=not self.rarely())
        return wire.frame(wire.TEXT, data[:cut], fin=False) + middle + empty + last

    def _wrong_frame(self) -> bytes:
        data = wire.frame(
            self.rng.choice(OPCODES), self.rng.randbytes(self.rng.choice(SIZES)),
            fin=not self.rarely(0.3), masked=not self.rarely(0.3),
            rsv=self.rng.choice((0, 0, 1, 2, 4, 7)),
        )  # fmt: skip
        if self.rarely(0.3):
            data = data[: self.rng.randrange(len(data) + 1)]
        if self.rarely(0.1):
            data = b"\x81\xff" + self.rng.choice((b"\xff" * 8, (2**40).to_bytes(8))) + bytes(4)
        if self.rarely(0.1):
            code = self.rng.choice(
                (b"", b"\x03", b"\x03\xe8", b"\x00\x00", b"\xff\xff", b"\x03\xe8\xff")
            )
            data = wire.frame(wire.CLOSE, code)
        return data

    # HTTP ---------------------------------------------------------------------------------------

    def query(self, sid: str) -> str:
        """Return the query of a request for a session."""
        parts = {
            "EIO": self.rng.choice(("4", "4", "4", "4", "3", "x", "")),
            "transport": self.rng.choice(
                ("polling", "polling", "polling", "websocket", "webtransport", "x", "")
            ),
            "sid": sid,
        }
        if self.rarely(0.1):
            parts[self.rng.choice(("t", "j", "b64", "sid", "EIO"))] = self.rng.choice(
                ("1", "x", "%0d%0aX", "%00", "<script>", "é".encode().hex(), "_" * 300)
            )
        if self.rarely(0.1):
            parts.pop(self.rng.choice(list(parts)))
        items = list(parts.items())
        self.rng.shuffle(items)
        return "&".join(f"{name}={value}" for name, value in items if value or self.rarely())

    def http(self, sid: str) -> bytes:
        """Return an HTTP request, or the beginning of one."""
        path = self.rng.choice(
            ("/socket.io/", "/socket.io/", "/socket.io/", "/socket.io", "/healthz", "/", "/%00",
             "/socket.io/../healthz", "/socket.io/%ff", "*", "http://x/socket.io/")
        )  # fmt: skip
        method, body = self.rng.choice(METHODS), b""
        headers = "".join(self._header() for _ in range(self.rng.randrange(3)))
        if method == "POST" or self.rarely():
            body = self.payload()
            headers += self._framing(body)
        if self.rarely(0.15):
            headers += (
                "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            )
        data = wire.request(method, f"{path}?{self.query(sid)}", headers=headers, body=body)
        if "chunked" in headers:
            head, _, _ = data.partition(b"\r\n\r\n")
            data = head + b"\r\n\r\n" + self._chunks(body)
        if self.rarely(0.08):
            data = data[: self.rng.randrange(len(data))]
        if data and self.rarely(0.05):
            at = self.rng.randrange(len(data))
            data = data[:at] + self.rng.randbytes(3) + data[at + 3 :]
        return data * (self.rng.choice((2, 10)) if self.rarely(0.1) else 1)

    def stream_request(self) -> bytes:
        """Return a request to the HTTP interface that is valid, or nearly."""
        jobs = self.rng.choices(
            (*self._jobs, "a/b", "", "x" * 129, "%00", "%ff", "é".encode().hex(), "a%2Fevents"),
            weights=(*[8] * len(self._jobs), 1, 1, 1, 1, 1, 1, 1), k=self.rng.choice((1, 1, 2, 60)),
        )  # fmt: skip
        path = self.call_any(
            lambda: f"/jobs/{jobs[0]}/events", lambda: f"/jobs/{jobs[0]}",
            lambda: "/events", lambda: "/jobs/", lambda: "/openapi.json",
        )  # fmt: skip
        parameters = [f"job={job}" for job in jobs] if path == "/events" else []
        parameters += [
            f"{name}={self.position() if name == 'after' else self.rng.choice(NUMBERS[:-1])}"
            for name in ("after", "wait", "logs", "token", "x")
            if self.rarely(0.2)
        ]
        headers = "".join(self._header() for _ in range(self.rng.randrange(2)))
        if self.rarely(0.8):
            headers += f"Authorization: Bearer {self._token}\r\n"
        if self.rarely(0.4):
            headers += f"Last-Event-ID: {self.position()}\r\n"
        return wire.request(
            self.rng.choice(METHODS) if self.rarely() else "GET",
            f"{path}?{'&'.join(parameters)}", headers=headers,
        )  # fmt: skip

    def position(self) -> str:
        """Return a position in one or more jobs, valid or not."""
        epochs = ("x", "9f3a", "", "x" * 65, "%41", "a:b")
        entries = (
            f"{self.rng.choice(epochs)}:{self.rng.choice(NUMBERS[:-1])}"
            for _ in range(self.rng.choice((1, 1, 2, 60)))
        )
        return ",".join(entries)

    def _header(self) -> str:
        return self.rng.choice(
            ("Connection: close\r\n", "Connection: keep-alive\r\n", "Origin: http://evil.example\r\n",
             "Origin: null\r\n", "Host: evil.example\r\n", "X-Forwarded-For: 10.0.0.1, x\r\n",
             "X-Forwarded-Proto: wss\r\n", "Accept-Encoding: gzip, deflate\r\n",
             "Expect: 100-continue\r\n", "Content-Type: application/json\r\n", "Cookie: a=b\r\n",
             "X: y\rZ: q\r\n", "X : y\r\n", " folded\r\n", "X-Y: é\r\n", f"X: {'x' * 9000}\r\n",
             f"Authorization: Bearer {self._token}\r\n", "Range: bytes=0-\r\n", ": x\r\n",
             "Upgrade: h2c\r\nConnection: Upgrade\r\n", "Sec-WebSocket-Protocol: a,,b\r\n",
             "Sec-WebSocket-Extensions: permessage-deflate; x\r\n")
        )  # fmt: skip

    def _framing(self, body: bytes) -> str:
        if self.rarely(0.15):
            return "Transfer-Encoding: chunked\r\n"
        length: object = len(body)
        if self.rarely(0.15):
            length = self.rng.choice(LENGTHS)
        extra = "Content-Length: 3\r\n" if self.rarely(0.02) else ""
        return f"Content-Length: {length}\r\n{extra}"

    def _chunks(self, body: bytes) -> bytes:
        size = self.rng.choice((1, 7, 1000, 10**6))
        pieces = [body[at : at + size] for at in range(0, len(body), size)][:200]
        data = b"".join(f"{len(piece):x}\r\n".encode() + piece + b"\r\n" for piece in pieces)
        if self.rarely(0.2):
            return data + self.rng.choice((b"zz\r\n", b"-1\r\n", b"ffffffffffffffff\r\n", b""))
        return data + b"0\r\n\r\n"
