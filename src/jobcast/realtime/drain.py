"""Draining: a process that ends sends its clients to other processes."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Final

from jobcast.events import Draining
from jobcast.realtime.connections import Connection, Connections

DRAIN_RATE: Final = 500  # connections that are closed a second
DRAIN_GRACE: Final = 2.0  # seconds that the last of them may take

logger = logging.getLogger(__name__)


async def drain(
    connections: Connections,
    seconds: float,
    send: Callable[[Connection, Draining], None],
    close: Callable[[Connection], Awaitable[None]],
) -> None:
    """Announce to every client when its connection closes, then close it at that moment.

    Args:
        connections: of the process.
        seconds: over which the closing is spread at most, so that the clients do not reach the
            other processes all at once.
        send: sends an announcement.
        close: closes a connection.
    """
    leaving = list(connections)
    spread = min(seconds, len(leaving) / DRAIN_RATE)
    if leaving:
        logger.info("sending %d clients away, over %.1f s", len(leaving), spread)
    loop = asyncio.get_running_loop()
    began = loop.time()
    due = sorted(
        ((random.uniform(0, spread), connection) for connection in leaving),
        key=lambda item: item[0],
    )
    for delay, connection in due:
        send(connection, Draining(closes_in=round(delay, 3)))
    for delay, connection in due:
        await asyncio.sleep(began + delay - loop.time())
        await close(connection)
    await connections.wait_empty(DRAIN_GRACE)  # the others are cut
