"""The floor: a loop that only writes prepared frames to sockets.

It supports only the Socket.IO packets that the load generator needs to connect and to join. A plan
arrives on standard input as a line of JSON. Without a rate, the loop prepares all frames before the
first write.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
import sys
import time
from typing import Any, cast

import uvloop

from jobcast.realtime.connection.frames import frame

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
OPEN = frame('0{"sid":"x","upgrades":[],"pingInterval":3600000,"pingTimeout":3600000}')
CONNECTED = frame('40{"sid":"x"}')
JOINED = frame('430[{"ok":true}]')

joined: list[asyncio.Transport] = []


class Client(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._replies = [CONNECTED, JOINED]

    def data_received(self, data: bytes) -> None:
        key = re.search(rb"(?i)sec-websocket-key: (\S+)", data)
        if key is None:
            for _ in range(_frames(data)):
                self._transport.write(self._replies.pop(0))
            if not self._replies:
                joined.append(self._transport)
            return
        accept = base64.b64encode(hashlib.sha1(key[1] + GUID).digest())
        self._transport.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n" + OPEN
        )

    def connection_lost(self, _: Exception | None) -> None:
        if self._transport in joined:
            joined.remove(self._transport)


def _frames(data: bytes) -> int:
    """Return the number of masked frames, each shorter than 64 KiB."""
    count = 0
    while data:
        length = data[1] & 127
        start = 6
        if length == 126:
            length, start = int.from_bytes(data[2:4], "big"), 8
        data = data[start + length :]
        count += 1
    return count


def event(job_id: str, n: int) -> bytes:
    message = f"line {n:07} at {time.monotonic_ns()}"
    data = {
        "job_id": job_id,
        "timestamp": "2026-11-23T12:00:00.000000Z",
        "seq": n + 1,
        "level": "info",
        "message": message,
    }
    return frame(f'42["job_log",{json.dumps(data, separators=(",", ":"))}]')


async def run_plan(plan: dict[str, Any]) -> None:
    [job_id], events, rate = plan["jobs"], plan["events"], plan["rate"]
    if not rate:
        burst = b"".join([event(job_id, n) for n in range(events)])
        for transport in joined:
            transport.write(burst)
        return
    began = time.monotonic()
    for n in range(events):
        await asyncio.sleep(max(0.0, began + n / rate - time.monotonic()))
        data = event(job_id, n)
        for transport in joined:
            transport.write(data)


async def main(port: int) -> None:
    loop = asyncio.get_running_loop()
    await loop.create_server(Client, "127.0.0.1", port, backlog=4096)
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        await run_plan(json.loads(line))
        print("done", flush=True)


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
