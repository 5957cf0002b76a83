"""``jobcast serve``: the Socket.IO process under uvicorn."""

from __future__ import annotations

import copy
from typing import Any, Final

import uvicorn
from uvicorn.config import LOGGING_CONFIG

from jobcast.realtime.app import MAX_MESSAGE, create_app
from jobcast.settings import Settings

SHUTDOWN_TIMEOUT: Final = 10  # seconds that connections may take to end


def serve(settings: Settings, host: str, port: int) -> None:
    """Serve until a signal comes.

    Raises:
        SettingsError: a setting is missing or wrong.
    """
    app = create_app(settings)
    uvicorn.run(
        app,
        host=host,
        port=port,
        # The implementation on websockets' sans-I/O layer: the one without a deprecated API.
        ws="websockets-sansio",
        ws_max_size=MAX_MESSAGE,
        # Browsers accept compression whenever it is offered, and it costs CPU and memory for each.
        ws_per_message_deflate=False,
        log_config=_log_config(),
        timeout_graceful_shutdown=SHUTDOWN_TIMEOUT,
    )


def _log_config() -> dict[str, Any]:
    """uvicorn's own, with the time, and with what jobcast has to say."""
    config: dict[str, Any] = copy.deepcopy(LOGGING_CONFIG)
    config["formatters"]["default"]["fmt"] = "%(asctime)s %(levelprefix)s %(message)s"
    config["formatters"]["access"]["fmt"] = (
        '%(asctime)s %(levelprefix)s %(client_addr)s - "%(request_line)s" %(status_code)s'
    )
    config["loggers"]["jobcast"] = {"handlers": ["default"], "level": "INFO", "propagate": False}
    return config
