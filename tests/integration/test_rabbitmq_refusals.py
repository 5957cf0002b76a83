"""Messages that the broker refuses, such as for a full queue of another application."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from kombu.connection import Connection
from kombu.entity import Exchange, Queue

from jobcast.errors import PublishFailed, TransportUnavailable
from jobcast.events import JobStatus
from jobcast.testing import log, new_job_id
from jobcast.transports import Origin, Outgoing, Run
from jobcast.transports.amqp.names import REQUEST_KEY, Names
from jobcast.transports.amqp.publisher import KombuPublisher
from jobcast.transports.amqp.source import KombuSource
from jobcast.transports.cancellation import Cancellation
from tests.support import eventually, new_id
from tests.support.rabbitmq import RabbitMQ


@pytest.fixture
def names() -> Names:
    return Names(new_id("prefix"))


@contextmanager
def refusing(rabbitmq: RabbitMQ, exchange: Exchange, key: str = "") -> Iterator[None]:
    """Bind a full queue, for which the broker refuses messages to the exchange."""
    with Connection(rabbitmq.url) as other:
        full = Queue(
            new_id("full"),
            exchange,
            key,
            exclusive=True,
            queue_arguments={"x-max-length": 0, "x-overflow": "reject-publish"},
        )
        full(other.channel()).declare()
        yield


def test_publisher_goes_on_after_a_refused_event(rabbitmq: RabbitMQ, names: Names) -> None:
    publisher = KombuPublisher(rabbitmq.url, prefix=names.prefix)
    batch = [Outgoing.of(log(new_job_id()), number=1)]
    with Connection(rabbitmq.url) as other:
        queue = Queue(new_id("other"), names.events_exchange(), exclusive=True)(other.channel())
        queue.declare()
        with refusing(rabbitmq, names.events_exchange()), pytest.raises(PublishFailed):
            publisher.publish(batch)
        publisher.publish(batch)
    publisher.close()


async def test_server_process_goes_on_after_refused_messages(
    rabbitmq: RabbitMQ, names: Names
) -> None:
    async def resumed() -> None: ...

    source = KombuSource(rabbitmq.url, prefix=names.prefix)
    source.start(lambda *_: None, resumed)
    job_id = new_job_id()
    try:
        await eventually(lambda: source.ready, "ready source")
        await source.publish([queued(job_id)])
        with refusing(rabbitmq, names.leases_exchange()):
            await eventually(lambda: "refused" in source.canary._error, "refused canary")
        await eventually(lambda: not source.canary._error, "canary that arrives")
        with refusing(rabbitmq, names.cancellations_exchange(), REQUEST_KEY):
            with pytest.raises(TransportUnavailable):
                await source.cancel(Cancellation(job_id=job_id))
            assert source._canceller._withdrawing
        await eventually(lambda: not source._canceller._withdrawing, "withdrawal")
        answer = await source.cancel(Cancellation(job_id=job_id))
        assert answer.outcome == "cancelled"
    finally:
        await source.aclose()


def queued(job_id: str) -> Outgoing:
    return Outgoing.of(JobStatus(job_id=job_id, status="queued"), Origin(run=Run("aa")))
