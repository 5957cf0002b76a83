"""How long a publisher to RabbitMQ repeats events while processes bind their queues."""

from __future__ import annotations

import logging

import pytest

from jobcast.transports.amqp.audience import (
    BIND_TIMEOUT,
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


def misses(audience: Audience, *, reached: bool, may_repeat: bool = True) -> bool:
    """Return whether the events have to be published again."""
    try:
        audience.check(reached=reached, may_repeat=may_repeat)
    except ListenersMissing:
        return True
    return False


def test_a_new_publisher_waits_for_processes_that_may_be_about_to_bind(
    audience: Audience, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    assert misses(audience, reached=False)
    clock.now += UNKNOWN_TIMEOUT - 1
    assert misses(audience, reached=False)
    clock.now += 1
    assert not misses(audience, reached=False)
    assert not misses(audience, reached=False)
    assert len(caplog.messages) == 1
    assert not misses(audience, reached=True)


def test_a_new_publisher_does_not_wait_with_what_cannot_be_repeated(audience: Audience) -> None:
    assert not misses(audience, reached=False, may_repeat=False)
    assert not misses(audience, reached=True, may_repeat=False)


def test_events_wait_for_a_process_that_was_there(
    audience: Audience, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    assert not misses(audience, reached=True)
    assert misses(audience, reached=False)
    clock.now += RETURN_TIMEOUT - 1
    assert misses(audience, reached=False)
    assert not caplog.messages
    clock.now += 1
    assert not misses(audience, reached=False)
    assert not misses(audience, reached=False)
    [warning] = caplog.messages
    assert "no Socket.IO process has listened to the exchange jobcast.events" in warning


@pytest.mark.parametrize("is_deleted", [False, True], ids=["unbound", "deleted"])
def test_events_are_published_again_until_the_other_processes_have_bound(
    audience: Audience, clock: Clock, is_deleted: bool
) -> None:
    assert not misses(audience, reached=True)
    if is_deleted:
        audience.exchange_lost()
    else:
        assert misses(audience, reached=False)
    clock.now += 5
    assert misses(audience, reached=True)
    clock.now += BIND_TIMEOUT - 1
    assert misses(audience, reached=True)
    clock.now += 1
    assert not misses(audience, reached=True)
    assert not misses(audience, reached=True)


def test_the_wait_begins_again_when_the_exchange_is_gone_again(
    audience: Audience, clock: Clock
) -> None:
    assert not misses(audience, reached=True)
    audience.exchange_lost()
    assert misses(audience, reached=True)
    clock.now += BIND_TIMEOUT
    audience.exchange_lost()
    assert misses(audience, reached=True)


def test_what_receivers_would_take_for_new_is_not_published_again(audience: Audience) -> None:
    assert not misses(audience, reached=True)
    audience.exchange_lost()
    assert not misses(audience, reached=True, may_repeat=False)


def test_a_note_goes_before_events_unless_others_have_just_arrived(
    audience: Audience, clock: Clock
) -> None:
    assert audience.needs_canary
    assert not misses(audience, reached=True)
    assert not audience.needs_canary
    clock.now += ROUTED_INTERVAL
    assert audience.needs_canary
    assert not misses(audience, reached=True)
    audience.exchange_lost()
    assert audience.needs_canary


def test_no_note_goes_before_events_that_nobody_waits_for(audience: Audience, clock: Clock) -> None:
    assert misses(audience, reached=False)
    clock.now += UNKNOWN_TIMEOUT
    assert not misses(audience, reached=False)
    assert not audience.needs_canary
