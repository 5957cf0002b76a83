"""PyJWT's decoder for tokens, with the checks of HMAC secrets done once. Needs PyJWT."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import jwt
from jwt.algorithms import HMACAlgorithm

HASHES: Final = {
    "HS256": HMACAlgorithm.SHA256,
    "HS384": HMACAlgorithm.SHA384,
    "HS512": HMACAlgorithm.SHA512,
}
SECRETS_CACHED: Final = 16  # secrets per algorithm; there are several during a rotation


class CheckedHMAC(HMACAlgorithm):
    """HMAC that checks once, not for each token, that a secret is no public key.

    PyJWT tries to parse the secret as a key in several formats, which takes a third of the time to
    verify a token.
    """

    def __init__(self, hash_alg: Any) -> None:
        super().__init__(hash_alg)
        self._prepare = lru_cache(SECRETS_CACHED)(super().prepare_key)

    def prepare_key(self, key: str | bytes) -> bytes:
        """Return the secret as bytes.

        Raises:
            InvalidKeyError: the secret is empty, or a key of another kind of algorithm.
        """
        return self._prepare(key)


class TokenDecoder(jwt.PyJWT):
    """A decoder that verifies the signature, ``aud`` and ``iss``, and requires ``exp`` and ``sub``.

    The caller checks the times and ``sub``: PyJWT accepts strings as times and refuses a number as
    ``sub``.

    Args:
        verifies_audience: whether a token has to have the expected ``aud``.
    """

    def __init__(self, *, verifies_audience: bool) -> None:
        super().__init__(
            {
                "require": ["exp", "sub"],
                "verify_aud": verifies_audience,
                "verify_exp": False,
                "verify_iat": False,
                "verify_nbf": False,
                "verify_sub": False,
            }
        )
        for name, hash_alg in HASHES.items():
            self._jws.unregister_algorithm(name)
            self._jws.register_algorithm(name, CheckedHMAC(hash_alg))
