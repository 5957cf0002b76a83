"""The prefix that separates deployments which share a server.

The names of keys, channels, exchanges and queues begin with it. Separate Redis database numbers are
not enough, because pub/sub ignores them.
"""

from __future__ import annotations

import re
from typing import Final

DEFAULT_PREFIX: Final = "jobcast"

# Braces are not allowed: in a cluster they would select the slot of every key.
_ALLOWED: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}", re.ASCII)
# With such a prefix, one deployment's bus would have the name of another deployment's exchange.
_RESERVED_ENDINGS: Final = (".events", ".leases", ".revocations")


def check_prefix(prefix: str) -> str:
    """Return the prefix if it is valid.

    Raises:
        ValueError: the prefix is invalid; the message is written to follow the name of a setting.

    >>> check_prefix("shop:staging")
    'shop:staging'
    """
    if _ALLOWED.fullmatch(prefix) is None:
        raise ValueError(
            f"should have 1 to 64 letters, digits and characters of _ - . : and not be {prefix!r}"
        )
    if prefix.endswith(_RESERVED_ENDINGS):
        raise ValueError(
            f"should not end with {' or '.join(_RESERVED_ENDINGS)}, as {prefix!r} does:"
            " exchanges of another deployment may have that name"
        )
    return prefix
