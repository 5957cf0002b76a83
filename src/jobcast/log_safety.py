"""Protection of log lines against forged lines and leaked credentials."""

from __future__ import annotations

import logging
import re
import traceback
from typing import Any, Final
from urllib.parse import unquote_plus

from jobcast.masking import MASK, is_secret_name, mask

LONGEST_LINE: Final = 4096  # characters
# These loggers log data from clients: paths with their query strings, and session ids.
EXPOSED_LOGGERS: Final = ("uvicorn.access", "uvicorn.error", "engineio.server", "socketio.server")
# These loggers log data from servers.
CLIENT_LOGGERS: Final = ("engineio.client", "socketio.client")

_OWN: Final = "jobcast."
_ACCESS_LOGGER: Final = "uvicorn.access"
_PARAMETER: Final = re.compile(r"(?<=[?&])([^=&\s\"'?]+)=([^&\s\"']+)")
_SAFE: Final = "jobcast_safe"  # the attribute of a record with its message after the filter
_BEARER: Final = "sid"  # a session id is the only credential of an HTTP long-polling client


class SafeRecords(logging.Filter):
    """A logging filter that removes control characters and secrets from every record.

    The message becomes a single line. The values of ``sid`` and of parameters whose names contain
    words such as ``token``, ``secret``, ``password`` or ``key`` are masked, and so is everything
    that :func:`jobcast.masking.mask` masks. The lines of a traceback are indented.

    >>> logging.getLogger("shop.access").addFilter(SafeRecords())
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name == _ACCESS_LOGGER and isinstance(record.args, tuple):
            # uvicorn's formatter builds the line from the arguments.
            record.args = tuple(_safe_argument(argument) for argument in record.args)
        elif not _is_safe(record):
            record.msg, record.args = safe_line(record.getMessage()), None
            setattr(record, _SAFE, record.msg)
        if record.exc_info and record.exc_info[0] is not None and not record.exc_text:
            record.exc_text = _safe_lines("".join(traceback.format_exception(*record.exc_info)))
        return True


def protect(*names: str) -> None:
    """Add :class:`SafeRecords` to the named loggers. Repeated calls have no further effect."""
    for name in names:
        logger = logging.getLogger(name)
        if not any(isinstance(some, SafeRecords) for some in logger.filters):
            logger.addFilter(SafeRecords())


def protect_own() -> None:
    """Add :class:`SafeRecords` to jobcast's own loggers in this process."""
    protect(*(name for name in list(logging.Logger.manager.loggerDict) if name.startswith(_OWN)))


def safe_line(text: str) -> str:
    """Return the text as one masked log line, truncated to ``LONGEST_LINE`` characters."""
    if len(text) > LONGEST_LINE:
        text = f"{text[:LONGEST_LINE]}…"
    if not text.isprintable():
        text = "".join(map(_escaped, text))
    if "=" in text and ("?" in text or "&" in text):
        text = _PARAMETER.sub(_shown_parameter, text)
    return mask(text)


def _is_safe(record: logging.LogRecord) -> bool:
    """Return whether this filter has made the record, as it is now, at its logger already."""
    return record.args is None and getattr(record, _SAFE, None) is record.msg


def _safe_argument(argument: Any) -> Any:
    return safe_line(argument) if isinstance(argument, str) else argument


def _safe_lines(text: str) -> str:
    return "\n".join(f"  {safe_line(line)}" for line in text.rstrip("\n").split("\n"))


def _escaped(character: str) -> str:
    if character.isprintable():
        return character
    return character.encode("unicode_escape").decode("ascii")


def _shown_parameter(found: re.Match[str]) -> str:
    name = unquote_plus(found[1])
    hidden = name == _BEARER or is_secret_name(name)
    return f"{found[1]}={MASK}" if hidden else found[0]
