"""A job with a long history, for attacks that request it."""

from __future__ import annotations

from typing import Final

from jobcast.testing import log, started
from jobcast.transports import Outgoing, Retention, open_publisher
from tests.support import new_id

LINE: Final = "x" * 8000
LINES: Final = 1050  # of 8 kB each: 8 MiB
BATCH: Final = 50  # lines


def publish_long_history(transport: str) -> str:
    """Publish a job with 8 MiB of history, and return its id."""
    job_id = new_id("long")
    publisher = open_publisher(transport, Retention(ttl=24 * 3600, size=2 * LINES))
    publisher.publish([Outgoing.of(started(job_id))])
    for begin in range(0, LINES, BATCH):
        publisher.publish(
            [Outgoing.of(log(job_id, f"{LINE}{n}")) for n in range(begin, begin + BATCH)]
        )
    publisher.close()
    return job_id
