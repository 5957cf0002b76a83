"""Tokens: who a connection speaks for, and for how long. Needs PyJWT (``jobcast[server]``)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from http.client import HTTPException
from typing import Any, Final

import jwt
from msgspec import Struct

from jobcast.errors import SettingsError, TokenError
from jobcast.settings import Settings

LEEWAY: Final = 5  # seconds that clocks may differ
JWKS_TIMEOUT: Final = 5  # seconds to fetch the keys
JWKS_LIFESPAN: Final = 300  # seconds to keep them

# What PyJWT raises: the code for the client, and what to say. The most special come first.
_CODES: Final[Sequence[tuple[type[Exception], str, str]]] = (
    (jwt.ExpiredSignatureError, "token_expired", "the token has expired"),
    (jwt.ImmatureSignatureError, "token_not_yet_valid", "the token is not valid yet"),
    (jwt.InvalidAudienceError, "token_audience", "the token is for another audience"),
    (jwt.InvalidIssuerError, "token_issuer", "the token is from another issuer"),
    (jwt.InvalidAlgorithmError, "token_algorithm", "the token's algorithm is not allowed"),
    (jwt.InvalidSignatureError, "token_signature", "the token was signed with another key"),
    (jwt.MissingRequiredClaimError, "token_claims", "the token lacks a claim"),
    (jwt.PyJWKClientConnectionError, "unavailable", "the keys cannot be fetched now"),
    (jwt.PyJWKClientError, "token_key", "the token's key is not known"),
    (jwt.DecodeError, "token_invalid", "the token cannot be read"),
)
_CLAIM_CODES: Final = {"aud": "token_audience", "iss": "token_issuer"}


class Subject(Struct, frozen=True, kw_only=True):
    """Whom a verified token speaks for. ``claims`` are all that it says."""

    sub: str
    expires_at: float  # seconds since 1970
    claims: Mapping[str, Any]

    @property
    def jobs(self) -> frozenset[str]:
        """The job ids that the token lists; ``*`` stands for every job."""
        return frozenset(self.claims.get("jobs", ()))


class TokenVerifier:
    """Verifies tokens as the settings say. Algorithms are never taken from a token.

    Raises:
        SettingsError: there is no usable key.
    """

    def __init__(self, settings: Settings) -> None:
        settings.require_authentication()
        self._algorithms = list(settings.algorithms)
        self._audience = settings.jwt_audience
        self._issuer = settings.jwt_issuer
        self._jwks: jwt.PyJWKClient | None = None
        self._key: Any = None
        if settings.jwks_url is not None:
            self._jwks = jwt.PyJWKClient(
                settings.jwks_url, lifespan=JWKS_LIFESPAN, timeout=JWKS_TIMEOUT
            )
        elif settings.jwt_public_key is not None:
            self._key = _public_key(settings.jwt_public_key, self._algorithms)
        else:
            self._key = settings.jwt_secret

    async def check(self) -> None:
        """Fetch the keys, where they are to be fetched.

        Raises:
            SettingsError: there are none to be had.
        """
        if self._jwks is None:
            return
        try:
            await asyncio.to_thread(self._jwks.get_signing_keys)
        except (jwt.PyJWTError, HTTPException, OSError, ValueError) as exc:
            raise SettingsError("JOBCAST_JWKS_URL", f"gives no keys ({exc})") from exc

    async def verify(self, token: str) -> Subject:
        """Whom a token speaks for.

        Raises:
            TokenError: it does not authenticate anybody; ``code`` says why.
        """
        try:
            key = self._key
            if self._jwks is not None:
                # It may have to fetch them, which blocks.
                key = await asyncio.to_thread(self._jwks.get_signing_key_from_jwt, token)
            claims = self._decode(token, key)
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as exc:
            raise _refusal(exc) from None
        subject = claims["sub"]
        if not subject:
            raise TokenError("token_claims", "the token's sub is empty")
        jobs = claims.get("jobs", [])
        if not isinstance(jobs, list) or not all(isinstance(job, str) for job in jobs):
            raise TokenError("token_claims", "the token's jobs are no list of strings")
        return Subject(sub=subject, expires_at=float(claims["exp"]), claims=claims)

    def _decode(self, token: str, key: Any) -> dict[str, Any]:
        return jwt.decode(
            token,
            key,
            algorithms=self._algorithms,
            audience=self._audience,
            issuer=self._issuer,
            leeway=LEEWAY,
            options={"require": ["exp", "sub"], "verify_aud": self._audience is not None},
        )


def mint(
    secret: str,
    sub: str,
    *,
    jobs: Sequence[str] = (),
    ttl: float = 3600,
    algorithm: str = "HS256",
    audience: str | None = None,
    issuer: str | None = None,
) -> str:
    """Make a token for development and tests.

    Args:
        secret: what ``JOBCAST_JWT_SECRET`` is, or a private key in PEM.
        sub: the subject: it may follow the jobs that it owns.
        jobs: ids of further jobs that it may follow; ``*`` for every job.
        ttl: seconds that the token is valid.

    >>> token = mint("x" * 32, "alice", jobs=["42"])
    """
    now = int(time.time())
    claims: dict[str, Any] = {"sub": sub, "iat": now, "exp": now + int(ttl)}
    if jobs:
        claims["jobs"] = list(jobs)
    if audience is not None:
        claims["aud"] = audience
    if issuer is not None:
        claims["iss"] = issuer
    return jwt.encode(claims, secret, algorithm=algorithm)


def _refusal(exc: Exception) -> TokenError:
    if isinstance(exc, jwt.MissingRequiredClaimError):
        code = _CLAIM_CODES.get(exc.claim, "token_claims")
        return TokenError(code, f"the token has no {exc.claim} claim")
    for kind, code, message in _CODES:
        if isinstance(exc, kind):
            return TokenError(code, message)
    return TokenError("token_claims", "a claim of the token cannot be used")


def _public_key(pem: str, algorithms: Sequence[str]) -> Any:
    """The key, parsed once.

    Raises:
        SettingsError: it is none, or of a kind that no allowed algorithm is for.
    """
    problems: list[str] = []
    for name in algorithms:
        algorithm = jwt.get_algorithm_by_name(name)
        try:
            return algorithm.prepare_key(pem)
        except (jwt.InvalidKeyError, ValueError, TypeError) as exc:
            problems.append(f"{name}: {exc}")
    raise SettingsError(
        "JOBCAST_JWT_PUBLIC_KEY", f"is no key for the algorithms allowed ({'; '.join(problems)})"
    )
