"""The addresses of connections, and the number of connections per address."""

from __future__ import annotations

from collections import Counter


class Addresses:
    """The addresses of open connections.

    >>> addresses = Addresses()
    >>> addresses.add("sid", "192.0.2.7")
    >>> addresses.count("192.0.2.7")
    1
    """

    def __init__(self) -> None:
        self._of_connection: dict[str, str] = {}
        self._connections: Counter[str] = Counter()

    def add(self, eio_sid: str, address: str) -> None:
        self._of_connection[eio_sid] = address
        self._connections[address] += 1

    def remove(self, eio_sid: str) -> None:
        address = self._of_connection.pop(eio_sid, None)
        if address is not None:
            self._connections[address] -= 1
            if not self._connections[address]:
                del self._connections[address]

    def of(self, eio_sid: str) -> str:
        """Return the address of a connection, or an empty string if it is unknown."""
        return self._of_connection.get(eio_sid, "")

    def count(self, address: str) -> int:
        """Return the number of connections from an address."""
        return self._connections[address]
