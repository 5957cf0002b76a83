"""A WebSocket client that reads only when a test asks it to."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.uri import parse_uri


class RawClient:
    """A Socket.IO client that controls each read from its socket."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self._protocol = ClientProtocol(
            parse_uri(f"ws://{address.netloc}/socket.io/?EIO=4&transport=websocket")
        )
        self._peer = address.hostname, address.port
        self._socket = socket.socket()
        # The kernel chooses the size of the receive buffer. With a few kB the TCP window may stay
        # smaller than a segment: data then arrives by 200 ms probes, and the reader seems slow.
        self._socket.setblocking(False)
        self.packets: list[str] = []

    async def connect(self, token: str) -> None:
        await asyncio.get_running_loop().sock_connect(self._socket, self._peer)
        self._protocol.send_request(self._protocol.connect())
        await self._flush()
        await self.read_until(lambda packet: packet.startswith("0"))
        await self.send(f"40{json.dumps({'token': token})}")
        await self.read_until(lambda packet: packet.startswith("40"))

    async def join(self, job_id: str, after: dict[str, Any] | None = None) -> None:
        """Join a job and read up to the acknowledgement."""
        request: dict[str, Any] = {"job_id": job_id}
        if after is not None:
            request["after"] = after
        await self.send(f"421{json.dumps(['join_job', request])}")
        await self.read_until(lambda packet: packet.startswith("431"))

    async def send(self, packet: str) -> None:
        self._protocol.send_text(packet.encode())
        await self._flush()

    async def read_until(self, wanted: Any) -> str:
        """Read up to a packet that matches.

        Raises:
            ConnectionError: the connection ended first.
        """
        while True:
            before = len(self.packets)
            await self._read_some()
            for packet in self.packets[before:]:
                if wanted(packet):
                    return packet

    async def read_to_the_end(self) -> None:
        """Read pending packets until the connection is closed."""
        try:
            await self.read_until(lambda _: False)
        except ConnectionError:
            return

    def events(self, name: str) -> list[dict[str, Any]]:
        return [
            payload
            for packet in self.packets
            if packet.startswith("42[")
            for event, payload in [json.loads(packet[2:])]
            if event == name
        ]

    def close(self) -> None:
        self._socket.close()

    async def _read_some(self) -> None:
        data = await asyncio.get_running_loop().sock_recv(self._socket, 65536)
        if not data:
            raise ConnectionError("the server closed the connection")
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if not isinstance(event, Frame):
                continue
            if event.opcode is Opcode.TEXT:
                packet = bytes(event.data).decode()
                self.packets.append(packet)
                if packet == "2":
                    await self.send("3")
            elif event.opcode is Opcode.CLOSE:
                raise ConnectionError("the server closed the connection")
        await self._flush()

    async def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                await asyncio.get_running_loop().sock_sendall(self._socket, data)


@asynccontextmanager
async def raw_client(url: str, token: str) -> AsyncIterator[RawClient]:
    client = RawClient(url)
    try:
        await client.connect(token)
        yield client
    finally:
        client.close()
