"""Check at the start of a worker that it can reach the transport's server.

While the server cannot be reached, the worker buffers events. Without the check, a wrong address
would go unnoticed until events are lost.
"""

from __future__ import annotations

import logging
import threading
from typing import Any, Final

from celery import signals

from jobcast.errors import PublishFailed
from jobcast.settings import Settings
from jobcast.transports import UNKNOWN_RUN, open_publisher
from jobcast.transports.leases import Lease, SupportsLeaseRenewal

# Releasing a lease that no run holds changes nothing, and needs the server and rights on it.
PROBE: Final = Lease("jobcast-probe", UNKNOWN_RUN)

logger = logging.getLogger(__name__)


def check_transport(settings: Settings) -> None:
    """Log a warning if the transport cannot be used. Blocks for up to its connection timeout."""
    transport = open_publisher(settings.url, settings.retention, prefix=settings.prefix)
    try:
        if isinstance(transport, SupportsLeaseRenewal):  # a custom transport may have no leases
            transport.release([PROBE])
    except PublishFailed as exc:
        logger.warning(
            "cannot reach %s (%s): tasks run, and their events are buffered until it can be"
            " reached. JOBCAST_URL, or jobcast_url in the Celery configuration, sets the address",
            settings.masked_url, exc,
        )  # fmt: skip
    finally:
        transport.close()


def _check_in_background(sender: Any, **_: object) -> None:
    app = getattr(sender, "app", None)
    settings = Settings.load(celery_conf=None if app is None else app.conf)
    if not settings.url.startswith("memory:"):
        threading.Thread(
            target=check_transport, args=(settings,), name="jobcast-reach", daemon=True
        ).start()


signals.worker_ready.connect(_check_in_background, weak=False)
