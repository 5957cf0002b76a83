"""What RabbitMQ can do to a Socket.IO process, beyond what every transport's contract covers."""

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
from tests.support import TIMEOUT, Serving, eventually
from tests.support.rabbitmq import RabbitMQ
from tests.support.recorder import Recorder

LEASE = 6.0  # seconds


async def test_a_queue_that_is_gone_is_told_to_who_follows(
    rabbitmq: RabbitMQ, caplog: pytest.LogCaptureFixture
) -> None:
    """The process was away for so long that the broker has dropped it: something may be missing."""
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
    # Everything that is known comes again in the new epoch, and then what is new.
    assert follower.lines == ["before", "before", "after"]
    answer = await relay.join(job_id, late, Cursor(epoch=first, seq=3))
    assert answer.recovered is False
    assert late.lines == ["before", "after"]
    publisher.close()
    await relay.aclose()
    await manager.aclose()


class Scene:
    """A job that is published on one side, and followed on the other."""

    def __init__(self, url: str) -> None:
        self.manager = KombuClientManager(url)
        self.source = self.manager.source
        self.relay = Relay(self.source)
        self.publisher = Publisher(open_publisher(url), shown_url="the broker", lease=LEASE)
        self.job = Job(Serving(self.publisher), new_job_id(), origin=Origin(run=Run("aa", 1, "d1")))
        self.follower = Recorder("1")
        self.said = 0

    def speak(self, lines: int) -> None:
        for _ in range(lines):
            self.job.log(str(self.said))
            self.said += 1

    async def heard(self) -> None:
        """Wait for the latest line."""
        latest = str(self.said - 1)
        await eventually(lambda: latest in self.follower.lines, f"line {latest}")

    def has_all(self) -> bool:
        return self.lines == [str(n) for n in range(self.said)] and self.relay.ready

    @property
    def lines(self) -> list[object]:
        """The lines of the latest record that the follower was sent."""
        names = self.follower.names
        begin = len(names) - names[::-1].index("joined")
        events = self.follower.events[begin:]
        return [payload["message"] for name, payload in events if name == "job_log"]


@asynccontextmanager
async def scene(url: str) -> AsyncIterator[Scene]:
    here = Scene(url)
    here.relay.start()
    try:
        await eventually(lambda: here.relay.ready, "relay that is ready")
        await here.relay.join(here.job.job_id, here.follower)
        here.job.started()
        here.speak(1)
        await here.heard()
        yield here
    finally:
        await asyncio.to_thread(here.publisher.close)
        await here.relay.aclose()
        await here.manager.aclose()


def channel_of(rabbitmq: RabbitMQ, do: Callable[[Any], object]) -> None:
    """Do something by a channel of an operator's own."""
    with Connection(rabbitmq.url) as other:
        do(other.channel())


async def test_an_exchange_that_is_deleted_is_declared_again_and_no_event_is_lost(
    rabbitmq: RabbitMQ, caplog: pytest.LogCaptureFixture
) -> None:
    async with scene(rabbitmq.url) as here, scene(rabbitmq.url) as other:
        for _ in range(4):
            await asyncio.to_thread(
                channel_of, rabbitmq, lambda channel: channel.exchange_delete(Names().events)
            )
            for each in (here, other):
                each.speak(50)
            for each in (here, other):
                await each.heard()
                # Each process has the events of all jobs.
                await eventually(each.has_all, "all lines, and a relay that is ready")
        assert "binding the queue again" in caplog.text


