"""A canceller whose broker answers late or not at all."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from jobcast.errors import PublishFailed
from jobcast.transports.amqp import canceller as module
from jobcast.transports.amqp.cancellation import CancelRequest, SeenRequests
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


class BrokenPublisher:
    """A publisher whose broker accepts nothing."""

    publisher_id = "server"

    def request_cancellation(self, request: CancelRequest) -> None:
        raise PublishFailed("the broker is away", ())

    withdraw_cancellation = request_cancellation

    def close(self) -> None: ...


async def test_the_withdrawal_of_a_request_ends_when_the_broker_has_forgotten_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "KEPT_FOR", -1)
    publisher: Any = BrokenPublisher()
    canceller = Canceller(publisher, Records(Retention()), SeenRequests(), lambda *_: None)
    with pytest.raises(PublishFailed):
        await canceller._request(Cancellation(job_id="a"), takes_effect=True)
    await asyncio.wait_for(canceller._tasks.wait(), TIMEOUT)
    assert not canceller._withdrawing
    assert "gave up" not in caplog.text
    await canceller.aclose()
