"""Revocation of tokens: close the connections that use them, and refuse them from then on.

>>> from jobcast.revocation import revoke
>>> revoke(sub="alice")  # all tokens issued to alice until now
>>> revoke(jti="5f0c", ttl=3600)  # one token
"""

from __future__ import annotations

import time
from typing import Final

from jobcast.errors import PublishFailed, TransportError
from jobcast.settings import Settings
from jobcast.transports import open_publisher
from jobcast.transports.revocations import Revocation, SupportsRevoking

DEFAULT_TTL: Final = 30 * 24 * 3600  # seconds; used if no setting bounds the lifetime of tokens
LEEWAY: Final = 60  # seconds of allowed clock difference


def revoke(
    *,
    sub: str | int | None = None,
    jti: str | None = None,
    before: float | None = None,
    ttl: float | None = None,
    settings: Settings | None = None,
) -> Revocation:
    """Revoke one token, or the tokens of a subject, on every server process.

    The servers close open connections that use such a token at once, and refuse new ones with
    ``token_revoked``. The call blocks while it writes to the transport: in asyncio code, run it in
    a thread. Repeating a revocation is harmless.

    Args:
        sub: the subject whose tokens are revoked. An int is converted to its digits.
        jti: the id of one token.
        before: a time in seconds since 1970, by default now. Tokens of ``sub`` that were issued
            later stay valid. Tokens without ``iat`` are revoked.
        ttl: how long the revocation is kept, in seconds. It should cover the remaining lifetime
            of the tokens. The default is ``JOBCAST_JWT_MAX_LIFETIME``, or 30 days if that is not
            set.
        settings: the settings; read from the environment by default.

    Returns:
        The revocation as stored. ``until`` is when it is deleted, in seconds since 1970.

    Raises:
        ValueError: neither or both of ``sub`` and ``jti`` are given, or one is empty.
        SettingsError: a setting in the environment is wrong.
        TransportError: the transport does not support revocations.
        PublishFailed: the transport cannot be reached.
    """
    subject = None if sub is None else str(sub)
    if (subject is None) == (jti is None) or not (subject or jti):
        raise ValueError("give either sub, a subject, or jti, the id of a token")
    settings = settings or Settings.load()
    now = time.time()
    revocation = Revocation(
        jti=jti,
        sub=subject,
        before=0.0 if subject is None else (now if before is None else before),
        until=now + (ttl or settings.jwt_max_lifetime or DEFAULT_TTL) + LEEWAY,
    )
    publisher = open_publisher(settings.url, settings.retention, prefix=settings.prefix)
    try:
        if not isinstance(publisher, SupportsRevoking):
            raise TransportError(
                f"the transport of {settings.masked_url} cannot revoke tokens: its publisher has no"
                " method revoke"
            )
        publisher.revoke(revocation)
    except PublishFailed as exc:
        raise PublishFailed(
            f"could not revoke: {settings.masked_url} cannot be reached ({exc}):"
            " check JOBCAST_URL and try again",
            (),
        ) from exc
    finally:
        publisher.close()
    return revocation
