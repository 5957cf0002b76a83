"""Keys from the settings that verify tokens. Needs PyJWT (``jobcast[server]``)."""

from __future__ import annotations

from collections.abc import Sequence
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
        ] + [_public_key(named, settings.algorithms, variable) for named in settings.public_keys]

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


def _public_key(named: NamedKey, algorithms: Sequence[str], variable: str) -> VerificationKey:
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
