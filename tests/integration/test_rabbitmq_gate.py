"""The gate between publishers and server processes, while operators delete exchanges."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from jobcast.transports import canary
from jobcast.transports.amqp import gate
from jobcast.transports.amqp.gate import Gate
from jobcast.transports.amqp.names import Names
from jobcast.transports.amqp.publisher import KombuPublisher
from tests.support import eventually, wait_for
from tests.support.rabbitmq import RabbitMQ
from tests.support.rabbitmq_pipeline import (
    Pipeline,
    held,
    is_routed,
    on_admin_channel,
    open_pipeline,
)

NAMES = Names()
NEVER = 3600.0  # seconds
PACE = 0.03  # seconds between lines
DELETED = pytest.mark.parametrize(
    "exchanges",
    [[NAMES.events], [NAMES.servers], [NAMES.events, NAMES.servers, NAMES.bus]],
    ids=["events", "servers", "all"],
)


async def delete(rabbitmq: RabbitMQ, exchanges: Sequence[str]) -> None:
    def delete_all(channel: Any) -> None:
        for exchange in exchanges:
            channel.exchange_delete(exchange)

    await asyncio.to_thread(on_admin_channel, rabbitmq, delete_all)


async def wait_routed(rabbitmq: RabbitMQ, exchange: str, key: str = "") -> None:
    def reaches_a_queue() -> bool:
        return is_routed(rabbitmq, exchange, key)

    await asyncio.to_thread(wait_for, reaches_a_queue, "bound queue")


async def wait_all(*pipes: Pipeline) -> None:
    for pipe in pipes:
        await pipe.wait_received()
        # Each process receives the events of all jobs.
        await eventually(pipe.has_all, "all lines, and a relay that is ready")


def lines_in(pipe: Pipeline, job_id: str) -> int:
    """Return the number of a job's lines in the record of this process."""
    events = pipe.source._records.snapshot(job_id, None).events
    return sum('"job_log"' in event.packet for event in events)


def epochs(pipe: Pipeline) -> int:
    return pipe.follower.names.count("joined")


@contextmanager
def publishing(pipe: Pipeline) -> Iterator[None]:
    """Publish lines all the time."""
    stopping = threading.Event()

    def publish() -> None:
        while not stopping.wait(PACE):
            pipe.publish_lines(3)

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


@DELETED
async def test_deleted_exchanges_lose_no_event_of_a_busy_publisher(
    rabbitmq: RabbitMQ,
    exchanges: list[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A process that binds its queue later misses events.
    monkeypatch.setattr(gate, "BIND_TIMEOUT", 8.0)
    async with open_pipeline(rabbitmq.url) as pipe, open_pipeline(rabbitmq.url) as other:
        for _ in range(2):
            with publishing(pipe), publishing(other):
                caplog.clear()
                await delete(rabbitmq, exchanges)
                # The first process to notice may repair every exchange before the others notice.
                await wait_routed(rabbitmq, NAMES.events)
                assert "binding the queue again" in caplog.text
                await eventually(
                    lambda: pipe.relay.ready and other.relay.ready, "processes that are ready"
                )
            await wait_all(pipe, other)
            await eventually(
                lambda: lines_in(pipe, other.job.job_id) == other.published, "the other job's lines"
            )
            # The first line precedes the other process.
            await eventually(
                lambda: lines_in(other, pipe.job.job_id) == pipe.published - 1, "the job's lines"
            )


async def test_event_after_the_repair_of_the_events_exchange_reaches_a_process_that_is_busy(
    rabbitmq: RabbitMQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The publisher is silent while the exchange is missing."""
    # The process that is held may send canaries, and would reconnect after several.
    monkeypatch.setattr(canary, "UNANSWERED", 10_000)
    async with open_pipeline(rabbitmq.url) as pipe, open_pipeline(rabbitmq.url) as other:
        before = epochs(pipe), epochs(other)
        with held(other):
            await delete(rabbitmq, [NAMES.events])
            await wait_routed(rabbitmq, NAMES.events)
            for each in (pipe, other):
                each.publish_lines(1)
            await pipe.wait_received()
        await wait_all(pipe, other)
        # No process has missed an event, so their records are valid.
        assert (epochs(pipe), epochs(other)) == before


@pytest.mark.parametrize(
    "exchanges",
    [[NAMES.servers], [NAMES.events, NAMES.servers]],
    ids=["servers", "both"],
)
async def test_events_wait_until_all_processes_have_bound_their_queues(
    rabbitmq: RabbitMQ, exchanges: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_pipeline(rabbitmq.url) as pipe, open_pipeline(rabbitmq.url) as other:
        monkeypatch.setattr(gate, "BIND_TIMEOUT", NEVER)
        with held(other):
            await delete(rabbitmq, exchanges)
            await wait_routed(rabbitmq, NAMES.servers, pipe.queue)
            for each in (pipe, other):
                each.publish_lines(1)
            await eventually(lambda: is_waiting(pipe) and is_waiting(other), "held events")
            assert not pipe.relay.ready
        await wait_routed(rabbitmq, NAMES.servers, other.queue)
        pipe.consumer._gate._opens_at = 0.0
        await wait_all(pipe, other)


def is_waiting(pipe: Pipeline) -> bool:
    """Return whether the publisher knows that its events reach no process."""
    transport = pipe.publisher._transport
    assert isinstance(transport, KombuPublisher)
    return transport._audience._missing_since is not None


async def test_processes_bind_again_although_requests_are_lost(
    rabbitmq: RabbitMQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Gate, "_ask_others", lambda *_: True)
    async with open_pipeline(rabbitmq.url) as pipe, open_pipeline(rabbitmq.url) as other:
        await delete(rabbitmq, [NAMES.servers])
        for each in (pipe, other):
            each.publish_lines(5)
        await wait_all(pipe, other)
