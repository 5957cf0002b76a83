"""Graceful shutdown: on SIGTERM a process moves its clients elsewhere before its server closes."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def draining_on_sigterm(drain: Callable[[], Awaitable[None]]) -> Iterator[None]:
    """Call ``drain`` on SIGTERM, and pass the signal on to the ASGI server afterwards.

    A server closes all connections as soon as it receives the signal, so that all clients would
    reconnect within the same second. A second SIGTERM is passed on immediately. Enter the context
    in the running event loop. It has no effect outside the main thread or if no handler for
    SIGTERM is installed.

    Args:
        drain: closes the connections of the process over a period of time.
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
