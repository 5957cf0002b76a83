from __future__ import annotations

import asyncio
import threading

import pytest

from jobcast.realtime import rule_threads
from jobcast.realtime.rule_threads import NoThread, RuleThreads
from tests.support import TIMEOUT, eventually


async def test_call_returns_result_or_raises_exception_of_function() -> None:
    threads = RuleThreads()
    assert await threads.call(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await threads.call(divmod, 7, 0)
    threads.close()


async def test_threads_and_waiting_calls_are_bounded_if_calls_never_return(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rule_threads, "THREADS", 2)
    monkeypatch.setattr(rule_threads, "MAX_WAITING", 3)
    threads, release, before = RuleThreads(), threading.Event(), {*threading.enumerate()}
    hanging = []
    for _ in range(2):
        hanging.append(threads.call(release.wait, TIMEOUT))
        await eventually(threads._waiting.empty, "thread that takes the call")
    waiting = [threads.call(int) for _ in range(3)]
    with pytest.raises(NoThread):
        threads.call(int)
    assert len({*threading.enumerate()} - before) == 2
    waiting[0].cancel()
    release.set()
    async with asyncio.timeout(TIMEOUT):
        assert await asyncio.gather(*hanging, *waiting[1:]) == [True, True, 0, 0]
    threads.close()
    await eventually(lambda: before >= {*threading.enumerate()}, "end of the threads")


async def test_close_cancels_waiting_calls() -> None:
    threads, release = RuleThreads(), threading.Event()
    hanging = [threads.call(release.wait, TIMEOUT) for _ in range(rule_threads.THREADS)]
    await eventually(threads._waiting.empty, "threads that take the calls")
    waiting = threads.call(int)
    threads.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    release.set()
    assert all(await asyncio.gather(*hanging))
