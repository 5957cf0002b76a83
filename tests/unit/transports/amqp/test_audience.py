"""How long a publisher to RabbitMQ repeats events while processes bind their queues."""

from __future__ import annotations

import logging

import pytest

from jobcast.transports.amqp.audience import (
    RETURN_TIMEOUT,
    ROUTED_INTERVAL,
    UNKNOWN_TIMEOUT,
    Audience,
    ListenersMissing,
)
from tests.support.clock import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def audience(clock: Clock) -> Audience:
    return Audience("jobcast.events", clock)


def has_to_repeat(audience: Audience, *, reached: bool, may_repeat: bool = True) -> bool:
    """Return whether the events have to be published again."""
    try:
        audience.check(reached=reached, may_repeat=may_repeat)
    except ListenersMissing:
        return True
    return False


def test_new_publisher_waits_for_processes_to_bind(
    audience: Audience, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    assert has_to_repeat(audience, reached=False)
    clock.now += UNKNOWN_TIMEOUT - 1
    assert has_to_repeat(audience, reached=False)
    clock.now += 1
    assert not has_to_repeat(audience, reached=False)
    assert not has_to_repeat(audience, reached=False)
    assert len(caplog.messages) == 1
    assert not has_to_repeat(audience, reached=True)


def test_new_publisher_does_not_hold_events_that_cannot_be_repeated(audience: Audience) -> None:
    assert not has_to_repeat(audience, reached=False, may_repeat=False)
    assert not has_to_repeat(audience, reached=True, may_repeat=False)


def test_events_wait_for_a_known_listener(
    audience: Audience, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    assert not has_to_repeat(audience, reached=True)
    assert has_to_repeat(audience, reached=False)
    clock.now += RETURN_TIMEOUT - 1
    assert has_to_repeat(audience, reached=False)
    assert not caplog.messages
    clock.now += 1
    assert not has_to_repeat(audience, reached=False)
    assert not has_to_repeat(audience, reached=False)
    [warning] = caplog.messages
    assert "no Socket.IO process has listened to the exchange jobcast.events" in warning


@pytest.mark.parametrize("is_deleted", [False, True], ids=["unbound", "deleted"])
def test_events_wait_no_longer_once_they_reach_a_queue(
    audience: Audience, clock: Clock, is_deleted: bool
) -> None:
    assert not has_to_repeat(audience, reached=True)
    if is_deleted:
        audience.exchange_lost()
    else:
        assert has_to_repeat(audience, reached=False)
    clock.now += 5
    assert not has_to_repeat(audience, reached=True)
    # The next wait has its own time.
    assert has_to_repeat(audience, reached=False)
    clock.now += RETURN_TIMEOUT - 1
    assert has_to_repeat(audience, reached=False)


def test_canary_precedes_events_unless_a_message_was_just_routed(
    audience: Audience, clock: Clock
) -> None:
    assert audience.needs_canary
    assert not has_to_repeat(audience, reached=True)
    assert not audience.needs_canary
    clock.now += ROUTED_INTERVAL
    assert audience.needs_canary
    assert not has_to_repeat(audience, reached=True)
    audience.exchange_lost()
    assert audience.needs_canary


def test_no_canary_precedes_events_after_the_wait_has_timed_out(
    audience: Audience, clock: Clock
) -> None:
    assert has_to_repeat(audience, reached=False)
    clock.now += UNKNOWN_TIMEOUT
    assert not has_to_repeat(audience, reached=False)
    assert not audience.needs_canary
