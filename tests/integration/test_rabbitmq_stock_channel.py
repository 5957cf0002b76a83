"""Copies of events for stock python-socketio servers (``?channel=NAME``)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kombu.connection import Connection
from kombu.entity import Exchange, Queue

from jobcast.errors import PublishFailed
from jobcast.testing import log, new_job_id
from jobcast.transports import Outgoing
from jobcast.transports.amqp import stock
from jobcast.transports.amqp.names import Names, stock_exchange
from jobcast.transports.amqp.publisher import KombuPublisher
from tests.support import new_id
from tests.support.rabbitmq import RabbitMQ
from tests.support.rabbitmq_pipeline import on_admin_channel


class Deployment:
    """A publisher, the queue of a server process, and the queue of a stock server."""

    def __init__(self, rabbitmq: RabbitMQ, broker: Connection) -> None:
        self.names = Names(new_id("prefix"))
        self.channel = new_id("stock")
        self.broker = broker
        self._job_id = new_job_id()
        self._number = 0
        url = f"{rabbitmq.url}?channel={self.channel}"
        self.publisher = KombuPublisher(url, prefix=self.names.prefix)

    def bind(self, exchange: Exchange, **options: object) -> Queue:
        queue = Queue(new_id("queue"), exchange, durable=False, exclusive=True, **options)
        bound = queue(self.broker.channel())
        bound.declare()
        return bound

    def bind_server(self) -> Queue:
        return self.bind(self.names.events_exchange())

    def bind_stock(self, **options: object) -> Queue:
        return self.bind(stock_exchange(self.channel), **options)

    def new_event(self) -> Outgoing:
        self._number += 1
        return Outgoing.of(log(self._job_id, f"line {self._number}"), number=self._number)

    def publish(self) -> None:
        self.publisher.publish([self.new_event()])


@pytest.fixture
def deployment(rabbitmq: RabbitMQ) -> Iterator[Deployment]:
    with Connection(rabbitmq.url) as broker:
        deployment = Deployment(rabbitmq, broker)
        yield deployment
        deployment.publisher.close()
    for exchange in (deployment.channel, deployment.names.events):
        delete_exchange(rabbitmq, exchange)


def delete_exchange(rabbitmq: RabbitMQ, name: str) -> None:
    on_admin_channel(rabbitmq, lambda channel: channel.exchange_delete(name))


def lines(queue: Queue) -> list[str]:
    found = []
    while message := queue.get(no_ack=True):
        if message.properties.get("type") is None:
            payload = message.payload
            found.append((payload["data"][0] if "data" in payload else payload)["message"])
    return found


def count(queue: Queue) -> int:
    """Return the number of events, which the queue then no longer has."""
    found = 0
    while message := queue.get(no_ack=True):
        found += "line" in message.body
    return found


def test_a_stock_server_gets_each_event_once(deployment: Deployment) -> None:
    """Events that wait for a server process are published again, and their copies are not."""
    copies = deployment.bind_stock()
    batch = [deployment.new_event() for _ in range(2)]
    for _ in range(2):
        with pytest.raises(PublishFailed, match="no Socket"):
            deployment.publisher.publish(batch)
    deployment.bind_server()
    deployment.publisher.publish(batch)
    deployment.publish()
    assert lines(copies) == ["line 1", "line 2", "line 3"]


def test_a_foreign_exchange_of_the_same_name_holds_no_events_back(
    deployment: Deployment, rabbitmq: RabbitMQ, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr(stock, "PAUSE", 0.0)
    foreign = Exchange(deployment.channel, "direct", durable=False)
    on_admin_channel(rabbitmq, lambda channel: foreign(channel).declare())
    events = deployment.bind_server()
    for _ in range(3):
        deployment.publish()
    assert count(events) == 3
    warnings = [record for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1
    assert deployment.channel in warnings[0].getMessage()
    delete_exchange(rabbitmq, deployment.channel)
    copies = deployment.bind_stock()
    deployment.publish()
    assert count(events) == 1
    assert lines(copies) == ["line 4"]


def test_a_stock_server_that_refuses_copies_holds_no_events_back(
    deployment: Deployment, caplog: pytest.LogCaptureFixture
) -> None:
    full = deployment.bind_stock(
        queue_arguments={"x-max-length": 1, "x-overflow": "reject-publish"}
    )
    events = deployment.bind_server()
    for _ in range(3):
        deployment.publish()
    assert count(events) == 3
    assert "refused" in caplog.text
    assert lines(full) == ["line 1"]


@pytest.mark.parametrize(
    ("pause", "copied"), [(0.0, ["line 3"]), (3600.0, [])], ids=["after the pause", "in the pause"]
)
def test_a_deleted_stock_exchange_holds_no_events_back(
    deployment: Deployment, rabbitmq: RabbitMQ, monkeypatch: pytest.MonkeyPatch, pause: float,
    copied: list[str],
) -> None:  # fmt: skip
    """Copies pause after a refusal, which costs a connection."""
    monkeypatch.setattr(stock, "PAUSE", pause)
    events = deployment.bind_server()
    deployment.publish()
    delete_exchange(rabbitmq, deployment.channel)
    deployment.publish()
    copies = deployment.bind_stock()
    deployment.publish()
    assert count(events) == 3
    assert lines(copies) == copied
