"""Authentication and connection limits for new connections."""

from __future__ import annotations

from typing import Final

from starlette.requests import HTTPConnection

from jobcast.errors import TokenError
from jobcast.events import TOKEN_MAX_LENGTH
from jobcast.realtime.authentication import Authenticator
from jobcast.realtime.connection.origins import Origins
from jobcast.realtime.connections import Connections
from jobcast.realtime.revocations import DenyList
from jobcast.settings import Settings
from jobcast.tokens import Subject, TokenVerifier

UNREADABLE: Final = "the token cannot be read"


class Admission:
    """Authentication of clients, with a limit on the number of connections per subject.

    Args:
        settings: the token verification settings, ``JOBCAST_AUTHENTICATE`` and
            ``JOBCAST_MAX_CONNECTIONS_PER_SUBJECT``.
        connections: the authenticated connections of the process.
    """

    def __init__(self, settings: Settings, connections: Connections) -> None:
        self._connections = connections
        self._max_per_subject = settings.max_connections_per_subject
        self._verifier = TokenVerifier(settings)
        self._authenticator = Authenticator(settings)
        self._origins = Origins(settings)
        self.deny_list = DenyList()

    def start(self) -> None:
        self._verifier.start()

    def close(self) -> None:
        self._verifier.close()
        self._authenticator.close()

    async def identify(self, token: str | None, connection: HTTPConnection, hint: str) -> Subject:
        """Return the subject of a client.

        Args:
            token: the client's token; without one, ``JOBCAST_AUTHENTICATE`` decides.
            connection: the client's request.
            hint: how a client of this kind sends a token, for the error message.

        Raises:
            TokenError: the client is not authenticated, or its token or subject was revoked.
        """
        if token is not None:
            return await self.verify(token)
        subject = None
        if self._may_use_session(connection):
            subject = await self._authenticator.identify(connection)
        if subject is None:
            raise TokenError("token_missing", hint)
        self.deny_list.check(subject)
        return subject

    def _may_use_session(self, connection: HTTPConnection) -> bool:
        """Return whether a client may be identified by what its browser sends, such as cookies.

        The caller has checked the origin, except where any origin may connect.
        """
        origin = connection.headers.get("origin")
        if origin is None or not self._origins.any:
            return True
        scheme = connection.scope.get("scheme", "http")
        return self._origins.trust(origin, connection.headers, scheme)

    def check_limit(self, subject: Subject) -> None:
        """Check that a subject may open another connection.

        Raises:
            TokenError: the subject has too many connections.
        """
        if self._max_per_subject and self._connections.count_of(subject) >= self._max_per_subject:
            raise TokenError(
                "too_many_connections",
                f"a subject may have {self._max_per_subject} connections to a server",
            )

    async def verify(self, token: str) -> Subject:
        """Verify a token and return its subject.

        Raises:
            TokenError: the token is invalid or revoked.
        """
        if not 0 < len(token) <= TOKEN_MAX_LENGTH:
            raise TokenError("token_invalid", UNREADABLE)
        subject = await self._verifier.verify(token)
        self.deny_list.check(subject)
        return subject
