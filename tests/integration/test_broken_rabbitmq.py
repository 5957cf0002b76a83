"""Faults of RabbitMQ that the contract tests of the transports do not cover."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec
import pytest
from amqp.basic_message import Message
from kombu.connection import Connection

from jobcast.events import Cursor
from jobcast.liveness.monitor import LeaseMonitor
from jobcast.realtime.relay import Relay
from jobcast.testing import log, new_job_id, progress, started
from jobcast.transports import Outgoing, Retention, Run, open_publisher
from jobcast.transports.amqp import consumer, gate
from jobcast.transports.amqp.connection import BLOCKED
from jobcast.transports.amqp.gate import Gate
from jobcast.transports.amqp.names import EVENTS_KEY, Names
from jobcast.transports.amqp.publisher import KombuPublisher
from jobcast.transports.amqp.source import KombuClientManager
from jobcast.transports.leases import Lease, LeaseTimeouts
from jobcast.transports.revocations import Revocation
from tests.support import TIMEOUT, eventually, wait_for
from tests.support.rabbitmq import RabbitMQ
from tests.support.rabbitmq_pipeline import (
    LEASE,
    Pipeline,
    is_routed,
    on_admin_channel,
    open_pipeline,
)
from tests.support.recorder import Recorder


async def test_deleted_queue_starts_a_new_epoch_for_followers(
    rabbitmq: RabbitMQ, caplog: pytest.LogCaptureFixture
) -> None:
    """The broker deletes the queue of a process that is away for long, so events may be lost."""
    job_id = new_job_id()
    manager = KombuClientManager(rabbitmq.url, retention=Retention(ttl=60, size=100))
    relay = Relay(manager.source)
    relay.start()
    publisher = open_publisher(rabbitmq.url)
    follower, late = Recorder("1"), Recorder("2")
    await eventually(lambda: relay.ready, "relay that is ready")
    await relay.join(job_id, follower)
    before = [started(job_id), log(job_id, "before"), progress(job_id, 50)]
    await asyncio.to_thread(publisher.publish, [Outgoing.of(event) for event in before])
    await eventually(lambda: "before" in follower.lines, "line")
    [first] = {data["epoch"] for _, data in follower.events if data.get("epoch")}

    assert manager.source._consumer is not None
    with Connection(rabbitmq.url) as other:
        other.channel().queue_delete(manager.source._consumer._events_queue.name)
    await eventually(lambda: "the queue of this process was gone" in caplog.text, "warning")
    await eventually(lambda: relay.ready, "relay that is ready again")
    await asyncio.to_thread(publisher.publish, [Outgoing.of(log(job_id, "after"))])
    await eventually(lambda: "after" in follower.lines, "line")

    joined = [data for name, data in follower.events if name == "joined"]
    assert joined[-1]["epoch"] not in ("", first)
    # The new epoch replays the known events before the new one.
    assert follower.lines == ["before", "before", "after"]
    answer = await relay.join(job_id, late, Cursor(epoch=first, seq=3))
    assert answer.recovered is False
    assert late.lines == ["before", "after"]
    publisher.close()
    await relay.aclose()
    await manager.aclose()


async def test_queue_that_is_lost_with_an_unknown_error_starts_a_new_epoch(
    rabbitmq: RabbitMQ, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_pipeline(rabbitmq.url) as pipe:
        acknowledge, epochs = pipe.consumer._acknowledge, len(_epochs(pipe.follower))

        def fail(channel: Any) -> None:
            pipe.consumer._acknowledge = acknowledge  # type: ignore[method-assign]
            # Without consumers: their cancellation by the broker would interrupt the close.
            for tag in [*channel.callbacks]:
                channel.basic_cancel(tag)
            channel.queue_delete(pipe.queue)
            raise AttributeError("an error of the driver")

        pipe.consumer._acknowledge = fail  # type: ignore[method-assign]
        await eventually(lambda: "an error of the driver" in caplog.text, "error")
        await eventually(lambda: pipe.relay.ready, "process that is ready again")
        await eventually(lambda: len(_epochs(pipe.follower)) > epochs, "another epoch")


async def test_foreign_messages_do_not_stop_a_server_process(
    rabbitmq: RabbitMQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer, "PREFETCH", 1)
    async with open_pipeline(rabbitmq.url) as pipe:
        await asyncio.to_thread(
            on_admin_channel,
            rabbitmq,
            lambda channel: channel.basic_publish(Message("{}"), Names().servers, EVENTS_KEY),
        )
        pipe.publish_lines(1)
        await pipe.wait_received()


async def test_unbound_queue_is_bound_again(rabbitmq: RabbitMQ) -> None:
    async with open_pipeline(rabbitmq.url) as pipe, open_pipeline(rabbitmq.url) as other:
        await asyncio.to_thread(
            on_admin_channel,
            rabbitmq,
            lambda channel: channel.queue_unbind(pipe.queue, Names().servers),
        )
        pipe.publish_lines(1)  # the other process receives the line
        epochs = len(_epochs(pipe.follower))
        # Events may be lost, so the relay sends the record again in another epoch.
        await eventually(lambda: len(_epochs(pipe.follower)) > epochs, "another epoch")
        pipe.publish_lines(1)
        await pipe.wait_received()
        assert other.follower.names.count("joined") == 2  # the first one has an empty epoch


def _epochs(follower: Recorder) -> list[str]:
    return [payload["epoch"] for name, payload in follower.events if name == "joined"]


async def test_emit_reaches_other_processes(rabbitmq: RabbitMQ) -> None:
    """The traffic of python-socketio itself: rooms and disconnects across processes."""
    async with open_pipeline(rabbitmq.url) as pipe, open_pipeline(rabbitmq.url) as other:
        await pipe.manager.emit("hello", {"from": "pipe"}, room="lobby")
        async with asyncio.timeout(TIMEOUT):
            body = await other.source.bus.get()
        assert msgspec.json.decode(body)["data"] == [{"from": "pipe"}]


async def test_deleted_exchange_of_leases_is_redeclared(rabbitmq: RabbitMQ) -> None:
    async with open_pipeline(rabbitmq.url) as pipe:
        await asyncio.to_thread(
            on_admin_channel, rabbitmq, lambda channel: channel.exchange_delete(Names().leases)
        )
        lease = Lease(pipe.job.job_id, Run("aa", 1, "d1"))
        until = pipe.source._leases._running[lease]
        await eventually(lambda: pipe.source._leases._running[lease] > until + LEASE, "renewals")
        # The record of the job stays valid.
        assert pipe.follower.names.count("joined") == 2  # the first one has an empty epoch


async def test_deleted_exchanges_of_other_messages_are_redeclared(
    rabbitmq: RabbitMQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No canary goes through the exchanges of the bus and of revocations."""
    monkeypatch.setattr(consumer, "DECLARE_INTERVAL", 0.1)
    revocation = Revocation(jti=new_job_id(), until=time.time() + 60)
    received: list[Revocation] = []

    def delete(channel: Any) -> None:
        for exchange in (Names().bus, Names().revocations):
            channel.exchange_delete(exchange)

    def has_queues() -> bool:
        return all(is_routed(rabbitmq, name) for name in (Names().bus, Names().revocations))

    async with open_pipeline(rabbitmq.url) as pipe:
        pipe.source.watch_revocations(received.append)
        await asyncio.to_thread(on_admin_channel, rabbitmq, delete)
        await asyncio.to_thread(wait_for, has_queues, "bound queues")
        publisher = KombuPublisher(rabbitmq.url)
        await asyncio.to_thread(publisher.emit, "hello", {}, room="lobby")
        await asyncio.to_thread(publisher.revoke, revocation)
        await asyncio.to_thread(publisher.close)
        await asyncio.wait_for(pipe.source.bus.get(), TIMEOUT)
        await eventually(lambda: received, "revocation")
        assert received == [revocation]


