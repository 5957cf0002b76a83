"""Logging of ``jobcast serve``, for many connections that log at the same time."""

from __future__ import annotations

import asyncio
import copy
import logging
from typing import Any, Final

from uvicorn.config import LOGGING_CONFIG

from jobcast.realtime.connection.budget import TokenBucket
from jobcast.realtime.connection.refusals import BURST, RATE

DELAY: Final = 0.05  # maximum time that a record waits for others, in seconds


class BatchingHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """Handler that writes all records of a short period at once.

    When many clients connect at once, writing their lines one by one takes a fifth of the CPU time.
    An error flushes the handler immediately, and so does every record from outside the event loop.
    """

    def __init__(self) -> None:
        super().__init__()
        self._waiting: list[logging.LogRecord] = []
        self._loop: asyncio.AbstractEventLoop | None = None  # the loop with a scheduled flush

    def emit(self, record: logging.LogRecord) -> None:
        self._waiting.append(record)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # no loop runs in this thread
            loop = None
        if loop is None or record.levelno >= logging.ERROR:
            self.flush()
        elif loop is not self._loop:
            self._loop = loop
            loop.call_later(DELAY, self._flush_in, loop)

    def flush(self) -> None:
        self.acquire()
        try:
            records, self._waiting = self._waiting, []
            lines = [line for record in records if (line := self._line(record)) is not None]
            try:
                if lines:
                    self.stream.write("\n".join([*lines, ""]))
                super().flush()
            except Exception:
                if not records:
                    raise
                self.handleError(records[-1])
        finally:
            self.release()

    def _flush_in(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._loop is loop:
            self._loop = None
        self.flush()

    def _line(self, record: logging.LogRecord) -> str | None:
        try:
            return self.format(record)
        except Exception:
            self.handleError(record)
            return None


class WarningLimitFilter(logging.Filter):
    """Filter for uvicorn's log that limits warnings, since any client can cause them."""

    def __init__(self) -> None:
        super().__init__()
        self._malformed = TokenBucket(RATE, BURST)

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno != logging.WARNING or record.exc_info:
            return True
        return self._malformed.try_take()


def log_config() -> dict[str, Any]:
    """Return uvicorn's logging configuration, extended by timestamps and jobcast's loggers.

    The configuration omits uvicorn's colours: the colour formatter copies every record, which
    took a tenth of the CPU time of accepting a client.
    """
    config: dict[str, Any] = copy.deepcopy(LOGGING_CONFIG)
    config["formatters"]["default"] = {"format": "%(asctime)s %(levelname)-8s %(message)s"}
    config["formatters"]["access"]["fmt"] = (
        '%(asctime)s %(levelname)-8s %(client_addr)s - "%(request_line)s" %(status_code)s'
    )
    config["handlers"]["default"] = {
        "class": "jobcast.server.logging.BatchingHandler",
        "formatter": "default",
    }
    config["filters"] = {
        "limit": {"()": "jobcast.server.logging.WarningLimitFilter"},
        "safe": {"()": "jobcast.log_safety.SafeRecords"},
    }
    for handler in config["handlers"].values():
        handler["filters"] = ["safe"]
    config["loggers"]["uvicorn.error"]["filters"] = ["limit"]
    config["loggers"]["jobcast"] = {"handlers": ["default"], "level": "INFO", "propagate": False}
    for name in ("engineio.server", "socketio.server"):
        # Without a level these loggers add their own handlers, without timestamps and filters.
        config["loggers"][name] = {"handlers": ["default"], "level": "ERROR", "propagate": False}
    return config
