"""Publishers of server processes, whose callers may be cancelled while a thread publishes."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from jobcast.aio import cancel_and_wait
from jobcast.errors import TransportUnavailable
from jobcast.events import JobStatus
from jobcast.testing import new_job_id
from jobcast.transports import Outgoing
from jobcast.transports.amqp.source import KombuClientManager
from jobcast.transports.cancellation import Cancellation
from jobcast.transports.redis.source import RedisSource
from tests.conftest import Valkey
from tests.support import TIMEOUT, eventually, new_id
from tests.support.rabbitmq import RabbitMQ

LONG_ENOUGH = 0.2  # seconds in which another thread would begin


class HeldPublisher:
    """A publisher whose calls wait until a test releases them, and may fail."""

    def __init__(self, publisher: Any, error: Exception | None = None) -> None:
        self._publisher = publisher
        self._error = error
        self.begun, self.may_end = threading.Semaphore(0), threading.Event()

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._publisher, name)
        if not callable(value) or name == "close":
            return value

        def call(*args: Any) -> Any:
            self.begun.release()
            assert self.may_end.wait(TIMEOUT)
            if self._error is not None:
                raise self._error
            return value(*args)

        return call


async def has_begun(publisher: HeldPublisher, timeout: float) -> bool:
    return await asyncio.to_thread(publisher.begun.acquire, timeout=timeout)


async def check_one_call_at_a_time(
    publisher: HeldPublisher, call: Callable[[], Awaitable[object]]
) -> None:
    cancelled = asyncio.ensure_future(call())
    assert await has_begun(publisher, TIMEOUT)
    await cancel_and_wait(cancelled)
    following = asyncio.ensure_future(call())
    overlaps = await has_begun(publisher, LONG_ENOUGH)
    publisher.may_end.set()
    await following
    assert not overlaps


def outgoing() -> Outgoing:
    return Outgoing.of(JobStatus(job_id=new_job_id(), status="queued"))


@pytest.mark.parametrize("call", ["publish", "cancel"])
async def test_redis_source_publishes_in_one_thread(valkey: Valkey, call: str) -> None:
    source = RedisSource(valkey.url, prefix=new_id("prefix"))
    held: Any = HeldPublisher(source._publisher)
    source._publisher = held
    job_id = new_job_id()
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "publish": lambda: source.publish([outgoing()]),
        "cancel": lambda: source.cancel(Cancellation(job_id=job_id)),
    }
    await check_one_call_at_a_time(held, calls[call])
    await source.aclose()


@pytest.mark.parametrize("call", ["publish_event", "emit", "canary"])
async def test_kombu_manager_publishes_in_one_thread(rabbitmq: RabbitMQ, call: str) -> None:
    manager = KombuClientManager(rabbitmq.url, prefix=new_id("prefix"))
    source = manager.source
    is_canary = call == "canary"
    held: Any = HeldPublisher(source._canary_publisher if is_canary else manager._publisher)
    if is_canary:
        source._canary_publisher = held
    else:
        manager._publisher = held
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "publish_event": lambda: manager.publish_event(outgoing()),
        "emit": lambda: manager._publish({"method": "emit", "event": "news", "data": 1}),
        "canary": lambda: source._send_canary(source._names.bus),
    }
    await check_one_call_at_a_time(held, calls[call])
    await manager.aclose()


async def test_request_that_fails_after_its_caller_logs_no_error(
    rabbitmq: RabbitMQ, caplog: pytest.LogCaptureFixture
) -> None:
    async def resumed() -> None:
        raise AssertionError("the queue was not lost")

    manager = KombuClientManager(rabbitmq.url, prefix=new_id("prefix"))
    source = manager.source
    source.start(lambda _job_id, _message: None, resumed)
    canceller = source._canceller
    failed: Any = HeldPublisher(canceller._publisher, TransportUnavailable("it is away"))
    canceller._publisher = failed
    await eventually(lambda: source.ready, "source that is ready")
    cancelled = asyncio.ensure_future(source.cancel(Cancellation(job_id=new_job_id())))
    assert await has_begun(failed, TIMEOUT)
    await cancel_and_wait(cancelled)
    failed.may_end.set()
    await eventually(lambda: not canceller._waiting, "request that has failed")
    await manager.aclose()
    gc.collect()  # asyncio logs an exception that nothing has retrieved when the task is freed
    assert "it is away" not in caplog.text
