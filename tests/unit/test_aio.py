"""Backoff, jitter, background tasks, and tasks that miss their first cancellation."""

from __future__ import annotations

import asyncio
import random

import pytest

from jobcast import aio
from jobcast.aio import BackgroundTasks, Backoff, cancel_and_wait, jittered, shielded


@pytest.fixture(autouse=True)
def short_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aio, "CANCEL_AGAIN", 0.01)


async def runs_for_ever(misses: int, started: asyncio.Event) -> None:
    for _ in range(misses):
        try:
            started.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            continue  # like asyncio.wait_for, if the result arrives at the same moment
    await asyncio.Event().wait()


async def test_cancel_and_wait_repeats_a_lost_cancellation() -> None:
    started = asyncio.Event()
    task = asyncio.create_task(runs_for_ever(3, started))
    await started.wait()
    async with asyncio.timeout(20):
        await cancel_and_wait(task)
    assert task.cancelled()


async def test_cancel_and_wait_ignores_exceptions_of_tasks() -> None:
    async def fails() -> None:
        raise OSError("lost")

    failed, done = asyncio.create_task(fails()), asyncio.create_task(asyncio.sleep(0))
    await asyncio.wait({failed, done})
    await cancel_and_wait(failed, done)
    await cancel_and_wait()
    assert not failed.cancelled()


async def test_cancel_and_wait_can_be_cancelled() -> None:
    started = asyncio.Event()
    task = asyncio.create_task(runs_for_ever(1000, started))
    await started.wait()
    waiting = asyncio.create_task(cancel_and_wait(task))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait({waiting}, timeout=20)
    assert waiting.cancelled()
    await cancel_and_wait(task)


async def test_shielded_task_goes_on_without_its_caller(caplog: pytest.LogCaptureFixture) -> None:
    may_fail = asyncio.Event()

    async def fail() -> None:
        await may_fail.wait()
        raise LookupError("nothing retrieves this")

    task = asyncio.create_task(fail())
    caller = asyncio.create_task(shielded(task))
    await asyncio.sleep(0)
    await cancel_and_wait(caller)
    may_fail.set()
    await asyncio.wait([task])
    assert caller.cancelled()
    assert isinstance(task.exception(), LookupError)
    with pytest.raises(LookupError):
        await shielded(task)
    assert "retrieve" not in caplog.text


def test_backoff_doubles_its_ceiling_up_to_the_longest_delay() -> None:
    backoff = Backoff(first=0.1, longest=3.0)
    ceilings = []
    for _ in range(7):
        ceilings.append(backoff.ceiling)
        assert all(0.05 <= backoff.delay() <= backoff.ceiling for _ in range(20))
        backoff.failed()
    assert ceilings == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.0, 3.0])
    backoff.failures = 10_000
    assert backoff.ceiling == 3.0
    backoff.reset()
    assert backoff.ceiling == 0.1


def test_jitter_varies_a_delay_within_the_given_factors() -> None:
    delays = {jittered(10.0, 0.7, 1.3) for _ in range(50)}
    assert all(7.0 <= delay <= 13.0 for delay in delays)
    assert len(delays) > 1


async def test_background_tasks_report_errors_and_can_be_cancelled() -> None:
    problems: list[BaseException] = []
    tasks = BackgroundTasks(problems.append)

    async def fail() -> None:
        raise ValueError("broken")

    tasks.spawn(fail())
    await tasks.wait()
    assert [str(problem) for problem in problems] == ["broken"]
    endless = tasks.spawn(asyncio.Event().wait())
    await tasks.cancel()
    assert endless.cancelled()
    assert len(problems) == 1


def test_delays_leave_the_random_numbers_of_the_application_unchanged() -> None:
    random.seed(1)
    state = random.getstate()
    Backoff(1.0, 5.0).delay()
    jittered(1.0, 0.5, 1.5)
    assert random.getstate() == state
