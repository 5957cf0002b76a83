"""Verification and creation of tokens. Needs PyJWT (``jobcast[tokens]``)."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, Protocol

import jwt
from msgspec import Struct

from jobcast.errors import SettingsError, TokenError
from jobcast.jwks import RemoteKeys
from jobcast.keys import StaticKeys, VerificationKey, signing_key
from jobcast.settings import Settings
from jobcast.token_decoder import TokenDecoder

LEEWAY: Final = 5  # seconds of allowed clock difference
LATEST_TIME: Final = 253402300799  # the end of the year 9999, the limit of datetime

# PyJWT's exceptions, with the code and the message for the client. Subclasses come first.
_CODES: Final[Sequence[tuple[type[Exception], str, str]]] = (
    (jwt.InvalidAudienceError, "token_audience", "the token is for another audience"),
    (jwt.InvalidIssuerError, "token_issuer", "the token is from another issuer"),
    (jwt.InvalidAlgorithmError, "token_algorithm", "the token's algorithm is not allowed"),
    (jwt.InvalidSignatureError, "token_signature", "the token was signed with another key"),
    (jwt.MissingRequiredClaimError, "token_claims", "the token lacks a claim"),
    (jwt.DecodeError, "token_invalid", "the token cannot be read"),
)
_CLAIM_CODES: Final = {"aud": "token_audience", "iss": "token_issuer"}
_GRANTS: Final = ("jobs", "can", "feeds")  # claims that grant rights: each is a list of strings


class Subject(Struct, frozen=True, kw_only=True):
    """The subject of a client: of a verified token, with all of its claims in ``claims``.

    ``JOBCAST_AUTHENTICATE`` may return one for a client without a token. Without ``expires_at``
    its connections do not expire.

    >>> Subject(sub="alice", claims={"jobs": ["42"]}).jobs
    frozenset({'42'})
    """

    sub: str
    expires_at: float = math.inf  # seconds since 1970
    claims: Mapping[str, Any] = {}

    @property
    def jobs(self) -> frozenset[str]:
        """The job ids in the token's ``jobs`` claim. ``*`` allows every job."""
        return frozenset(self.claims.get("jobs", ()))

    @property
    def can(self) -> frozenset[str]:
        """The actions besides ``follow`` that the token allows on ``jobs``: its ``can`` claim."""
        return frozenset(self.claims.get("can", ()))

    @property
    def feeds(self) -> frozenset[str]:
        """The feeds in the token's ``feeds`` claim. ``*`` allows every feed."""
        return frozenset(self.claims.get("feeds", ()))

    @property
    def issued_at(self) -> float | None:
        """The time of issue (``iat``), in seconds since 1970; None if the token has none."""
        return self.claims.get("iat")

    @property
    def token_id(self) -> str | None:
        """The token's id (``jti``); None if it has none."""
        return self.claims.get("jti")


def invalid_grant(claims: Mapping[str, Any]) -> str | None:
    """Return the name of a claim that grants rights and is not a list of strings, or None."""
    for name in _GRANTS:
        if name not in claims:
            continue
        value = claims[name]
        is_list = isinstance(value, Collection) and not isinstance(value, str | bytes | Mapping)
        if not is_list or not all(isinstance(one, str) for one in value):
            return name
    return None


class Keys(Protocol):
    """A source of the keys that verify tokens."""

    @property
    def are_named(self) -> bool:
        """Whether keys have ids, by which a token names its key."""

    def start(self) -> None:
        """Begin to load the keys, in the running loop."""

    def close(self) -> None:
        """Stop the background work of the source."""

    async def find(self, kid: str | None) -> Sequence[VerificationKey]:
        """Return the keys to try on a token with the key id ``kid``, in order.

        Raises:
            TokenError: there is no such key, or the keys cannot be loaded.
        """


