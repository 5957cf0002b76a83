"""The log of ``jobcast serve``: many connections say something at the same time."""

from __future__ import annotations

import asyncio
import copy
import logging
from typing import Any, Final

from uvicorn.config import LOGGING_CONFIG

from jobcast.realtime.connection.budget import TokenBucket
from jobcast.realtime.connection.refusals import BURST, RATE

DELAY: Final = 0.05  # seconds that a line may wait for others


class BatchingHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """Formats and writes what is logged within a moment in one go.

    In a storm of connections their lines, one by one, cost a fifth of the CPU time. An error is
    written at once, with all before it, and so is everything outside of the event loop.
    """

    def __init__(self) -> None:
        super().__init__()
        self._waiting: list[logging.LogRecord] = []
        self._loop: asyncio.AbstractEventLoop | None = None  # which has been asked to flush

    def emit(self, record: logging.LogRecord) -> None:
        self._waiting.append(record)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # there is none in this thread
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


class SkipAcceptedFilter(logging.Filter):
    """Leaves out what uvicorn logs of WebSockets, and of malformed requests beyond a rate.

    jobcast itself logs connections that open and close. Any stranger can send malformed requests.
    """

    def __init__(self) -> None:
        super().__init__()
        self._malformed = TokenBucket(RATE, BURST)

    def filter(self, record: logging.LogRecord) -> bool:
        message = str(record.msg)
        if message.endswith("[accepted]") or message in ("connection open", "connection closed"):
            return False
        if record.levelno != logging.WARNING or record.exc_info:
            return True
        return self._malformed.try_take()


def log_config() -> dict[str, Any]:
    """Return uvicorn's logging configuration, with the time and with jobcast's log.

    Without uvicorn's colours: it copies a record for each line, which alone was a tenth of what it
    costs to let a client in.
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
        "news": {"()": "jobcast.server.logging.SkipAcceptedFilter"},
        "safe": {"()": "jobcast.log_safety.SafeRecords"},
    }
    for handler in config["handlers"].values():
        handler["filters"] = ["safe"]
    config["loggers"]["uvicorn.error"]["filters"] = ["news"]
    config["loggers"]["jobcast"] = {"handlers": ["default"], "level": "INFO", "propagate": False}
    for name in ("engineio.server", "socketio.server"):
        # Without a level they would add handlers of their own, which know no time and no filter.
        config["loggers"][name] = {"handlers": ["default"], "level": "ERROR", "propagate": False}
    return config
