"""Graceful shutdown: on a signal a process closes its connections before its server closes."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType

Drain = Callable[[float], Awaitable[None]]


@contextmanager
def draining_on_signals(drain: Drain, seconds: float) -> Iterator[None]:
    """Call ``drain`` on SIGTERM and SIGINT, and pass the signal on to the ASGI server afterwards.

    A server closes all connections as soon as it receives the signal, so that all clients would
    reconnect within the same second, or waits for streams that do not end by themselves. A second
    signal is passed on immediately. Enter the context in the running event loop. It has no effect
    outside the main thread or on a signal without a handler of the server.

    Args:
        drain: closes the connections of the process over a number of seconds.
        seconds: for SIGTERM. On SIGINT a person waits for the exit: the connections close at once.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with ExitStack() as stack:
        stack.enter_context(_draining_on(signal.SIGTERM, drain, seconds))
        stack.enter_context(_draining_on(signal.SIGINT, drain, 0.0))
        yield


@contextmanager
def _draining_on(number: signal.Signals, drain: Drain, seconds: float) -> Iterator[None]:
    server = signal.getsignal(number)
    if not callable(server) or server is signal.default_int_handler:
        yield
        return
    loop = asyncio.get_running_loop()
    draining: asyncio.Task[None] | None = None

    async def drain_and_end() -> None:
        try:
            await drain(seconds)
        finally:
            server(number, None)

    def begin() -> None:
        nonlocal draining
        if draining is None:
            draining = asyncio.ensure_future(drain_and_end())
        else:
            server(number, None)

    def handle(signum: int, frame: FrameType | None) -> None:
        del signum, frame
        loop.call_soon_threadsafe(begin)

    signal.signal(number, handle)
    try:
        yield
    finally:
        signal.signal(number, server)
