"""Requests to cancel jobs that wait for a server that does not answer."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

from jobcast.errors import TransportUnavailable
from jobcast.transports import open_manager
from jobcast.transports.cancellation import Cancellation
from jobcast.transports.redis.source import MAX_CANCELLING
from tests.conftest import Valkey
from tests.support import TIMEOUT, new_id


async def test_requests_that_wait_for_a_silent_redis_are_bounded(own_valkey: Valkey) -> None:
    manager = open_manager(own_valkey.url)
    source: Any = manager.source

    async def cancel() -> Any:
        return (await source.cancel(Cancellation(job_id=new_id()))).outcome

    assert await cancel() == "job_not_found"
    own_valkey.popen.send_signal(signal.SIGSTOP)
    try:
        # Each request alone fails after seconds, and they wait for each other.
        async with asyncio.timeout(TIMEOUT):
            waiting = (cancel() for _ in range(3 * MAX_CANCELLING))
            answers = await asyncio.gather(*waiting, return_exceptions=True)
    finally:
        own_valkey.popen.send_signal(signal.SIGCONT)
    assert all(isinstance(answer, TransportUnavailable) for answer in answers), answers
    refused = [answer for answer in answers if "requests to cancel jobs wait" in str(answer)]
    assert len(refused) == 2 * MAX_CANCELLING
    assert await cancel() == "job_not_found"
    await manager.aclose()
