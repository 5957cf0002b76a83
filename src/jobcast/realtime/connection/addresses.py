"""The open connections of a process and their addresses, with the limits on their number."""

from __future__ import annotations

from collections import Counter
from http import HTTPStatus
from typing import Final

from jobcast.realtime.connection.screening import Refused
from jobcast.settings import Settings

RETRY_AFTER: Final = 5  # seconds that a client should wait when the server is full


class Addresses:
    """The addresses of open connections, of all protocols.

    >>> addresses = Addresses(Settings())
    >>> addresses.add("sid", "192.0.2.7")
    >>> addresses.of("sid")
    '192.0.2.7'

    Args:
        settings: the limits.
    """

    def __init__(self, settings: Settings) -> None:
        self._limit = settings.max_connections
        self._limit_per_address = settings.max_connections_per_address
        self._of_connection: dict[str, str] = {}
        self._connections: Counter[str] = Counter()

    def check(self, address: str) -> None:
        """Check that another connection from an address may open.

        Raises:
            Refused: the server or the client's address has too many connections.
        """
        if self._limit and len(self._of_connection) >= self._limit:
            raise Refused(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "the server has too many connections (JOBCAST_MAX_CONNECTIONS)", RETRY_AFTER,
            )  # fmt: skip
        limit = self._limit_per_address
        if limit and self._connections[address] >= limit:
            raise Refused(
                HTTPStatus.TOO_MANY_REQUESTS,
                "the address has too many connections (JOBCAST_MAX_CONNECTIONS_PER_ADDRESS;"
                " if it is a proxy's, JOBCAST_TRUSTED_PROXIES should list it)", RETRY_AFTER,
            )  # fmt: skip

    def add(self, connection_id: str, address: str) -> None:
        self._of_connection[connection_id] = address
        self._connections[address] += 1

    def remove(self, connection_id: str) -> None:
        address = self._of_connection.pop(connection_id, None)
        if address is not None:
            self._connections[address] -= 1
            if not self._connections[address]:
                del self._connections[address]

    def of(self, connection_id: str) -> str:
        """Return the address of a connection, or an empty string if it is unknown."""
        return self._of_connection.get(connection_id, "")
