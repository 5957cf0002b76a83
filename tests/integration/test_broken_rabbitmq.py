"""Faults of RabbitMQ that the contract tests of the transports do not cover."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from kombu.connection import Connection

from jobcast.events import Cursor
from jobcast.liveness.monitor import LeaseMonitor
from jobcast.publishing.job import Job
from jobcast.publishing.publisher import Publisher
from jobcast.realtime.relay import Relay
from jobcast.testing import log, new_job_id, progress, started
from jobcast.transports import Origin, Outgoing, Retention, Run, open_publisher
from jobcast.transports.amqp.names import Names
from jobcast.transports.amqp.publisher import BLOCKED, KombuPublisher
from jobcast.transports.amqp.source import KombuClientManager
from jobcast.transports.leases import Lease, LeaseTimeouts
from tests.support import TIMEOUT, StubRuntime, eventually
from tests.support.rabbitmq import RabbitMQ
from tests.support.recorder import Recorder

LEASE = 6.0  # seconds


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
        other.channel().queue_delete(manager.source._consumer._name)
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


class Pipeline:
    """A job with its publisher, and a relay with one follower of the job."""

    def __init__(self, url: str) -> None:
        self.manager = KombuClientManager(url)
        self.source = self.manager.source
        self.relay = Relay(self.source)
        self.publisher = Publisher(open_publisher(url), shown_url="the broker", lease=LEASE)
        self.job = Job(
            StubRuntime(self.publisher), new_job_id(), origin=Origin(run=Run("aa", 1, "d1"))
        )
        self.follower = Recorder("1")
        self.published = 0

    def publish_lines(self, lines: int) -> None:
        for _ in range(lines):
            self.job.log(str(self.published))
            self.published += 1

    async def wait_received(self) -> None:
        """Wait until the follower has the latest line."""
        latest = str(self.published - 1)
        await eventually(lambda: latest in self.follower.lines, f"line {latest}")

    def has_all(self) -> bool:
        return self.lines == [str(n) for n in range(self.published)] and self.relay.ready

    @property
    def lines(self) -> list[object]:
        """The log lines that the follower has received since the latest `joined`."""
        names = self.follower.names
        begin = len(names) - names[::-1].index("joined")
        events = self.follower.events[begin:]
        return [payload["message"] for name, payload in events if name == "job_log"]


@asynccontextmanager
async def open_pipeline(url: str) -> AsyncIterator[Pipeline]:
    pipe = Pipeline(url)
    pipe.relay.start()
    try:
        await eventually(lambda: pipe.relay.ready, "relay that is ready")
        await pipe.relay.join(pipe.job.job_id, pipe.follower)
        pipe.job.started()
        pipe.publish_lines(1)
        await pipe.wait_received()
        yield pipe
    finally:
        await asyncio.to_thread(pipe.publisher.close)
        await pipe.relay.aclose()
        await pipe.manager.aclose()


def on_admin_channel(rabbitmq: RabbitMQ, action: Callable[[Any], object]) -> None:
    """Run an action on a separate channel, as an operator would."""
    with Connection(rabbitmq.url) as other:
        action(other.channel())


async def test_deleted_exchange_is_redeclared_without_losing_events(
    rabbitmq: RabbitMQ, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_pipeline(rabbitmq.url) as pipe, open_pipeline(rabbitmq.url) as other:
        for _ in range(4):
            await asyncio.to_thread(
                on_admin_channel, rabbitmq, lambda channel: channel.exchange_delete(Names().events)
            )
            for each in (pipe, other):
                each.publish_lines(50)
            for each in (pipe, other):
                await each.wait_received()
                # Each process receives the events of all jobs.
                await eventually(each.has_all, "all lines, and a relay that is ready")
        assert "binding the queue again" in caplog.text


async def test_process_rebinds_although_the_request_to_rebind_is_lost(
    rabbitmq: RabbitMQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process may be reconnecting when the publisher requests a new binding."""
    monkeypatch.setattr(KombuPublisher, "ask_to_bind_again", lambda _: None)
    async with open_pipeline(rabbitmq.url) as pipe:
        await asyncio.to_thread(
            on_admin_channel, rabbitmq, lambda channel: channel.exchange_delete(Names().events)
        )
        pipe.publish_lines(5)
        await pipe.wait_received()
        await eventually(pipe.has_all, "all lines, and a relay that is ready")


async def test_late_binding_of_one_process_loses_no_events(
    rabbitmq: RabbitMQ,
) -> None:
    async with open_pipeline(rabbitmq.url) as pipe, open_pipeline(rabbitmq.url) as other:
        bind_late(other, seconds=1.5)
        await asyncio.to_thread(
            on_admin_channel, rabbitmq, lambda channel: channel.exchange_delete(Names().events)
        )
        for each in (pipe, other):
            each.publish_lines(50)
        for each in (pipe, other):
            await each.wait_received()
            await eventually(each.has_all, "all lines, and a relay that is ready")


def bind_late(pipe: Pipeline, seconds: float) -> None:
    """Delay the binding of a process, as a busy machine does."""
    consumer = pipe.source._consumer
    assert consumer is not None
    consume = consumer._consume

    def late(channel: Any, *, is_bound: bool) -> Any:
        time.sleep(seconds)
        return consume(channel, is_bound=is_bound)

    consumer._consume = late  # type: ignore[method-assign]


async def test_unbound_queue_is_bound_again(rabbitmq: RabbitMQ) -> None:
    async with open_pipeline(rabbitmq.url) as pipe, open_pipeline(rabbitmq.url) as other:
        assert pipe.source._consumer is not None
        name = pipe.source._consumer._name
        await asyncio.to_thread(
            on_admin_channel, rabbitmq, lambda channel: channel.queue_unbind(name, Names().events)
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
