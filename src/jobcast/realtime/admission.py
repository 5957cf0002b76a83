"""Token verification and connection limits for new connections."""

from __future__ import annotations

from typing import Any

from jobcast.errors import InvalidMessage, TokenError
from jobcast.events import Auth, parse_request
from jobcast.realtime.connections import Connections
from jobcast.realtime.revocations import DenyList
from jobcast.settings import Settings
from jobcast.tokens import Subject, TokenVerifier


class Admission:
    """Verifier of tokens that also limits the number of connections per subject.

    Args:
        settings: the token verification settings and ``JOBCAST_MAX_CONNECTIONS_PER_SUBJECT``.
        connections: the authenticated connections of the process.
    """

    def __init__(self, settings: Settings, connections: Connections) -> None:
        self._connections = connections
        self._max_per_subject = settings.max_connections_per_subject
        self._verifier = TokenVerifier(settings)
        self.deny_list = DenyList()

    def start(self) -> None:
        self._verifier.start()

    def close(self) -> None:
        self._verifier.close()

    async def admit(self, auth: Any) -> Subject:
        """Verify a client's token and return its subject.

        Args:
            auth: the ``auth`` payload of the client's connect packet.

        Raises:
            TokenError: the token is missing, invalid or revoked, or its subject has too many
                connections.
        """
        subject = await self.verify(_token_of(auth))
        if self._max_per_subject and self._connections.count_of(subject) >= self._max_per_subject:
            raise TokenError(
                "too_many_connections",
                f"a subject may have {self._max_per_subject} connections to a server",
            )
        return subject

    async def verify(self, token: str) -> Subject:
        """Verify a token and return its subject.

        Raises:
            TokenError: the token is invalid or revoked.
        """
        subject = await self._verifier.verify(token)
        self.deny_list.check(subject)
        return subject


def _token_of(auth: Any) -> str:
    """Return the token from the ``auth`` payload of a connect packet.

    Raises:
        TokenError: the payload has no token, or is malformed.
    """
    if not auth or (isinstance(auth, dict) and not auth.get("token")):
        raise TokenError("token_missing", "connect with auth: {token}")
    try:
        return parse_request("connect", auth, Auth).token
    except InvalidMessage:
        raise TokenError("token_invalid", "the token cannot be read") from None
