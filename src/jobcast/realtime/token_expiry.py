"""Token expiry: the server warns a client before its token expires, and then disconnects it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from jobcast.events import TokenExpiring
from jobcast.realtime.connection.refusals import shown
from jobcast.realtime.connections import Connection

EXPIRY_WARNING: Final = 30.0  # time between the warning and a token's expiry, in seconds
LONGEST_TIMER: Final = 24 * 3600.0  # in seconds; tokens may outlive the longest possible timer

logger = logging.getLogger(__name__)


class TokenExpiry:
    """Timers that warn and close connections whose tokens expire.

    Args:
        warn: sends the warning to a connection.
        close: closes a connection whose token has expired.
    """

    def __init__(
        self,
        warn: Callable[[Connection, TokenExpiring], None],
        close: Callable[[Connection], object],
    ) -> None:
        self._warn = warn
        self._close = close

    def arm(self, connection: Connection) -> None:
        """Start or restart the timer for the expiry of a connection's current token."""
        loop = asyncio.get_running_loop()
        if connection.timer is not None:
            connection.timer.cancel()
        left = connection.subject.expires_at - time.time()
        if left > LONGEST_TIMER:
            connection.timer = loop.call_later(LONGEST_TIMER, self.arm, connection)
        else:
            connection.timer = loop.call_later(until_warning(left), self._announce, connection)

    def _announce(self, connection: Connection) -> None:
        expires_at = connection.subject.expires_at
        self._warn(connection, TokenExpiring(expires_at=datetime.fromtimestamp(expires_at, UTC)))
        connection.timer = asyncio.get_running_loop().call_later(
            max(0.0, expires_at - time.time()), self._expire, connection
        )

    def _expire(self, connection: Connection) -> None:
        logger.info(
            "closing %s: the token of sub=%s expired", connection.sid, shown(connection.subject.sub)
        )
        self._close(connection)


def until_warning(left: float) -> float:
    """Return the seconds until the warning for a token that expires in ``left`` seconds.

    For a token with a short lifetime this is half of the time left. With an immediate warning, a
    client whose tokens are all short-lived would refresh them without pause.

    >>> until_warning(300.0), until_warning(10.0)
    (270.0, 5.0)
    """
    return max(0.0, left - min(EXPIRY_WARNING, left / 2))
