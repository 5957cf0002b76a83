"""Request budgets of a connection. Well-behaved clients never exceed them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from jobcast.testing import log, progress, started
from jobcast.transports import Outgoing, TransportPublisher, open_publisher
from tests.conftest import Valkey
from tests.e2e.hostile.conftest import Serve, Token, Undisturbed, cancel_attacks, wait_for_events
from tests.support import TIMEOUT, eventually, new_id, wire
from tests.support.attacks.attack import Seen, Target
from tests.support.attacks.catalogue import BY_NAME
from tests.support.attacks.server import Served
from tests.support.wire import Gone, WebSocket, event

JOBS = 200  # JOBCAST_MAX_JOBS
LINES = 50  # log lines of each job


@pytest.fixture
def publisher(valkey: Valkey) -> Iterator[TransportPublisher]:
    publisher = open_publisher(valkey.url)
    yield publisher
    publisher.close()


@pytest.fixture
def jobs(publisher: TransportPublisher) -> list[str]:
    """The maximum number of jobs that a connection may follow, each with a history."""
    job_ids = [new_id() for _ in range(JOBS)]
    for job_id in job_ids:
        events = [started(job_id), *(log(job_id, "x" * 200) for _ in range(LINES))]
        publisher.publish([Outgoing.of(each) for each in [*events, progress(job_id, 50)]])
    return job_ids


async def attack_until_refused(target: Target, attack: str) -> Seen:
    """Attack until the server refuses a request or closes the connection."""
    seen = Seen()
    task = asyncio.create_task(BY_NAME[attack].once(target, seen))
    await eventually(lambda: seen.codes["rate_limited"] or task.done(), "refusal")
    await cancel_attacks(task)
    return seen


async def test_loop_of_joins_of_a_long_history_is_refused(
    served: Served, target: Target, undisturbed: Undisturbed
) -> None:
    async with undisturbed(served) as client:
        joining = asyncio.create_task(attack_until_refused(target, "join-loop"))
        await wait_for_events(client)
        seen = await joining
        assert seen.codes["rate_limited"] >= 1, seen


async def test_refusal_names_the_delay_before_the_next_attempt(
    served: Served, target: Target, undisturbed: Undisturbed
) -> None:
    async with undisturbed(served), WebSocket(served.url) as socket:
        await socket.greet(target.token)
        answer: dict[str, Any] = {"ok": True}
        async with asyncio.timeout(TIMEOUT):
            while answer["ok"]:
                answer = await socket.ask("join_job", {"job_id": target.job_id})
            assert answer["code"] == "rate_limited"
            assert answer["message"]
            assert 0 < answer["retry_after"] < TIMEOUT
            await asyncio.sleep(answer["retry_after"])
            answer = await socket.ask("join_job", {"job_id": target.job_id})
        assert answer["ok"], answer


async def test_refused_join_keeps_the_other_jobs(
    serve: Serve, token: Token, long_job: str, valkey: Valkey, publisher: TransportPublisher
) -> None:
    """The refusal does not affect the connection and its other jobs."""
    served, job_id = serve(), new_id()
    publisher.publish([Outgoing.of(started(job_id))])
    async with WebSocket(served.url) as socket:
        await socket.greet(token(jobs=["*"]))
        assert (await socket.ask("join_job", {"job_id": job_id}))["ok"]
        async with asyncio.timeout(TIMEOUT):
            while (await socket.ask("join_job", {"job_id": long_job}))["ok"]:
                continue
            publisher.publish([Outgoing.of(log(job_id, "still followed"))])
            while not any("still followed" in packet for packet in socket.packets):
                await socket.read_packets()


@pytest.mark.parametrize("resumes", [True, False])
async def test_reconnecting_client_joins_all_its_jobs_at_once(
    served: Served, undisturbed: Undisturbed, token: Token, jobs: list[str], resumes: bool
) -> None:
    cursors: dict[str, dict[str, Any]] = {}
    async with undisturbed(served):
        for _ in range(5):
            async with WebSocket(served.url) as socket:
                await socket.greet(token("comes back", jobs=["*"]))
                requests = [
                    {"job_id": job_id, **({"after": cursors[job_id]} if job_id in cursors else {})}
                    for job_id in jobs
                ]
                asked = (event("join_job", each, ack=n) for n, each in enumerate(requests))
                await socket.send(b"".join(asked))
                answers = await _read_acknowledgements(socket, JOBS)
                assert [answer.get("code") for answer in answers] == [None] * JOBS
                if resumes:
                    cursors = {a["job_id"]: {"epoch": a["epoch"], "seq": a["seq"]} for a in answers}


async def test_sequential_requests_are_never_refused(
    served: Served, undisturbed: Undisturbed, token: Token
) -> None:
    """The client joins and leaves jobs one after the other, as fast as the answers arrive."""
    async with undisturbed(served), WebSocket(served.url) as socket:
        await socket.greet(token(jobs=["*"]))
        for n in range(50):
            assert (await socket.ask("join_job", {"job_id": f"job-{n}"}))["ok"]
            assert (await socket.ask("leave_job", {"job_id": f"job-{n}"}))["ok"]


async def test_floods_of_requests_are_refused_or_closed(
    served: Served, target: Target, undisturbed: Undisturbed
) -> None:
    async with undisturbed(served) as client:
        names = ("leaves", "unknown-events", "refreshes", "many-jobs")
        floods = [asyncio.create_task(attack_until_refused(target, name)) for name in names]
        await wait_for_events(client)
        for name, seen in zip(names, await asyncio.gather(*floods), strict=True):
            assert seen.codes["rate_limited"] or seen.closed, (name, seen)


async def test_message_rate_is_configurable(serve: Serve, token: Token) -> None:
    served = serve(JOBCAST_MESSAGE_RATE="5", JOBCAST_RATE_PATIENCE="1")
    async with WebSocket(served.url) as socket:
        await socket.greet(token())
        refused = False
        async with asyncio.timeout(TIMEOUT):
            try:
                while not refused:
                    await socket.send(event("leave_job", {"job_id": "x"}, ack=1) * 50)
                    refused = any(
                        "rate_limited" in packet for packet in await socket.read_packets()
                    )
            except Gone:
                refused = True
        assert refused


async def _read_acknowledgements(socket: WebSocket, count: int) -> list[dict[str, Any]]:
    """Read the given number of acknowledgements."""
    answers: list[dict[str, Any]] = []
    async with asyncio.timeout(TIMEOUT):
        while len(answers) < count:
            for packet in await socket.read_packets():
                if packet == "2":
                    await socket.send(wire.text("3"))
                elif packet.startswith("43"):
                    answers += json.loads(packet[packet.index("[") :])
    return answers
