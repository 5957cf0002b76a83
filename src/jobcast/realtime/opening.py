"""A connection that opens, and counts against its subject's limit meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from jobcast.realtime.connections import Connection, Connections
from jobcast.tokens import Subject


class Opening:
    """The context in which a connection opens.

    The connection counts from the beginning of the context on. One that is not open at the end no
    longer counts.

    Args:
        connections: the connections of the process.
        subject: the subject of the connection.
        open_connection: opens a connection; raises ``TokenError`` if the token was revoked since
            its verification.
    """

    __slots__ = ("_connections", "_is_open", "_open", "_subject")

    def __init__(
        self,
        connections: Connections,
        subject: Subject,
        open_connection: Callable[[Connection], None],
    ) -> None:
        self._connections = connections
        self._subject = subject
        self._open = open_connection
        self._is_open = False

    def __enter__(self) -> Opening:
        self._connections.count(self._subject)
        return self

    def open(self, connection: Connection) -> None:
        """Open the connection.

        Raises:
            TokenError: the token was revoked since its verification.
        """
        self._open(connection)
        self._is_open = True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._is_open:
            self._connections.uncount(self._subject)
