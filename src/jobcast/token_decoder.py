"""PyJWT's decoder for tokens, with cheaper checks of secrets and encodings. Needs PyJWT."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import jwt
from jwt.algorithms import HMACAlgorithm
from jwt.utils import base64url_decode, base64url_encode

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


class CanonicalSegments(jwt.PyJWS):
    """A reader of tokens that does not look at each character of a valid segment in Python.

    PyJWT does so before any other check, also for tokens with a wrong signature. It takes a third
    of the time to verify a token.
    """

    def _decode_base64url_segment(self, segment: bytes, name: str) -> bytes:  # type: ignore[override]
        """Return the bytes that a segment encodes.

        Raises:
            DecodeError: the segment is not base64url.
        """
        try:
            decoded: bytes = base64url_decode(segment)
        except ValueError:
            decoded = b""
        # The encoder writes no other characters and no padding.
        if base64url_encode(decoded) == segment:
            return decoded
        return super()._decode_base64url_segment(segment, name)


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
        self._jws = CanonicalSegments(options=self._jws.options)
        for name, hash_alg in HASHES.items():
            self._jws.unregister_algorithm(name)
            self._jws.register_algorithm(name, CheckedHMAC(hash_alg))
