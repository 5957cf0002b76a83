"""Deadlines that share a timer of the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from jobcast.realtime.connection.deadlines import Deadlines
from tests.support import TIMEOUT


class Expired:
    """The keys of expired deadlines, and a condition for their number."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.on_expiry: Callable[[str], object] = self.keys.append
        self._changed = asyncio.Condition()

    def __call__(self, key: str) -> None:
        try:
            self.on_expiry(key)
        finally:
            asyncio.get_running_loop().create_task(self._notify())

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def wait(self, count: int) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.keys) >= count)


async def test_deadlines_expire_in_the_order_of_their_start() -> None:
    expired = Expired()
    deadlines = Deadlines(0.02, expired)
    for key in ("a", "b", "c"):
        deadlines.start(key)
    await expired.wait(3)
    assert expired.keys == ["a", "b", "c"]
    assert len(deadlines) == 0


async def test_deadline_does_not_expire_before_its_time() -> None:
    expired, loop = Expired(), asyncio.get_running_loop()
    began = loop.time()
    deadlines = Deadlines(0.05, expired)
    deadlines.start("a")
    await expired.wait(1)
    assert loop.time() - began >= 0.05


async def test_stopped_deadline_does_not_expire() -> None:
    expired = Expired()
    deadlines = Deadlines(0.02, expired)
    for key in ("a", "b", "c"):
        deadlines.start(key)
    deadlines.stop("a")
    deadlines.stop("a")
    await expired.wait(2)
    assert expired.keys == ["b", "c"]


async def test_restarted_deadline_expires_after_the_others() -> None:
    expired = Expired()
    deadlines = Deadlines(0.02, expired)
    for key in ("a", "b", "a"):
        deadlines.start(key)
    assert [*deadlines] == ["b", "a"]
    assert deadlines.oldest == "b"
    await expired.wait(2)
    assert expired.keys == ["b", "a"]


async def test_deadline_starts_after_the_timer_has_found_nothing_to_do() -> None:
    expired, idle = Expired(), asyncio.Event()
    deadlines = Deadlines(0.01, expired)
    deadlines.start("a")
    deadlines.stop("a")
    asyncio.get_running_loop().call_later(0.05, idle.set)
    await idle.wait()
    deadlines.start("b")
    assert "b" in deadlines
    await expired.wait(1)
    assert expired.keys == ["b"]


async def test_callback_may_stop_and_restart_deadlines() -> None:
    expired = Expired()
    deadlines = Deadlines(0.02, expired)

    def on_expiry(key: str) -> None:
        expired.keys.append(key)
        deadlines.stop("b")
        if expired.keys == ["a"]:
            deadlines.start("a")

    expired.on_expiry = on_expiry
    for key in ("a", "b", "c"):
        deadlines.start(key)
    await expired.wait(3)
    assert expired.keys == ["a", "c", "a"]


async def test_failing_callback_does_not_stop_the_other_deadlines() -> None:
    expired, errors = Expired(), list[object]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    deadlines = Deadlines(0.02, expired)

    def on_expiry(key: str) -> None:
        expired.keys.append(key)
        if key == "a":
            raise ValueError(key)

    expired.on_expiry = on_expiry
    for key in ("a", "b"):
        deadlines.start(key)
    await expired.wait(2)
    assert expired.keys == ["a", "b"]
    assert len(errors) == 1


async def test_cleared_deadlines_do_not_expire() -> None:
    expired = Expired()
    deadlines = Deadlines(0.01, expired)
    deadlines.start("a")
    deadlines.clear()
    deadlines.start("b")
    await expired.wait(1)
    assert expired.keys == ["b"]


def test_deadlines_expire_in_another_loop() -> None:
    """The first loop ends before the deadline."""
    expired = Expired()
    deadlines = Deadlines(0.02, expired)

    async def start(key: str) -> None:
        deadlines.start(key)

    async def start_and_wait(key: str) -> None:
        deadlines.start(key)
        await expired.wait(1)

    asyncio.run(start("a"))
    asyncio.run(asyncio.wait_for(start_and_wait("b"), TIMEOUT))
    assert expired.keys == ["b"]
