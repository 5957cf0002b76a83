"""Prints the objects that closed connections leave in reference cycles, as JSON."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
from collections import Counter

import aiohttp
import uvicorn
import uvloop

from jobcast.realtime import create_app
from jobcast.realtime.connection.uvicorn import LimitedHttpProtocol
from jobcast.settings import Settings
from jobcast.tokens import mint
from tests.e2e.raw import RawClient
from tests.support import SECRET, eventually, free_port

WARM_UP, COUNT = 5, 20


async def websocket(url: str) -> None:
    client = RawClient(url)
    try:
        await client.connect(mint(SECRET, "alice", jobs=["*"]))
        await client.join("job")
    finally:
        client.close()


async def polling(url: str) -> None:
    async with aiohttp.ClientSession() as session:
        endpoint = f"{url}/socket.io/?EIO=4&transport=polling"
        async with session.get(endpoint) as response:
            sid = json.loads((await response.text())[1:])["sid"]
        async with session.post(f"{endpoint}&sid={sid}", data="1") as response:
            await response.read()


async def plain(url: str) -> None:
    async with aiohttp.ClientSession() as session, session.get(f"{url}/healthz") as response:
        await response.read()


async def main(kind: str) -> None:
    os.environ["JOBCAST_JWT_SECRET"] = SECRET
    app = create_app(Settings(url="memory://", jwt_secret=SECRET))
    port = free_port()
    config = uvicorn.Config(
        app, port=port, http=LimitedHttpProtocol, ws="websockets-sansio", log_level="warning",
        ws_per_message_deflate=False, ws_ping_interval=None,
    )  # fmt: skip
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    await eventually(lambda: server.started, "server")
    connect = {"websocket": websocket, "polling": polling, "plain": plain}[kind]

    async def connect_all(count: int) -> None:
        for _ in range(count):
            await connect(f"http://127.0.0.1:{port}")
        open_connections = server.server_state.connections
        await eventually(
            lambda: not open_connections and not server.server_state.tasks, "end of the connections"
        )

    await connect_all(WARM_UP)
    gc.collect()
    gc.disable()
    await connect_all(COUNT)
    gc.set_debug(gc.DEBUG_SAVEALL)
    gc.collect()
    garbage = Counter(f"{type(item).__module__}.{type(item).__qualname__}" for item in gc.garbage)
    gc.set_debug(0)
    gc.garbage.clear()
    print(json.dumps(garbage))
    server.should_exit = True
    await serving


if __name__ == "__main__":
    # The transports of asyncio itself contain cycles.
    uvloop.run(main(sys.argv[1]))
