"""Keys from the settings that verify and sign tokens. Needs PyJWT (``jobcast[tokens]``)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import jwt
from msgspec import Struct

from jobcast.errors import SettingsError
from jobcast.settings import NamedKey, Settings


class VerificationKey(Struct, frozen=True):
    """A key, its allowed algorithms, and the ``kid`` of the tokens that it verifies, if any."""

    kid: str | None
    material: Any
    algorithms: tuple[str, ...]


class SigningKey(Struct, frozen=True):
    """A key that signs tokens, its algorithm, and its ``kid``, if any."""

    kid: str | None
    material: Any
    algorithm: str


def signing_key(settings: Settings) -> SigningKey:
    """Return the key with which the settings sign new tokens.

    Raises:
        SettingsError: the settings have no such key, or none of the allowed algorithms fits it.
    """
    if settings.private_key is not None:
        key = _parse(settings.private_key, settings.algorithms, "JOBCAST_JWT_PRIVATE_KEY")
        return SigningKey(key.kid, key.material, key.algorithms[0])
    if settings.secrets:
        kid, secret = settings.secrets[0]
        return SigningKey(kid, secret, settings.algorithms[0])
    raise SettingsError(
        "JOBCAST_JWT_SECRET",
        "is not set, nor are JOBCAST_JWT_SECRETS and JOBCAST_JWT_PRIVATE_KEY: one of them is needed"
        " to sign a token",
    )


class StaticKeys:
    """The secrets or public keys from the settings. There are several during a rotation.

    Raises:
        SettingsError: a public key cannot be parsed, or none of the allowed algorithms fits it.
    """

    def __init__(self, settings: Settings) -> None:
        variable = (
            "JOBCAST_JWT_PUBLIC_KEYS" if settings.jwt_public_keys else "JOBCAST_JWT_PUBLIC_KEY"
        )
        self._keys = [
            VerificationKey(kid, secret, settings.algorithms) for kid, secret in settings.secrets
        ] + [_parse(named, settings.algorithms, variable) for named in settings.public_keys]

        self.are_named = any(key.kid is not None for key in self._keys)

    def start(self) -> None:
        """Do nothing: the keys are already loaded."""

    def close(self) -> None:
        """Do nothing: nothing is refreshed in the background."""

    async def find(self, kid: str | None) -> Sequence[VerificationKey]:
        """Return the keys to try on a token, in order.

        For a token without ``kid`` these are all keys. For a token with a ``kid`` these are the
        keys with that id or, if there are none, the keys without an id.
        """
        if kid is None:
            return self._keys
        named = [key for key in self._keys if key.kid == kid]
        return named or [key for key in self._keys if key.kid is None]


# A web application signs a token a request, and parsing an RSA key takes milliseconds.
@lru_cache(maxsize=16)
def _parse(named: NamedKey, algorithms: tuple[str, ...], variable: str) -> VerificationKey:
    """Parse a key, and restrict it to the allowed algorithms that fit its type."""
    usable: dict[str, Any] = {}
    problems: list[str] = []
    for name in algorithms:
        try:
            usable[name] = jwt.get_algorithm_by_name(name).prepare_key(named.text)
        except (jwt.InvalidKeyError, ValueError, TypeError) as exc:
            problems.append(f"{name}: {exc}")
    if not usable:
        of = "" if named.kid is None else f" {named.kid!r}"
        raise SettingsError(
            variable, f"is not a key{of} for the allowed algorithms ({'; '.join(problems)})"
        )
    return VerificationKey(named.kid, next(iter(usable.values())), tuple(usable))
