"""Draining: a process that shuts down moves its clients to other processes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from jobcast.aio import RANDOM
from jobcast.events import Draining
from jobcast.realtime.connections import Connection, Connections

DRAIN_RATE: Final = 500  # connections to close per second
DRAIN_GRACE: Final = 2.0  # seconds to wait for the last connections to close

logger = logging.getLogger(__name__)


async def drain(
    connections: Connections,
    seconds: float,
    send: Callable[[Connection, Draining], None],
) -> None:
    """Announce to every client when its connection closes, then close it at that time.

    Args:
        connections: the connections of the process.
        seconds: the maximum time over which to spread the closing, so that the clients do not
            all reconnect to other processes at once.
        send: sends an announcement to a connection.
    """
    leaving = list(connections)
    spread = min(seconds, len(leaving) / DRAIN_RATE)
    if leaving:
        logger.info(
            "draining: closing %d connections within %.1f s (JOBCAST_DRAIN_SECONDS);"
            " their clients reconnect to other processes", len(leaving), spread,
        )  # fmt: skip
    loop = asyncio.get_running_loop()
    began = loop.time()
    due = sorted(
        ((RANDOM.uniform(0, spread), connection) for connection in leaving),
        key=lambda item: item[0],
    )
    for delay, connection in due:
        send(connection, Draining(closes_in=round(delay, 3)))
    for delay, connection in due:
        await asyncio.sleep(began + delay - loop.time())
        await connection.release()
    await connections.wait_empty(DRAIN_GRACE)  # the caller cuts the remaining ones
