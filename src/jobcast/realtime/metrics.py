"""What a Socket.IO process counts, for Prometheus.

With several processes on one port (``jobcast serve --workers``) a scrape reaches any of them, and
gets the sums of all: prometheus_client shares the values in files.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

SHARED_DIRECTORY: Final = "PROMETHEUS_MULTIPROC_DIR"  # prometheus_client's own name

CONNECTIONS: Final = Gauge(
    "jobcast_connections", "Authenticated connections.", multiprocess_mode="livesum"
)
JOBS: Final = Gauge(
    "jobcast_jobs_followed", "Jobs that somebody follows.", multiprocess_mode="livesum"
)
REFUSED: Final = Counter("jobcast_refused", "Connections and joins that were refused.", ["code"])
RECEIVED: Final = Counter("jobcast_events_received", "Events of followed jobs from the transport.")
DELIVERED: Final = Counter("jobcast_deliveries", "Events handed to connections.")
CONFLATED: Final = Counter(
    "jobcast_conflated", "Progress that a newer one replaced before a slow client read it."
)
SLOW: Final = Counter("jobcast_slow_disconnects", "Connections closed for reading too slowly.")
CUT: Final = Counter(
    "jobcast_cut_connections", "Connections cut for exceeding a limit or for not reading."
)
GAPS: Final = Counter("jobcast_gaps", "Holes in what the transport delivered, filled from history.")
LEASES: Final = Counter(
    "jobcast_leases", "Runs that were found to be stalled, revived or lost.", ["kind"]
)
CANARY_AGE: Final = Gauge(
    "jobcast_canary_age_seconds",
    "Seconds since something arrived by each way that events come; of the process that is worst.",
    multiprocess_mode="livemax",
)
RESUMED: Final = Counter("jobcast_resumed", "Joins with a cursor.", ["recovered"])


def exposition() -> bytes:
    """The metrics in Prometheus's text format."""
    if SHARED_DIRECTORY not in os.environ:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)


def forget_the_dead() -> None:
    """Leave out gauges of processes that were killed and could not take them back."""
    if SHARED_DIRECTORY not in os.environ:
        return
    folder = Path(os.environ[SHARED_DIRECTORY])
    for path in folder.glob("gauge_live*_*.db"):
        pid = int(path.stem.rpartition("_")[2])
        if not _lives(pid):
            mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