class TokenVerifier:
    """A verifier configured by the settings. It never takes the algorithm from a token.

    With a JWKS URL, a verifier works in one event loop at a time.

    Raises:
        SettingsError: the settings have no usable key.
    """

    def __init__(self, settings: Settings) -> None:
        settings.require_authentication()
        self._audience = settings.jwt_audience
        self._issuer = settings.jwt_issuer
        self._max_lifetime = settings.jwt_max_lifetime
        self._decoder = TokenDecoder(verifies_audience=self._audience is not None)
        self._keys: Keys = (
            StaticKeys(settings)
            if settings.jwks_url is None
            else RemoteKeys(settings.jwks_url, settings.algorithms)
        )

    def start(self) -> None:
        """Begin to fetch the keys before the first token arrives, if there is a JWKS URL."""
        self._keys.start()

    def close(self) -> None:
        """Stop refreshing the keys."""
        self._keys.close()

    async def check(self) -> None:
        """Fetch the keys, if there is a JWKS URL.

        Raises:
            SettingsError: the endpoint returns no usable keys.
        """
        if isinstance(self._keys, RemoteKeys):
            await self._keys.refresh()
            if self._keys.problem:
                raise SettingsError(
                    "JOBCAST_JWKS_URL", f"returns no usable keys ({self._keys.problem})"
                )

    async def verify(self, token: str) -> Subject:
        """Verify a token and return its subject.

        Raises:
            TokenError: the token is not valid. ``code`` names the reason.
        """
        try:
            keys = await self._keys.find(self._kid_of(token))
            claims = self._decode(token, keys)
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as exc:
            raise _refusal(exc) from None
        subject = Subject(sub=_sub_of(claims), expires_at=self._check_times(claims), claims=claims)
        name = invalid_grant(claims)
        if name is not None:
            raise TokenError("token_claims", f"the token's {name} should be a list of strings")
        return subject

    def _kid_of(self, token: str) -> str | None:
        """Return the key id of a token, or None if no key has an id."""
        if not self._keys.are_named:
            return None
        kid: str | None = jwt.get_unverified_header(token).get("kid")
        return kid

    def _decode(self, token: str, keys: Sequence[VerificationKey]) -> dict[str, Any]:
        """Return the claims of a token if one of the keys verifies its signature."""
        problem: jwt.InvalidTokenError | None = None
        for key in keys:
            try:
                return self._decoder.decode(
                    token,
                    key.material,
                    algorithms=key.algorithms,
                    audience=self._audience,
                    issuer=self._issuer,
                )
            except jwt.InvalidSignatureError as exc:
                problem = exc
            except jwt.InvalidAlgorithmError as exc:
                problem = problem or exc
        if problem is None:
            raise TokenError("token_key", "the token's key is not known")
        raise problem

    def _check_times(self, claims: Mapping[str, Any]) -> float:
        """Check the times of a token, and return its expiry in seconds since 1970."""
        now = time.time()
        begins, issued = _time_of(claims, "nbf"), _time_of(claims, "iat")
        expires = _time_of(claims, "exp") or 0.0
        if expires <= now - LEEWAY:
            raise TokenError("token_expired", "the token has expired")
        if max(begins or 0.0, issued or 0.0) > now + LEEWAY:
            raise TokenError("token_not_yet_valid", "the token is not valid yet")
        lifetime = expires - (now if issued is None else issued)
        if self._max_lifetime is not None and lifetime > self._max_lifetime + LEEWAY:
            raise TokenError(
                "token_lifetime",
                f"the token is valid for longer than the {self._max_lifetime} s that are allowed",
            )
        return expires


