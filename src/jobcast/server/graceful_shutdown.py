"""The moment that a process is told to end: its clients are sent away before its server closes."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def draining_on_sigterm(drain: Callable[[], Awaitable[None]]) -> Iterator[None]:
    """Call ``drain`` when SIGTERM comes, and hand the signal to the ASGI server after it.

    A server closes all connections as soon as it hears the signal, so that every client would come
    back in the same second. A second SIGTERM is handed on at once. Use it in the running loop; it
    does nothing outside of the main thread, or where nobody handles the signal.
    """
    server = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread() or not callable(server):
        yield
        return
    loop = asyncio.get_running_loop()
    draining: asyncio.Task[None] | None = None

    async def drain_and_end() -> None:
        try:
            await drain()
        finally:
            server(signal.SIGTERM, None)

    def begin() -> None:
        nonlocal draining
        if draining is None:
            draining = asyncio.ensure_future(drain_and_end())
        else:
            server(signal.SIGTERM, None)

    def handle(signum: int, frame: FrameType | None) -> None:
        del signum, frame
        loop.call_soon_threadsafe(begin)

    signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, server)