async def test_a_process_binds_again_although_its_request_is_lost(
    rabbitmq: RabbitMQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process may be reconnecting when the request to bind again is sent."""
    monkeypatch.setattr(KombuPublisher, "ask_to_bind_again", lambda _: None)
    async with scene(rabbitmq.url) as here:
        await asyncio.to_thread(
            channel_of, rabbitmq, lambda channel: channel.exchange_delete(Names().events)
        )
        here.speak(5)
        await here.heard()
        await eventually(here.has_all, "all lines, and a relay that is ready")


async def test_no_event_is_lost_where_one_process_binds_later_than_another(
    rabbitmq: RabbitMQ,
) -> None:
    async with scene(rabbitmq.url) as here, scene(rabbitmq.url) as other:
        bind_late(other, seconds=1.5)
        await asyncio.to_thread(
            channel_of, rabbitmq, lambda channel: channel.exchange_delete(Names().events)
        )
        for each in (here, other):
            each.speak(50)
        for each in (here, other):
            await each.heard()
            await eventually(each.has_all, "all lines, and a relay that is ready")


def bind_late(scene: Scene, seconds: float) -> None:
    """Let a process take its time, as on a busy machine."""
    consumer = scene.source._consumer
    assert consumer is not None
    consume = consumer._consume

    def late(channel: Any, *, is_bound: bool) -> Any:
        time.sleep(seconds)
        return consume(channel, is_bound=is_bound)

    consumer._consume = late  # type: ignore[method-assign]


async def test_a_queue_that_is_unbound_is_bound_again(rabbitmq: RabbitMQ) -> None:
    async with scene(rabbitmq.url) as here, scene(rabbitmq.url) as other:
        assert here.source._consumer is not None
        name = here.source._consumer._name
        await asyncio.to_thread(
            channel_of, rabbitmq, lambda channel: channel.queue_unbind(name, Names().events)
        )
        here.speak(1)  # which the other process hears
        epochs = len(_epochs(here.follower))
        # Something may be missing, and so followers are sent another record.
        await eventually(lambda: len(_epochs(here.follower)) > epochs, "another epoch")
        here.speak(1)
        await here.heard()
        assert other.follower.names.count("joined") == 2  # none at first


def _epochs(follower: Recorder) -> list[str]:
    return [payload["epoch"] for name, payload in follower.events if name == "joined"]


async def test_emits_reach_the_other_processes(rabbitmq: RabbitMQ) -> None:
    """python-socketio's own traffic: rooms and disconnects across processes."""
    async with scene(rabbitmq.url) as here, scene(rabbitmq.url) as other:
        await here.manager.emit("hello", {"from": "here"}, room="lobby")
        async with asyncio.timeout(TIMEOUT):
            body = await other.source.bus.get()
        assert msgspec.json.decode(body)["data"] == [{"from": "here"}]


async def test_the_exchange_of_leases_is_declared_again(rabbitmq: RabbitMQ) -> None:
    async with scene(rabbitmq.url) as here:
        await asyncio.to_thread(
            channel_of, rabbitmq, lambda channel: channel.exchange_delete(Names().leases)
        )
        lease = Lease(here.job.job_id, Run("aa", 1, "d1"))
        until = here.source._leases._running[lease]
        await eventually(lambda: here.source._leases._running[lease] > until + LEASE, "renewals")
        # Nothing of the job's record is in doubt.
        assert here.follower.names.count("joined") == 2  # none at first


async def test_nobody_is_missed_while_the_broker_blocks_publishers(
    rabbitmq: RabbitMQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobcast.transports.canary.SILENCE", 4.0)
    async with scene(rabbitmq.url) as here:
        watch = LeaseMonitor(here.source, LeaseTimeouts(lease=LEASE, lost_after=1))
        watching = asyncio.create_task(watch.run())
        leases = here.source._leases
        lease = Lease(here.job.job_id, Run("aa", 1, "d1"))
        await eventually(
            lambda: leases.is_uninterrupted(LEASE), "monitor that has scanned for long enough"
        )
        alarm = rabbitmq.alarm()
        await asyncio.to_thread(alarm.__enter__)
        try:
            here.speak(20)
            await eventually(
                lambda: time.monotonic() > leases._running[lease] + 3, "lease that has run out"
            )
            await eventually(lambda: BLOCKED in here.relay.problem, "server that is not ready")
        finally:
            await asyncio.to_thread(alarm.__exit__, None, None, None)
        await here.heard()
        await eventually(lambda: here.relay.ready, "server that is ready again")
        # It goes on to judge.
        await eventually(lambda: leases.is_uninterrupted(LEASE), "monitor without an interruption")
        assert [name for name in here.follower.names if name == "job_error"] == []
        statuses = [data["status"] for name, data in here.follower.events if name == "job_status"]
        assert statuses == ["started"]
        assert here.follower.lines == [str(n) for n in range(here.said)]
        here.publisher.leases._running.clear()
        await eventually(lambda: "job_error" in here.follower.names, "end of a lost job")
        watching.cancel()