def mint(
    secret: Any,
    sub: str,
    *,
    jobs: Sequence[str] = (),
    can: Sequence[str] = (),
    feeds: Sequence[str] = (),
    ttl: float = 3600,
    algorithm: str = "HS256",
    audience: str | None = None,
    issuer: str | None = None,
    kid: str | None = None,
    jti: str | None = None,
) -> str:
    """Create a token for development and tests.

    Args:
        secret: the value of ``JOBCAST_JWT_SECRET``, or a private key in PEM.
        sub: the subject, which may follow the jobs that it owns.
        jobs: ids of further jobs that the subject may follow; ``*`` allows every job.
        can: further actions on these jobs, such as ``cancel``.
        feeds: the feeds that the subject may list besides ``mine``; ``*`` allows every feed.
        ttl: lifetime of the token, in seconds.
        algorithm: the JWT algorithm of the signature.
        audience: the ``aud`` claim.
        issuer: the ``iss`` claim.
        kid: the id of the key, if the server has several keys.
        jti: the id of the token, by which it can be revoked.

    Returns:
        The encoded token.

    >>> token = mint("x" * 32, "alice", jobs=["42"])
    """
    # With its fraction, the time of issue is later than a revocation in the same second.
    issued = time.time()
    claims: dict[str, Any] = {"sub": sub, "iat": issued, "exp": int(issued) + int(ttl)}
    grants = zip(_GRANTS, (jobs, can, feeds), strict=True)
    claims |= {name: list(values) for name, values in grants if values}
    if audience is not None:
        claims["aud"] = audience
    if issuer is not None:
        claims["iss"] = issuer
    if jti is not None:
        claims["jti"] = jti
    headers = None if kid is None else {"kid": kid}
    return jwt.encode(claims, secret, algorithm=algorithm, headers=headers)


def issue(
    settings: Settings,
    sub: str,
    *,
    ttl: float,
    jobs: Sequence[str] = (),
    can: Sequence[str] = (),
    feeds: Sequence[str] = (),
    jti: str | None = None,
) -> str:
    """Create a token that the servers with these settings accept.

    The settings' private key signs it, or the first of their secrets.
    ``JOBCAST_JWT_MAX_LIFETIME`` bounds its lifetime.

    Args:
        settings: the settings, usually ``Settings.load()``.
        sub: the subject, which may follow the jobs that it owns.
        ttl: lifetime of the token, in seconds.
        jobs: ids of further jobs that the subject may follow; ``*`` allows every job.
        can: further actions on these jobs, such as ``cancel``.
        feeds: the feeds that the subject may list besides ``mine``; ``*`` allows every feed.
        jti: the id of the token, by which it can be revoked.

    Raises:
        SettingsError: the settings have neither a secret nor a usable private key.

    >>> token = issue(Settings(jwt_secret="x" * 32), "alice", ttl=300)
    """
    key = signing_key(settings)
    return mint(
        key.material,
        sub,
        jobs=jobs,
        can=can,
        feeds=feeds,
        ttl=min(ttl, settings.jwt_max_lifetime or ttl),
        algorithm=key.algorithm,
        audience=settings.jwt_audience,
        issuer=settings.jwt_issuer,
        kid=key.kid,
        jti=jti,
    )


def _sub_of(claims: Mapping[str, Any]) -> str:
    """Return the subject as a string. A whole number becomes its digits, as in ``owned_by``."""
    sub = claims["sub"]
    if isinstance(sub, int) and not isinstance(sub, bool):
        return str(sub)
    if not isinstance(sub, str):
        raise TokenError(
            "token_claims",
            f"the token's sub should be a string or a whole number, not {_json_type(sub)}",
        )
    if not sub:
        raise TokenError("token_claims", "the token's sub is empty")
    return sub


def _json_type(value: object) -> str:
    match value:
        case bool():
            return "a boolean"
        case float():
            return "a fraction"
        case list():
            return "an array"
    return "an object"


def _time_of(claims: Mapping[str, Any], name: str) -> float | None:
    """Return a claim that is a time, in seconds since 1970; None if the token lacks the claim."""
    if name not in claims:
        return None
    value = claims[name]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= LATEST_TIME:
        raise TokenError(
            "token_claims",
            f"the token's {name} should be a time: seconds since 1970, in the year 9999 at most",
        )
    return float(value)


def _refusal(exc: Exception) -> TokenError:
    if isinstance(exc, jwt.MissingRequiredClaimError):
        code = _CLAIM_CODES.get(exc.claim, "token_claims")
        return TokenError(code, f"the token has no {exc.claim} claim")
    for kind, code, message in _CODES:
        if isinstance(exc, kind):
            return TokenError(code, message)
    return TokenError("token_claims", "a claim of the token cannot be used")
