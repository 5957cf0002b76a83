"""The keys of tokens in settings: shared secrets, PEM keys and algorithms."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from jobcast.settings.values import comma_separated

SECRET_MIN_LENGTH: Final = 32  # bytes; RFC 7518 requires it of an HS256 key

#: The settings with keys that verify or sign tokens.
TOKEN_KEYS: Final = (
    "jwt_secret", "jwt_secrets", "jwt_public_key", "jwt_public_keys", "jwt_private_key", "jwks_url",
)  # fmt: skip
HMAC_ALGORITHMS: Final = ("HS256", "HS384", "HS512")
KEY_ALGORITHMS: Final = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
)  # fmt: skip

# An entry of a list of secrets that begins with a key id. Base64 padding is not a separator.
_SECRET_WITH_KID: Final = re.compile(r"([A-Za-z0-9._-]{1,128})=(.*[^=].*)", re.DOTALL)
# A PEM block, optionally preceded by a key id.
_PEM_BLOCK: Final = re.compile(
    r"(?:(?P<kid>[A-Za-z0-9._-]{1,128})=)?\s*"
    r"(?P<pem>-----BEGIN (?P<kind>[A-Z ]+)-----.*?-----END (?P=kind)-----)[\s,]*",
    re.DOTALL,
)


class NamedKey(NamedTuple):
    """A secret or a PEM public key, with the ``kid`` of the tokens that it verifies, if any."""

    kid: str | None
    text: str


def secret(text: str) -> str:
    if text.startswith(("-----BEGIN ", "ssh-", "ecdsa-")):
        # A public key is not secret: anyone who has it could sign tokens with it.
        raise ValueError("should be a secret, not a key: JOBCAST_JWT_PUBLIC_KEY takes a public one")
    if len(text.encode()) < SECRET_MIN_LENGTH:
        raise ValueError(
            f"has a secret that is too short: it needs at least {SECRET_MIN_LENGTH} bytes."
            ' This makes one: python -c "import secrets; print(secrets.token_urlsafe(32))"'
        )
    return text


def secrets(text: str) -> tuple[str, ...]:
    entries = tuple(re.split(r"[,\s]+", text.strip(", \t\r\n")))
    for entry in entries:
        secret(named_secret(entry).text)
    _check_kids(tuple(named_secret(entry) for entry in entries))
    return entries


def named_secret(entry: str) -> NamedKey:
    named = _SECRET_WITH_KID.fullmatch(entry)
    return NamedKey(named[1], named[2]) if named else NamedKey(None, entry)


def _check_kids(keys: tuple[NamedKey, ...]) -> None:
    kids = [key.kid for key in keys if key.kid is not None]
    for kid in kids:
        if kids.count(kid) > 1:
            raise ValueError(f"has two keys with the key id {kid!r}: give each an id of its own")


def public_keys(text: str) -> str:
    text = text.replace("\\n", "\n").strip(", \t\r\n")
    keys = pem_blocks(text)
    if not keys or _PEM_BLOCK.sub("", text):
        raise ValueError(
            "should be public keys in PEM one after the other, each perhaps with its key id before"
            " it (2026-01=-----BEGIN PUBLIC KEY-----)"
        )
    for key in keys:
        public_key(key.text)
    _check_kids(keys)
    return text


def public_key(text: str) -> str:
    # Many process managers cannot set a multi-line variable.
    text = text.replace("\\n", "\n")
    if "PUBLIC KEY" not in text and "CERTIFICATE" not in text:
        raise ValueError("should be a public key in PEM (-----BEGIN PUBLIC KEY-----)")
    return text


def parse_private_key(text: str) -> str:
    """Return a private key in PEM, optionally preceded by ``kid=``, with line breaks.

    Raises:
        ValueError: the text is no such key, or the key is encrypted.
    """
    text = text.replace("\\n", "\n")
    block = _PEM_BLOCK.fullmatch(text)
    if block is None or not block["kind"].endswith("PRIVATE KEY"):
        raise ValueError("should be a private key in PEM (-----BEGIN PRIVATE KEY-----)")
    if block["kind"].startswith("ENCRYPTED"):
        raise ValueError("is encrypted: decrypt it, as with openssl pkey -in key.pem")
    return text


def pem_blocks(text: str) -> tuple[NamedKey, ...]:
    return tuple(NamedKey(block["kid"], block["pem"]) for block in _PEM_BLOCK.finditer(text))


def algorithms(text: str) -> tuple[str, ...]:
    items = comma_separated(text)
    for item in items:
        if item not in HMAC_ALGORITHMS + KEY_ALGORITHMS:
            known = ", ".join(HMAC_ALGORITHMS + KEY_ALGORITHMS)
            raise ValueError(f"has {item!r}; allowed: {known}")
    return items
