"""Which errors of a Redis server are about the events themselves, and which are an outage.

Only a handful of errors come back each time that the same events are sent: our script fails on
them, or a key of the job holds something else. Every other error may pass: the disk is full
(``MISCONF``), replicas are missing (``NOREPLICAS``), another script runs (``BUSY``), rights are
being changed, a slot moves. New servers bring new errors, so what is unknown is an outage too.
"""

from __future__ import annotations

import re
from typing import Final

from redis.exceptions import ResponseError

# redis-py leaves the code off for ``ERR``, and keeps it for codes that it has no class for. Redis
# 6 puts "Error running script (call to f_<sha>): @user_script:<line>: " before a script's error.
_CAUSED_BY_THE_EVENTS: Final = re.compile(
    r"(Error running script \(call to f_\w+\): @user_script: ?\d+: )?-?"
    r"("
    r"WRONGTYPE "
    r"|user_script: ?\d+: "  # an error of Lua: the script met what it does not expect
    r"|(ERR )?(The ID specified in XADD is|value is not an integer|value is out of range)"
    r"|(ERR )?(string exceeds maximum allowed size|wrong number of arguments for 'xadd')"
    r"|(ERR )?(hash value is not|invalid expire time)"
    r")",
    re.IGNORECASE,
)
_WAITS: Final = re.compile(r"HELD |NOTYET ")


def is_caused_by_the_events(answer: Exception) -> bool:
    """Return whether the server refuses these events now and at every other time.

    >>> is_caused_by_the_events(ResponseError("WRONGTYPE Operation against a key"))
    True
    >>> is_caused_by_the_events(ResponseError("MISCONF Errors writing to the AOF file"))
    False
    """
    # The errors that redis-py has a class for are all about the server.
    return type(answer) is ResponseError and bool(_CAUSED_BY_THE_EVENTS.match(str(answer)))


def waits_for_others(answer: Exception) -> bool:
    """Return whether ``publish.lua`` waits for events of another publisher, or for earlier ones."""
    return bool(_WAITS.match(str(answer)))


def described(answer: Exception) -> str:
    """Return the text of an error with the server's code, which redis-py cuts off.

    >>> described(Exception("it is down"))
    'it is down'
    """
    code = getattr(answer, "status_code", None)
    text = str(answer) or repr(answer)
    return text if code in (None, "ERR") or text.startswith(str(code)) else f"{code} {text}"
