"""Masking of secrets in printed and logged text.

:func:`mask_url` masks the possibly secret parts of a URL. :func:`mask` masks each URL in a text and
every secret registered with :func:`remember`: an error message of a server may contain a password
without a URL around it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import unquote, unquote_plus

MASK: Final = "***"
SHORTEST_SECRET: Final = 6  # characters; shorter values occur in ordinary words

_SECRET_WORDS: Final = ("password", "passwd", "secret", "token", "key", "credential", "signature")
_PUBLIC_WORDS: Final = ("public",)
# In a list of URLs joined by ; or , each URL ends where the next one begins.
_URL: Final = re.compile(
    r"[A-Za-z][A-Za-z0-9+.-]*://(?:(?![;,][A-Za-z][A-Za-z0-9+.-]*://)[^\s\"'<>])+"
)
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_AUTHORITY: Final = re.compile(r"[^/?#]*")
# A user and the start of a password that contains a character such as /, but not a host and port.
_CUT_OFF: Final = re.compile(r"[^:\[\]]*:(?!\d*\Z).+")
_USER: Final = re.compile(r"[A-Za-z0-9_.-]*:")
_PARAMETER: Final = re.compile(r"(?<=[?&;#])([^=&;?#]*)=")

_secrets: tuple[str, ...] = ()  # longest first: one secret may contain another


def is_secret_name(name: str) -> bool:
    """Return whether the name of a parameter or a setting indicates a secret.

    >>> is_secret_name("sentinel_password"), is_secret_name("jwt_public_key")
    (True, False)
    """
    name = name.lower()
    return any(word in name for word in _SECRET_WORDS) and not any(
        word in name for word in _PUBLIC_WORDS
    )


def mask_url(url: str) -> str:
    """Return the URL with ``***`` in place of passwords and secret parameters.

    The URL may be malformed. If it can be parsed in two ways, the secret parts of both are masked.

    >>> mask_url("redis+sentinel://bob:pass@s1,s2/0/main?sentinel_password=secret")
    'redis+sentinel://bob:***@s1,s2/0/main?sentinel_password=***'
    """
    return _masked(url, _secret_parts(url))


def mask(text: str) -> str:
    """Return the text with its URLs and the registered secrets of this process masked."""
    for secret in _secrets:
        if secret in text:
            text = text.replace(secret, MASK)
    if "://" in text:
        text = _URL.sub(lambda found: _masked(found[0], _parts_in_text(found[0])), text)
    return text


def remember(*values: str) -> None:
    """Register secrets that :func:`mask` masks from now on.

    Args:
        values: secrets, or URLs that contain secrets.
    """
    global _secrets
    known = set(_secrets)
    for value in values:
        parts = [value]
        if _SCHEME.match(value):
            parts = [value[start:end] for start, end in _secret_parts(value)]
        for part in parts:
            forms = {part, unquote(part), unquote_plus(part)}
            known.update(form for form in forms if len(form) >= SHORTEST_SECRET)
    _secrets = tuple(sorted(known, key=len, reverse=True))


def _masked(url: str, parts: Iterator[tuple[int, int]]) -> str:
    shown, position = "", 0
    for start, end in _merged(parts):
        shown += url[position:start] + MASK
        position = end
    return shown + url[position:]


def _secret_parts(url: str) -> Iterator[tuple[int, int]]:
    """Yield the start and end of each secret part of a server's URL."""
    scheme = _SCHEME.match(url)
    start = scheme.end() if scheme else 0
    # An unencoded password may contain any character, so the last @ ends it.
    end = url.rfind("@", start)
    user = _USER.match(url, start, max(start, end))
    # If there is no password, the user name may be a token.
    return _parts(url, user.end() if user and user.end() < end else start, end)


def _parts_in_text(url: str) -> Iterator[tuple[int, int]]:
    """Yield the start and end of each secret part of a URL in a text. Include the user name.

    The URL may be that of a web page, whose path may contain an @.
    """
    start = url.index("://") + len("://")
    authority = _AUTHORITY.match(url, start)
    stop = authority.end() if authority else start
    end = url.rfind("@", start, stop)
    if end < 0 and _CUT_OFF.fullmatch(url, start, stop):
        end = url.rfind("@", start)
    if url.endswith(f":{MASK}", start, max(start, end)):
        end = start  # mask_url has already masked this URL
    return _parts(url, start, end)


def _parts(url: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the part from ``start`` to the @ at ``end``, and the values of secret parameters."""
    if end > start:
        yield start, end
    for found in _PARAMETER.finditer(url, start):
        value, following = found.end(), url.find("&", found.end())
        end = len(url) if following < 0 else following
        if value < end and is_secret_name(unquote_plus(found[1])):
            yield value, end


def _merged(parts: Iterator[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(parts):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return merged
