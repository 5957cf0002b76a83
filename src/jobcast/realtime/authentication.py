"""Authentication by the application: ``JOBCAST_AUTHENTICATE``."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import HTTPConnection

from jobcast.errors import TokenError
from jobcast.realtime.application_function import (
    ApplicationFunction,
    FunctionFailed,
    FunctionTimeout,
)
from jobcast.settings import Settings
from jobcast.tokens import Subject, invalid_grant

Identify = Callable[[HTTPConnection], "str | Subject | Awaitable[str | Subject | None] | None"]
"""The type of the function that ``JOBCAST_AUTHENTICATE`` names.

The function returns the subject of a client that sent no token, by the headers and cookies of its
request: a string, or a :class:`Subject` with an expiry or claims. None refuses the client. It may
be ``async``. A plain function runs in a thread, so it may query a database.
"""

logger = logging.getLogger(__name__)


class Authenticator:
    """Authentication of clients without a token.

    Raises:
        SettingsError: ``JOBCAST_AUTHENTICATE`` does not name a function.
    """

    def __init__(self, settings: Settings) -> None:
        self._identify = (
            None
            if settings.authenticate is None
            else ApplicationFunction(
                "JOBCAST_AUTHENTICATE",
                settings.authenticate,
                settings.authorize_timeout,
                _subject,
                takes=("connection",),
            )
        )

    def close(self) -> None:
        """Release the function's threads. Later calls start new ones."""
        if self._identify is not None:
            self._identify.close()

    async def identify(self, connection: HTTPConnection) -> Subject | None:
        """Return the subject of a request, or None if there is none.

        Raises:
            TokenError: the function failed or did not answer in time, or the subject has expired.
        """
        if self._identify is None:
            return None
        try:
            subject = await self._identify(connection)
        except FunctionTimeout as exc:
            logger.error("refused a client: %s", exc)
            raise TokenError(
                "unavailable", "the client could not be authenticated in time; try again later"
            ) from None
        except FunctionFailed as exc:
            logger.exception("refused a client: %s", exc)
            raise TokenError("internal_error", "the server could not identify the client") from None
        if subject is not None and subject.expires_at <= time.time():
            raise TokenError("token_expired", "the session has expired")
        return subject


def _subject(answer: Any) -> Subject | None:
    """Return the subject that the application's function has returned.

    ``Subject`` does not check its fields. A ``sub`` of None would own every job without an owner.

    Raises:
        TypeError: the answer is no subject, or one with an invalid field.
    """
    if answer is None:
        return None
    subject = Subject(sub=answer) if isinstance(answer, str) else answer
    if not isinstance(subject, Subject):
        raise TypeError(
            "JOBCAST_AUTHENTICATE should return a string, a Subject or None, not"
            f" {type(answer).__name__}"
        )
    sub: Any = subject.sub
    expires_at: Any = subject.expires_at
    if not isinstance(sub, str) or not sub:
        raise TypeError(
            "JOBCAST_AUTHENTICATE should return a subject whose sub is a string that is not empty,"
            f" not {sub!r}"
        )
    if not isinstance(expires_at, (int, float)) or math.isnan(expires_at):
        raise TypeError(
            "JOBCAST_AUTHENTICATE should return a subject whose expires_at is a number of seconds"
            f" since 1970, not {expires_at!r}"
        )
    name = invalid_grant(subject.claims)
    if name is not None:
        raise TypeError(
            f"JOBCAST_AUTHENTICATE should return a subject whose claim {name} is a list of strings,"
            f" not {subject.claims[name]!r}"
        )
    return subject
