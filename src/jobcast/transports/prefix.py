"""The prefix that tells deployments apart which share a server.

Keys, channels, exchanges and queues begin with it. The number of a Redis database is no substitute:
pub/sub ignores it.
"""

from __future__ import annotations

import re
from typing import Final

DEFAULT_PREFIX: Final = "jobcast"

# No braces: in a cluster they would decide the slot of every key.
_ALLOWED: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}", re.ASCII)
# An exchange of the deployment `jobcast` is called `jobcast.events`; another deployment's would be.
_RESERVED_ENDINGS: Final = (".events", ".leases", ".revocations")


def check_prefix(prefix: str) -> str:
    """Return the prefix if it can be used.

    Raises:
        ValueError: it cannot; the text goes after the name of a setting.

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
