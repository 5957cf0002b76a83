"""Blocking calls of an event loop in threads, one at a time."""

from __future__ import annotations

import asyncio
import gc
import threading

import pytest

from jobcast.aio import cancel_and_wait
from jobcast.errors import TransportUnavailable
from jobcast.transports.thread_calls import ThreadCalls
from tests.support import TIMEOUT

LONG_ENOUGH = 0.1  # seconds in which a call would begin


class Work:
    """Blocking calls that a test ends."""

    def __init__(self) -> None:
        self.begun, self.may_end = threading.Semaphore(0), threading.Event()
        self.steps: list[str] = []

    def call(self, name: str) -> str:
        self.steps.append(f"begin {name}")
        self.begun.release()
        assert self.may_end.wait(TIMEOUT)
        self.steps.append(f"end {name}")
        if name == "failing":
            raise LookupError(name)
        return name

    async def has_begun(self, timeout: float) -> bool:
        return await asyncio.to_thread(self.begun.acquire, timeout=timeout)

    async def wait_begun(self) -> None:
        assert await self.has_begun(TIMEOUT)


@pytest.mark.parametrize("first", ["first", "failing"])
async def test_calls_wait_for_the_call_of_a_cancelled_caller(
    first: str, caplog: pytest.LogCaptureFixture
) -> None:
    calls, work = ThreadCalls(), Work()
    cancelled = asyncio.create_task(calls.run(work.call, first))
    await work.wait_begun()
    await cancel_and_wait(cancelled)
    assert cancelled.cancelled()
    dropped = asyncio.create_task(calls.run(work.call, "dropped"))
    following = asyncio.create_task(calls.run(work.call, "following"))
    await asyncio.sleep(0)
    await cancel_and_wait(dropped)
    assert not await work.has_begun(LONG_ENOUGH)
    work.may_end.set()
    assert await following == "following"
    steps = [f"{step} {name}" for name in (first, "following") for step in ("begin", "end")]
    assert work.steps == steps
    gc.collect()  # asyncio logs an exception that nothing has retrieved when the call is freed
    assert "failing" not in caplog.text


async def test_closing_waits_for_the_current_call_only() -> None:
    calls, work = ThreadCalls(), Work()
    cancelled = asyncio.create_task(calls.run(work.call, "current"))
    await work.wait_begun()
    await cancel_and_wait(cancelled)
    waiting = [asyncio.create_task(calls.run(work.call, "waiting")) for _ in range(3)]
    await asyncio.sleep(0)
    closing = asyncio.create_task(calls.close(lambda: work.steps.append("close")))
    assert not await work.has_begun(LONG_ENOUGH)
    work.may_end.set()
    await closing
    assert work.steps == ["begin current", "end current", "close"]
    for call in waiting:
        with pytest.raises(TransportUnavailable, match="closed"):
            await call
    assert await calls.run(work.call, "again") == "again"


def test_calls_stay_apart_when_the_loop_cancels_all_tasks() -> None:
    calls, work = ThreadCalls(), Work()

    async def call_and_close() -> None:
        try:
            await calls.run(work.call, "running")
        finally:
            threading.Timer(LONG_ENOUGH, work.may_end.set).start()
            await calls.close(lambda: work.steps.append("close"))

    async def main() -> None:
        tasks.append(asyncio.create_task(call_and_close()))
        await work.wait_begun()

    tasks: list[asyncio.Task[None]] = []
    asyncio.run(main())
    assert tasks[0].cancelled()
    assert work.steps == ["begin running", "end running", "close"]


async def test_calls_return_and_raise() -> None:
    calls = ThreadCalls()
    assert await calls.run(int, "12", base=8) == 10
    with pytest.raises(ZeroDivisionError):
        await calls.run(lambda: 1 / 0)
    assert await (await calls.begin(len, "four")) == 4


def test_calls_of_another_loop_do_not_wait() -> None:
    calls, work = ThreadCalls(), Work()
    former = asyncio.new_event_loop()
    answer = former.run_until_complete(calls.begin(work.call, "former"))

    async def call() -> None:
        async with asyncio.timeout(TIMEOUT):
            assert await calls.run(len, "four") == 4

    asyncio.run(call())
    work.may_end.set()
    assert former.run_until_complete(answer) == "former"
    former.run_until_complete(former.shutdown_default_executor())
    former.close()
