"""Revoke tokens: end the connections that were made with them, and refuse them from now on.

>>> from jobcast.revocation import revoke
>>> revoke(sub="alice")  # every token that alice has now
>>> revoke(jti="5f0c", ttl=3600)  # one token
"""

from __future__ import annotations

import time
from typing import Final

from jobcast.errors import PublishFailed, TransportError
from jobcast.settings import Settings
from jobcast.transports import open_publisher
from jobcast.transports.revocations import Revocation, SupportsRevoking

DEFAULT_TTL: Final = 30 * 24 * 3600  # seconds; where nothing bounds the lifetime of tokens
LEEWAY: Final = 60  # seconds that clocks may differ


def revoke(
    *,
    sub: str | int | None = None,
    jti: str | None = None,
    before: float | None = None,
    ttl: float | None = None,
    settings: Settings | None = None,
) -> Revocation:
    """Revoke one token, or the tokens of a subject, on every server process.

    Open connections with such a token are closed at once; new ones are refused with
    ``token_revoked``. It blocks while the transport is written to: call it in a thread where a
    loop runs. Revoking again does no harm.

    Args:
        sub: the subject; a number stands for its digits.
        jti: the id of one token.
        before: seconds since 1970. Tokens of ``sub`` that were issued later stay valid, and those
            without ``iat`` do not. Now by default.
        ttl: seconds that the revocation is kept, which is as long as such a token may still be
            valid: ``JOBCAST_JWT_MAX_LIFETIME`` by default, or 30 days if that is not set.
        settings: read from the environment by default.

    Returns:
        The revocation as it is stored; ``until`` is when it is forgotten, in seconds since 1970.

    Raises:
        ValueError: neither or both of ``sub`` and ``jti`` are given, or one is empty.
        SettingsError: a setting in the environment is wrong.
        TransportError: the transport cannot keep revocations.
        PublishFailed: the transport cannot be reached now.
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
