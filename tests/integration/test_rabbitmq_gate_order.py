"""When a server process opens the gate: step by step, without consumers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from amqp.exceptions import ResourceLocked
from kombu.connection import Connection
from kombu.entity import Queue

from jobcast.transports.amqp import gate
from jobcast.transports.amqp.connection import BLOCKED
from jobcast.transports.amqp.gate import Gate
from jobcast.transports.amqp.names import Names
from tests.support import new_id
from tests.support.rabbitmq import RabbitMQ
from tests.support.rabbitmq_pipeline import is_routed, on_admin_channel

NEVER = 3600.0  # seconds

NewGate = Callable[[], Gate]


@pytest.fixture
def names() -> Names:
    return Names(new_id("prefix"))


@pytest.fixture
def broker(rabbitmq: RabbitMQ) -> Iterator[Connection]:
    """A connection with the queues of the test."""
    with Connection(rabbitmq.url) as broker:
        yield broker


@pytest.fixture
def new_gate(
    rabbitmq: RabbitMQ, names: Names, monkeypatch: pytest.MonkeyPatch
) -> Iterator[NewGate]:
    monkeypatch.setattr(gate, "BIND_TIMEOUT", NEVER)
    monkeypatch.setattr(gate, "CHECK_INTERVAL", 0.0)
    monkeypatch.setattr(gate, "BLOCKED_INTERVAL", 0.0)
    queues: list[str] = []

    def new_gate() -> Gate:
        queue = Queue(names.new_queue(names.events), durable=False)
        queues.append(queue.name)
        return Gate(rabbitmq.url, names, queue)

    yield new_gate
    for name in queues:
        delete_queue(rabbitmq, name)


def delete_queue(rabbitmq: RabbitMQ, name: str) -> None:
    on_admin_channel(rabbitmq, lambda channel: channel.queue_delete(name))


def delete_exchange(rabbitmq: RabbitMQ, name: str) -> None:
    on_admin_channel(rabbitmq, lambda channel: channel.exchange_delete(name))


def listen(broker: Connection, exchange: object) -> Queue:
    """Bind a queue to an exchange, as another process does."""
    queue = Queue(new_id("other"), exchange, durable=False, exclusive=True)(broker.channel())
    queue.declare()
    return queue


def types_in(queue: Queue) -> list[str]:
    types = []
    while message := queue.get(no_ack=True):
        types.append(message.properties["type"])
    return types


def elapse(gate: Gate) -> None:
    """Let the time of the other processes elapse."""
    gate._opens_at = 0.0


def test_first_process_of_a_deployment_opens_at_once(
    rabbitmq: RabbitMQ, names: Names, new_gate: NewGate
) -> None:
    first, second = new_gate(), new_gate()
    first.enter(is_first=True)
    assert first.is_open
    assert is_routed(rabbitmq, names.events)
    second.enter(is_first=True)
    assert second.is_open


def test_process_that_starts_asks_the_others_before_it_opens(
    rabbitmq: RabbitMQ, names: Names, new_gate: NewGate, broker: Connection
) -> None:
    other, gate = listen(broker, names.bus_exchange()), new_gate()
    gate.enter(is_first=True)
    assert not gate.is_open
    assert not gate.check()
    assert not is_routed(rabbitmq, names.events)
    assert types_in(other) == ["jobcast.bind-again"]
    elapse(gate)
    assert not gate.check()
    assert gate.is_open
    assert is_routed(rabbitmq, names.events)


def test_process_that_is_still_bound_opens_at_once(
    rabbitmq: RabbitMQ, names: Names, new_gate: NewGate, broker: Connection
) -> None:
    old, new = new_gate(), new_gate()
    old.enter(is_first=True)
    listen(broker, names.bus_exchange())
    delete_exchange(rabbitmq, names.events)
    new.enter(is_first=True)
    assert not new.is_open
    is_lost = old.repair(asks=False)
    assert not is_lost
    assert is_routed(rabbitmq, names.events)
    assert not new.check()
    assert new.is_open


def test_process_without_its_binding_does_not_open_before_the_others_have_time(
    rabbitmq: RabbitMQ, names: Names, new_gate: NewGate, broker: Connection
) -> None:
    first, second = new_gate(), new_gate()
    first.enter(is_first=True)
    second.enter(is_first=True)
    bus = listen(broker, names.bus_exchange())
    delete_exchange(rabbitmq, names.servers)
    assert first.repair(asks=True)
    assert types_in(bus) == ["jobcast.bind-again"]
    # The second process finds the new exchange, to which only the first one is bound.
    assert second.repair(asks=False)
    assert not first.repair(asks=False)
    assert not first.is_open
    assert not second.is_open
    assert types_in(bus) == []
    assert not is_routed(rabbitmq, names.events)
    elapse(second)
    assert not second.check()
    assert not first.check()
    assert first.is_open
    assert second.is_open


def test_process_binds_again_whenever_the_exchange_is_deleted_while_it_waits(
    rabbitmq: RabbitMQ, names: Names, new_gate: NewGate
) -> None:
    gate = new_gate()
    gate.enter(is_first=True)
    delete_exchange(rabbitmq, names.servers)
    assert gate.repair(asks=True)
    delete_exchange(rabbitmq, names.servers)
    elapse(gate)
    assert gate.check()
    assert not gate.is_open
    assert is_routed(rabbitmq, names.servers, gate._queue.name)


def test_gate_is_closed_for_processes_whose_queues_have_expired(
    rabbitmq: RabbitMQ, names: Names, new_gate: NewGate
) -> None:
    first, second = new_gate(), new_gate()
    for each in (first, second):
        each.enter(is_first=True)
    for each in (first, second):
        delete_queue(rabbitmq, each._queue.name)
    for each in (first, second):
        each.enter(is_first=False)
        assert not is_routed(rabbitmq, names.events)
    elapse(first)
    assert not first.check()
    assert not second.check()
    assert second.is_open


def test_process_that_lost_only_its_own_queue_joins_the_others(
    rabbitmq: RabbitMQ, names: Names, new_gate: NewGate, broker: Connection
) -> None:
    first, second = new_gate(), new_gate()
    for each in (first, second):
        each.enter(is_first=True)
    bus = listen(broker, names.bus_exchange())
    delete_queue(rabbitmq, second._queue.name)
    second.enter(is_first=False)
    assert second.is_open
    assert types_in(bus) == []


def receives_events(rabbitmq: RabbitMQ, names: Names, gate: Gate, broker: Connection) -> bool:
    queue = gate._queue(broker.channel())
    types_in(queue)
    is_routed(rabbitmq, names.events)
    return types_in(queue) == ["jobcast.canary"]


def test_foreign_queue_makes_no_process_deaf(
    rabbitmq: RabbitMQ, names: Names, new_gate: NewGate, broker: Connection
) -> None:
    """A message to the exchange of the events reaches that queue although the gate is closed."""
    foreign, first, second = listen(broker, names.events_exchange()), new_gate(), new_gate()
    first.enter(is_first=True)
    assert receives_events(rabbitmq, names, first, broker)
    second.enter(is_first=True)
    assert receives_events(rabbitmq, names, second, broker)
    delete_exchange(rabbitmq, names.servers)
    assert first.repair(asks=True)
    assert receives_events(rabbitmq, names, first, broker)
    foreign.delete()
    listen(broker, names.bus_exchange())
    delete_exchange(rabbitmq, names.servers)
    assert first.repair(asks=True)
    assert not first.is_open
    listen(broker, names.events_exchange())
    assert not first.check()
    assert receives_events(rabbitmq, names, first, broker)


def test_process_that_starts_does_not_close_a_gate_that_another_one_opens_meanwhile(
    rabbitmq: RabbitMQ,
    names: Names,
    new_gate: NewGate,
    broker: Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second = new_gate(), new_gate()
    finds_routed = second._is_routed

    def find_routed_before_the_first_opens(*args: Any, **properties: Any) -> bool:
        found = finds_routed(*args, **properties)
        if not first.is_open:
            first.enter(is_first=True)
            listen(broker, names.bus_exchange())
        return found

    monkeypatch.setattr(second, "_is_routed", find_routed_before_the_first_opens)
    second.enter(is_first=True)
    assert first.is_open
    assert second.is_open
    for each in (first, second):
        assert receives_events(rabbitmq, names, each, broker)


def test_process_locks_a_closed_gate(rabbitmq: RabbitMQ, names: Names, new_gate: NewGate) -> None:
    gate, lock = new_gate(), names.read_lock(names.events)
    asks_others = gate._ask_others

    def ask_while_locked(broker: Connection) -> bool:
        with pytest.raises(ResourceLocked):
            delete_queue(rabbitmq, lock)
        return asks_others(broker)

    gate._ask_others = ask_while_locked  # type: ignore[method-assign]
    gate.enter(is_first=True)
    assert gate.is_open
    delete_queue(rabbitmq, lock)


def test_error_does_not_start_the_wait_again(
    names: Names, new_gate: NewGate, broker: Connection
) -> None:
    bus, gate = listen(broker, names.bus_exchange()), new_gate()
    gate.enter(is_first=True)
    elapse(gate)
    gate.enter(is_first=False)
    assert types_in(bus) == ["jobcast.bind-again"]
    assert not gate.is_open
    assert not gate.check()
    assert gate.is_open


def test_process_asks_again_after_a_request_that_failed(
    names: Names, new_gate: NewGate, broker: Connection
) -> None:
    bus, gate = listen(broker, names.bus_exchange()), new_gate()
    asks_others = gate._ask_others

    def fail(broker: Connection) -> bool:
        gate._ask_others = asks_others  # type: ignore[method-assign]
        raise ConnectionResetError(str(broker))

    gate._ask_others = fail  # type: ignore[method-assign]
    with pytest.raises(ConnectionResetError):
        gate.enter(is_first=True)
    gate.enter(is_first=True)
    assert not gate.is_open
    assert types_in(bus) == ["jobcast.bind-again"]


def test_process_that_starts_during_an_alarm_binds_and_opens_later(
    rabbitmq: RabbitMQ,
    names: Names,
    new_gate: NewGate,
    broker: Connection,
    caplog: pytest.LogCaptureFixture,
) -> None:
    bus, gate = listen(broker, names.bus_exchange()), new_gate()
    with rabbitmq.alarm():
        gate.enter(is_first=True)
        assert BLOCKED in caplog.text
        assert not gate.check()
        assert not gate.is_open
    assert is_routed(rabbitmq, names.servers)
    assert not gate.check()
    # The others may have to bind their queues, too.
    assert types_in(bus) == ["jobcast.bind-again"]
    assert not gate.is_open
    elapse(gate)
    assert not gate.check()
    assert gate.is_open
    assert receives_events(rabbitmq, names, gate, broker)
