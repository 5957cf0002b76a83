"""The parts of a soak that its short runs do not prove."""

from __future__ import annotations

import asyncio
import gc
import random
from collections import Counter

from aiohttp import ClientSession, web

from bench.chaos import Valkey
from bench.soak.client import Client
from bench.soak.redis_stores import ended_jobs
from bench.soak.run import background
from jobcast.transports.redis_names import Keys
from tests.support import eventually

OPEN = '0{"sid":"a","upgrades":[],"pingInterval":25000,"pingTimeout":20000}'
CONNECTED = '40{"sid":"b"}'
GONE = web.AppKey("gone", asyncio.Event)  # the client is


def test_jobs_with_a_stored_ending_are_found(own_valkey: Valkey) -> None:
    for job_id, state in (("one", "complete"), ("two", "error"), ("three", "started")):
        own_valkey.command("HSET", Keys.of(job_id).state, "state", state)
    assert ended_jobs(own_valkey.url, ["one", "two", "three", "four"]) == {"one", "two"}


def test_stored_endings_are_read_in_one_round_trip(own_valkey: Valkey) -> None:
    ended_jobs(own_valkey.url, [])
    before = own_valkey.command("INFO", "stats")["total_connections_received"]
    ended_jobs(own_valkey.url, [f"job-{number}" for number in range(500)])
    after = own_valkey.command("INFO", "stats")["total_connections_received"]
    assert after - before == 2  # the look itself, and this INFO


async def _never_answer_a_close(request: web.Request) -> web.StreamResponse:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    await socket.send_str(OPEN)
    await socket.send_str(CONNECTED)
    await request.app[GONE].wait()
    return socket


def open_sessions() -> list[ClientSession]:
    return [o for o in gc.get_objects() if type(o) is ClientSession and not o.closed]


async def test_a_client_that_is_cancelled_twice_closes_its_session() -> None:
    before = open_sessions()
    app = web.Application()
    app[GONE] = asyncio.Event()
    app.router.add_get("/socket.io/", _never_answer_a_close)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    counts = Counter[str]()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    client = Client("client", "token", [url], random.Random(1), counts)
    async with background([client.run()]):  # cancels it every second until it has ended
        await eventually(lambda: counts["connections"], "connection")
    app[GONE].set()
    await runner.cleanup()
    assert open_sessions() == before
