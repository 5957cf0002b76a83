"""Clients that send requests but do not read the responses."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress

import pytest

from tests.e2e.hostile.conftest import (
    Serve,
    Token,
    Undisturbed,
    cancel_attacks,
    wait_for_events,
    wait_until_only_innocent_is_connected,
)  # fmt: skip
from tests.support import TIMEOUT, eventually, wire
from tests.support.attacks.attack import Target
from tests.support.attacks.catalogue import POLLING, polling_sid
from tests.support.attacks.history import LINES
from tests.support.attacks.server import Served
from tests.support.wire import Gone, WebSocket, Wire, event, frame, text

CHUNK = 512 * 1024  # bytes that a slow client reads at a time


@pytest.mark.parametrize(
    "sends", [text("3"), frame(wire.PING, b"x"), event("leave_job", {"job_id": "x"}), b""],
    ids=["pong", "ping", "request", "nothing"],
)  # fmt: skip
async def test_client_that_reads_nothing_is_cut_whatever_it_sends(
    served: Served, target: Target, undisturbed: Undisturbed, sends: bytes
) -> None:
    async with undisturbed(served), WebSocket(served.url, window=wire.SMALL_WINDOW) as socket:
        await socket.greet(target.token)
        await socket.send(event("join_job", {"job_id": target.job_id}, ack=1))
        sending = asyncio.create_task(_send_periodically(socket, sends))
        await wait_until_only_innocent_is_connected(served)
        await cancel_attacks(sending)


async def _send_periodically(socket: WebSocket, data: bytes) -> None:
    with suppress(Gone):
        while True:
            await socket.send(data)
            await asyncio.sleep(0.2)


async def test_slow_but_steady_reader_is_not_cut(
    serve: Serve, token: Token, long_job: str, undisturbed: Undisturbed
) -> None:
    served = serve(JOBCAST_SEND_TIMEOUT="8")
    async with undisturbed(served), WebSocket(served.url, window=wire.SMALL_WINDOW) as socket:
        await socket.greet(token(jobs=[long_job]))
        await socket.send(event("join_job", {"job_id": long_job}, ack=1))
        lines: list[str] = []
        while len(lines) < LINES:  # for more than 8 s
            before = socket.received
            while socket.received - before < CHUNK and len(lines) < LINES:
                lines += [packet for packet in await socket.read_packets() if "job_log" in packet]
            await asyncio.sleep(0.6)
        numbers = [json.loads(line[2:])[1]["message"].lstrip("x") for line in lines]
        assert numbers == [str(n) for n in range(LINES)]
        assert (await socket.ask("leave_job", {"job_id": long_job}))["ok"]


async def test_many_unread_histories_cost_no_more_than_one(
    served: Served, target: Target, undisturbed: Undisturbed
) -> None:
    """One connection requests a history of 8 MiB a hundred times."""
    async with undisturbed(served) as client:
        async with WebSocket(served.url, window=wire.SMALL_WINDOW) as socket:
            await socket.greet(target.token)
            await socket.send(event("join_job", {"job_id": target.job_id}, ack=1) * 100)
            await wait_for_events(client)
            await wait_until_only_innocent_is_connected(served)


async def test_long_polling_session_that_does_not_poll_is_bounded(
    served: Served, target: Target, undisturbed: Undisturbed
) -> None:
    async with undisturbed(served) as client, Wire(served.url) as connection:
        path = f"{POLLING}&sid={await polling_sid(connection)}"
        hello = f"40{json.dumps({'token': target.token})}"
        join = f"421{json.dumps(['join_job', {'job_id': target.job_id}])}"
        await connection.send(wire.post(path, hello.encode()))
        assert await connection.read_response() == (200, b"OK")
        status = 200
        async with asyncio.timeout(TIMEOUT):
            while status == 200:
                await connection.send(wire.post(path, "\x1e".join([join] * 16).encode()))
                status, _ = await connection.read_response()
        assert status == 400
        reason = "the client does not poll (JOBCAST_SEND_TIMEOUT)"
        await eventually(lambda: reason in served.log, "log line")
        await wait_for_events(client)


async def test_stuck_connection_does_not_delay_another_of_its_subject(
    served: Served, target: Target, undisturbed: Undisturbed, token: Token
) -> None:
    """While one connection of a subject is stuck, the server still serves another."""
    async with undisturbed(served), WebSocket(served.url, window=wire.SMALL_WINDOW) as stuck:
        await stuck.greet(target.token)
        await stuck.send(event("join_job", {"job_id": target.job_id}, ack=1) * 2)
        async with WebSocket(served.url) as other:
            await other.greet(target.token)
            assert (await other.ask("leave_job", {"job_id": "any"}))["ok"]
        await wait_until_only_innocent_is_connected(served)