async def test_server_process_that_starts_while_the_broker_blocks_publishers_is_ready_later(
    rabbitmq: RabbitMQ, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(gate, "BLOCKED_INTERVAL", 0.1)
    pipe, checks = Pipeline(rabbitmq.url), list[float]()
    check = Gate.check

    def count_check(self: Gate) -> bool:
        was_gone = check(self)
        checks.append(time.monotonic())
        return was_gone

    monkeypatch.setattr(Gate, "check", count_check)
    alarm = rabbitmq.alarm()
    await asyncio.to_thread(alarm.__enter__)
    try:
        pipe.relay.start()
        await eventually(lambda: BLOCKED in caplog.text, "warning")
        await eventually(lambda: len(checks) > 2, "repeated checks")
        assert not pipe.relay.ready
    finally:
        await asyncio.to_thread(alarm.__exit__, None, None, None)
    await eventually(lambda: pipe.relay.ready, "process that is ready")
    await pipe.relay.join(pipe.job.job_id, pipe.follower)
    pipe.publish_lines(1)
    await pipe.wait_received()
    assert "reconnecting" not in caplog.text
    await asyncio.to_thread(pipe.publisher.close)
    await pipe.relay.aclose()
    await pipe.manager.aclose()


async def test_no_job_is_lost_while_the_broker_blocks_publishers(
    rabbitmq: RabbitMQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobcast.transports.canary.SILENCE", 4.0)
    async with open_pipeline(rabbitmq.url) as pipe:
        watch = LeaseMonitor(pipe.source, LeaseTimeouts(lease=LEASE, lost_after=1))
        watching = asyncio.create_task(watch.run())
        leases = pipe.source._leases
        lease = Lease(pipe.job.job_id, Run("aa", 1, "d1"))
        await eventually(
            lambda: leases.is_uninterrupted(LEASE), "monitor that has scanned for long enough"
        )
        alarm = rabbitmq.alarm()
        await asyncio.to_thread(alarm.__enter__)
        try:
            pipe.publish_lines(20)
            await eventually(lambda: time.monotonic() > leases._running[lease] + 3, "expired lease")
            await eventually(lambda: BLOCKED in pipe.relay.problem, "server that is not ready")
        finally:
            await asyncio.to_thread(alarm.__exit__, None, None, None)
        await pipe.wait_received()
        await eventually(lambda: pipe.relay.ready, "server that is ready again")
        # The monitor detects expired leases again.
        await eventually(lambda: leases.is_uninterrupted(LEASE), "monitor without an interruption")
        assert [name for name in pipe.follower.names if name == "job_error"] == []
        statuses = [data["status"] for name, data in pipe.follower.events if name == "job_status"]
        assert statuses == ["started"]
        assert pipe.follower.lines == [str(n) for n in range(pipe.published)]
        pipe.publisher.leases._running.clear()
        await eventually(lambda: "job_error" in pipe.follower.names, "end of a lost job")
        watching.cancel()
