"""Whether a worker that has started reaches the server that its events go to.

Events are kept while it does not, so that a wrong address would show only when events get lost.
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
    """Log a warning if the transport cannot be used. Blocks as long as a connection may take."""
    transport = open_publisher(settings.url, settings.retention, prefix=settings.prefix)
    try:
        if isinstance(transport, SupportsLeaseRenewal):  # a transport of others may have no leases
            transport.release([PROBE])
    except PublishFailed as exc:
        logger.warning(
            "cannot reach %s (%s): tasks run, and their events are kept until it can be reached."
            " JOBCAST_URL, or jobcast_url in the Celery configuration, sets the address",
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
