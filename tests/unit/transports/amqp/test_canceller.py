"""The end of a canceller while a thread publishes one of its messages."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from jobcast.transports.amqp.cancellation import SeenRequests
from jobcast.transports.amqp.canceller import Canceller
from jobcast.transports.base import Retention
from jobcast.transports.cancellation import Cancellation
from jobcast.transports.record import Records
from tests.support import TIMEOUT


class SlowPublisher:
    """A publisher whose broker answers late. No other thread may use it meanwhile."""

    publisher_id = "server"

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.may_end = threading.Event()
        self.steps: list[str] = []

    def announce_cancellation(self, cancellation: Cancellation) -> None:
        self.begun.set()
        assert self.may_end.wait(TIMEOUT)
        self.steps.append("announced")

    def close(self) -> None:
        self.steps.append("closed")


async def test_the_publisher_is_closed_after_its_last_message() -> None:
    publisher: Any = SlowPublisher()
    canceller = Canceller(publisher, Records(Retention()), SeenRequests(), lambda *_: None)
    canceller.announce([Cancellation(job_id="a")])
    await asyncio.to_thread(publisher.begun.wait, TIMEOUT)
    closing = asyncio.create_task(canceller.aclose())
    await asyncio.wait([closing], timeout=0.2)
    assert publisher.steps == []
    publisher.may_end.set()
    await closing
    assert publisher.steps == ["announced", "closed"]
