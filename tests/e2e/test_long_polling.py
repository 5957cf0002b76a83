"""Many concurrent requests over HTTP long-polling, as behind a proxy that blocks WebSockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import aiohttp
import pytest
from engineio.payload import Payload

from jobcast.settings import DEFAULT_MAX_JOBS
from tests.support import TIMEOUT, Server, following, new_id

Token = Callable[..., str]
SEPARATOR = "\x1e"


@pytest.mark.parametrize("jobs", [20, DEFAULT_MAX_JOBS])
async def test_maximum_number_of_jobs_is_joined_at_once(
    server: Server, token: Token, jobs: int
) -> None:
    ids = [new_id() for _ in range(jobs)]
    async with following(server.url, token(jobs=["*"]), ("polling",)) as page:
        answers = await asyncio.gather(*(page.join(job_id) for job_id in ids))
        assert [answer["ok"] for answer in answers] == [True] * jobs
        left = await asyncio.gather(*(page.leave(job_id) for job_id in ids))
        assert [answer["ok"] for answer in left] == [True] * jobs


async def test_responses_to_many_joins_in_one_request_can_be_decoded(
    server: Server, token: Token
) -> None:
    """python-engineio's client decodes at most 16 packets of a response."""
    jobs = DEFAULT_MAX_JOBS
    joins = [
        f"42{number}{json.dumps(['join_job', {'job_id': new_id()}])}" for number in range(jobs)
    ]
    async with aiohttp.ClientSession() as session, asyncio.timeout(TIMEOUT):
        url = f"{server.url}/socket.io/?EIO=4&transport=polling"
        async with session.get(url) as answer:
            url += f"&sid={json.loads((await answer.text())[1:])['sid']}"
        connect = f"40{json.dumps({'token': token(jobs=['*'])})}"
        for body in (connect, SEPARATOR.join(joins)):
            async with session.post(url, data=body) as answer:
                assert answer.status == 200, await answer.text()
        acknowledged: set[str] = set()
        while len(acknowledged) < jobs:
            async with session.get(url) as answer:
                packets = (await answer.text()).split(SEPARATOR)
            assert len(packets) <= Payload.max_decode_packets
            acknowledged |= {packet.partition("[")[0] for packet in packets if packet[:2] == "43"}
            if "2" in packets:
                async with session.post(url, data="3"):
                    pass
        assert acknowledged == {f"43{number}" for number in range(jobs)}
