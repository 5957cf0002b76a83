"""Budgets of connections."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobcast.realtime.connection.budget import (
    CLOSE_AFTER,
    HISTORY_BURST,
    MAX_PENDING,
    SPARE_MESSAGES,
    UNAUTHENTICATED_MESSAGES,
    Budget,
    BudgetExceeded,
    TokenBucket,
)
from jobcast.settings import Settings
from tests.support import eventually
from tests.support.clock import Clock

SETTINGS = Settings(max_jobs=10, message_rate=10, history_rate=1000)
BURST = 2 * SETTINGS.max_jobs + SPARE_MESSAGES


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def budget(clock: Clock) -> Budget:
    budget = Budget(SETTINGS, clock=clock)
    budget.authenticated = True
    return budget


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> list[float]:
    """Return a list of the delays of the budget, in seconds. The clock advances by each."""
    seconds: list[float] = []

    async def sleep(delay: float) -> None:
        seconds.append(delay)
        clock.now += delay

    monkeypatch.setattr("jobcast.realtime.connection.budget.asyncio.sleep", sleep)
    return seconds


@given(
    takes=st.lists(st.floats(0, 50), max_size=50),
    pauses=st.lists(st.floats(0, 20), max_size=50),
)
def test_bucket_never_exceeds_its_burst_and_rate(takes: list[float], pauses: list[float]) -> None:
    clock = Clock()
    bucket = TokenBucket(10, 100, clock)
    given_out, start = 0.0, clock.now
    for amount, pause in zip(takes, pauses, strict=False):
        clock.now += bucket.delay
        bucket.take(amount)
        given_out += amount
        clock.now += bucket.delay
        assert given_out <= 100 + 10 * (clock.now - start) + 1e-6
        clock.now += pause


async def test_burst_of_messages_does_not_wait(budget: Budget, slept: list[float]) -> None:
    for _ in range(BURST):
        await budget.admit()
    assert slept == []
    assert budget.check_request() is None


async def test_flood_is_delayed_then_refused_then_closed(
    budget: Budget, clock: Clock, slept: list[float]
) -> None:
    start = clock.now
    refused_at = closed_at = 0.0
    with pytest.raises(BudgetExceeded, match="JOBCAST_MESSAGE_RATE"):
        while True:
            await budget.admit()
            retry_after = budget.check_request()
            if retry_after is not None and not refused_at:
                refused_at = clock.now - start
                assert retry_after == pytest.approx(BURST / 2 / SETTINGS.message_rate, rel=0.05)
    closed_at = clock.now - start
    assert slept
    assert refused_at == pytest.approx(SETTINGS.rate_patience, abs=0.5)
    assert closed_at == pytest.approx(CLOSE_AFTER * SETTINGS.rate_patience, abs=0.5)


async def test_client_below_the_rate_is_answered_again(
    budget: Budget, clock: Clock, slept: list[float]
) -> None:
    while (retry_after := budget.check_request()) is None:
        await budget.admit()
    clock.now += retry_after + 0.2
    await budget.admit()
    assert budget.check_request() is None


async def test_unauthenticated_client_may_send_only_few_messages(
    clock: Clock, slept: list[float]
) -> None:
    budget = Budget(SETTINGS, clock=clock)
    for _ in range(UNAUTHENTICATED_MESSAGES):
        await budget.admit()
    with pytest.raises(BudgetExceeded, match="before it authenticates"):
        await budget.admit()


async def test_shared_server_counts_requests_but_not_messages(
    clock: Clock, slept: list[float]
) -> None:
    budget = Budget(SETTINGS, counts_messages=False, clock=clock)
    for _ in range(10 * BURST):
        await budget.admit()
    answers = [budget.check_request() for _ in range(BURST + 1)]
    assert answers[:BURST] == [None] * BURST
    assert answers[BURST] is not None
    assert slept == []


async def test_reading_pauses_while_too_many_requests_are_pending(budget: Budget) -> None:
    for _ in range(MAX_PENDING):
        budget.begin_request()
    waiting = asyncio.create_task(budget.wait_for_capacity())
    await asyncio.sleep(0)
    assert not waiting.done()
    budget.end_request()
    await eventually(waiting.done, "capacity for a request")


async def test_first_join_of_each_job_is_never_refused(budget: Budget, slept: list[float]) -> None:
    for number in range(SETTINGS.max_jobs):
        assert await budget.afford_history(f"job-{number}") is None
        budget.charge_history(1_000_000)
    assert slept == []


async def test_repeated_join_waits_and_is_refused(
    budget: Budget, clock: Clock, slept: list[float]
) -> None:
    assert await budget.afford_history("job") is None
    budget.charge_history(SETTINGS.history_rate * (HISTORY_BURST + 3))
    assert await budget.afford_history("job") is None
    assert slept == [pytest.approx(3)]
    budget.charge_history(SETTINGS.history_rate * 8)
    retry_after = await budget.afford_history("job")
    assert retry_after == pytest.approx(8)
    clock.now += 8
    assert await budget.afford_history("job") is None


async def test_join_beyond_the_maximum_number_of_jobs_is_refused(
    budget: Budget, slept: list[float]
) -> None:
    for number in range(SETTINGS.max_jobs):
        await budget.afford_history(f"job-{number}")
        budget.charge_history(1_000_000)
    assert await budget.afford_history("another") is not None
