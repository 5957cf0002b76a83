"""uvicorn's logger for WebSockets, without the lines that clients can cause at will."""

from __future__ import annotations

import logging
from typing import Any, Final

# jobcast logs the connections itself. uvicorn and websockets log each of them twice more.
ROUTINE: Final = frozenset(
    {'%s - "WebSocket %s" [accepted]', "connection open", "connection closed"}
)


class QuietLogger(logging.LoggerAdapter):  # type: ignore[type-arg]
    """A logger that logs opened and closed WebSockets, and invalid UTF-8, at level debug."""

    @property
    def level(self) -> int:
        """The wrapped logger's level, which uvicorn reads."""
        return int(self.logger.level)

    def info(self, msg: object, *args: object, **kwargs: Any) -> None:
        if isinstance(msg, str) and msg in ROUTINE:
            self.logger.debug(msg, *args, **kwargs)
        else:
            super().info(msg, *args, **kwargs)

    def exception(self, msg: object, *args: object, **kwargs: Any) -> None:
        if str(msg).startswith("Invalid UTF-8"):
            self.debug(msg, *args)
        else:
            super().exception(msg, *args, **kwargs)


#: The logger for all WebSockets.
QUIET_LOGGER: Final = QuietLogger(logging.getLogger("uvicorn.error"))
