"""Prometheus metrics of a Socket.IO process.

With several processes on one port (``jobcast serve --workers``), a scrape reaches any one of them
and returns the sums of all: prometheus_client shares the values in files.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

SHARED_DIRECTORY: Final = "PROMETHEUS_MULTIPROC_DIR"  # defined by prometheus_client

CONNECTIONS: Final = Gauge(
    "jobcast_connections", "Authenticated connections.", multiprocess_mode="livesum"
)
JOBS: Final = Gauge(
    "jobcast_jobs_followed", "Jobs with at least one follower.", multiprocess_mode="livesum"
)
FEEDS: Final = Gauge(
    "jobcast_feeds",
    "Feeds that a process has in memory, with the latest unused ones.",
    multiprocess_mode="livesum",
)
FEED_FOLLOWERS: Final = Gauge(
    "jobcast_feed_followers", "Feeds followed by connections.", multiprocess_mode="livesum"
)
FEED_RECEIVED: Final = Counter(
    "jobcast_feed_changes_received", "Changes of feeds from the transport."
)
FEED_DELIVERED: Final = Counter(
    "jobcast_feed_deliveries", "Summaries of jobs, and removals, handed to connections."
)
REFUSED: Final = Counter("jobcast_refused", "Connections and joins that were refused.", ["code"])
CANCELLATIONS: Final = Counter(
    "jobcast_cancellations", "Accepted requests to cancel jobs.", ["outcome"]
)
RECEIVED: Final = Counter("jobcast_events_received", "Events of followed jobs from the transport.")
DELIVERED: Final = Counter("jobcast_deliveries", "Events handed to connections.")
CONFLATED: Final = Counter(
    "jobcast_conflated", "Progress events replaced by newer ones before a slow client read them."
)
SLOW: Final = Counter("jobcast_slow_disconnects", "Connections closed for slow reading.")
CUT: Final = Counter(
    "jobcast_cut_connections", "Connections cut for exceeding a limit or for not reading."
)
GAPS: Final = Counter("jobcast_gaps", "Gaps in the transport's events, filled from the history.")
LEASES: Final = Counter("jobcast_leases", "Runs found stalled, revived or lost.", ["kind"])
CANARY_AGE: Final = Gauge(
    "jobcast_canary_age_seconds",
    "Seconds since the last arrival on the quietest incoming channel; maximum of all processes.",
    multiprocess_mode="livemax",
)
RESUMED: Final = Counter("jobcast_resumed", "Joins with a cursor.", ["recovered"])


def exposition() -> bytes:
    """Return the metrics in Prometheus's text format."""
    if SHARED_DIRECTORY not in os.environ:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)


def forget_dead_processes() -> None:
    """Remove the gauges of killed processes, which could not reset them."""
    if SHARED_DIRECTORY not in os.environ:
        return
    folder = Path(os.environ[SHARED_DIRECTORY])
    for path in folder.glob("gauge_live*_*.db"):
        pid = int(path.stem.rpartition("_")[2])
        if not _is_alive(pid):
            mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
