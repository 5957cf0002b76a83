"""Classifies errors of a Redis server: caused by the events themselves, or by an outage.

Only a few errors recur whenever the same events are sent: the script fails on them, or a key of the
job holds another type. All other errors are temporary: a full disk (``MISCONF``), missing replicas
(``NOREPLICAS``), another running script (``BUSY``), changed permissions, a moving slot. An unknown
error counts as an outage, because new servers bring new errors.
"""

from __future__ import annotations

import re
from typing import Final

from redis.exceptions import ResponseError

# redis-py drops the code ``ERR``, and keeps codes that it has no class for. Redis 6 puts
# "Error running script (call to f_<sha>): @user_script:<line>: " before a script's error.
_CAUSED_BY_THE_EVENTS: Final = re.compile(
    r"(Error running script \(call to f_\w+\): @user_script: ?\d+: )?-?"
    r"("
    r"WRONGTYPE "
    r"|user_script: ?\d+: "  # a Lua error: the script received unexpected data
    r"|(ERR )?(The ID specified in XADD is|value is not an integer|value is out of range)"
    r"|(ERR )?(string exceeds maximum allowed size|wrong number of arguments for 'xadd')"
    r"|(ERR )?(hash value is not|invalid expire time)"
    r")",
    re.IGNORECASE,
)
_WAITS: Final = re.compile(r"HELD |NOTYET ")


def is_caused_by_the_events(answer: Exception) -> bool:
    """Return whether the server refuses these events permanently.

    >>> is_caused_by_the_events(ResponseError("WRONGTYPE Operation against a key"))
    True
    >>> is_caused_by_the_events(ResponseError("MISCONF Errors writing to the AOF file"))
    False
    """
    # All errors for which redis-py has a class are about the server.
    return type(answer) is ResponseError and bool(_CAUSED_BY_THE_EVENTS.match(str(answer)))


def waits_for_others(answer: Exception) -> bool:
    """Return whether ``publish.lua`` waits for earlier events of this or another publisher."""
    return bool(_WAITS.match(str(answer)))


def describe_error(answer: Exception) -> str:
    """Return an error's text with the server's code, which redis-py removes.

    >>> describe_error(Exception("it is down"))
    'it is down'
    """
    code = getattr(answer, "status_code", None)
    text = str(answer) or repr(answer)
    return text if code in (None, "ERR") or text.startswith(str(code)) else f"{code} {text}"
