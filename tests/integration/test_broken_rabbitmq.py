"""What RabbitMQ can do to a Socket.IO process, beyond what every transport's contract covers."""

from __future__ import annotations

import asyncio

import pytest
from kombu.connection import Connection

from jobcast.events import Cursor
from jobcast.realtime.relay import Relay
from jobcast.testing import log, new_job_id, progress, started
from jobcast.transports import Outgoing, Retention, open_publisher
from jobcast.transports.kombu_source import KombuClientManager
from tests.rabbitmq import RabbitMQ
from tests.recorder import Recorder
from tests.support import eventually


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
