"""Ending tasks for good.

Before Python 3.12 ``asyncio.wait_for`` loses a cancellation that comes in one moment with what it
waits for. redis-py writes each command in it, and python-socketio waits for answers in it.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

AGAIN: Final = 2.0  # seconds after which a task that is still there is told again


async def cancel_and_wait(*tasks: asyncio.Future[Any]) -> None:
    """Cancel tasks, and wait until they have ended, however they do.

    One that has lost its cancellation, and would run for ever, is told again.

    >>> await cancel_and_wait(*self._tasks)
    """
    remaining = set(tasks)
    while remaining:
        for task in remaining:
            task.cancel()
        _, remaining = await asyncio.wait(remaining, timeout=AGAIN)
    await asyncio.gather(*tasks, return_exceptions=True)  # nobody else asks how they ended


def raise_lost_cancellation() -> None:
    """Raise the cancellation of the current task, where it was lost."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
