"""The release of leases of runs whose ending Redis has refused."""

from __future__ import annotations

import pytest

from jobcast.errors import PublishFailed
from jobcast.transports import Run
from jobcast.transports.base import Retention
from jobcast.transports.leases import Lease
from jobcast.transports.redis.publisher import RedisPublisher
from tests.support import free_port


def lease_of(job_id: str) -> Lease:
    return Lease(job_id, Run(sending="s", attempt=1, delivery="0" * 12))


def test_lease_without_an_ending_stays_after_a_failed_release() -> None:
    """It has to expire, so that the monitor ends the job."""
    url = f"redis://127.0.0.1:{free_port()}/0"
    publisher = RedisPublisher(url, retention=Retention(feed_size=0))
    publisher._without_ending.append(lease_of("refused"))
    with pytest.raises(PublishFailed):
        publisher.release([lease_of("refused"), lease_of("ended")])
    assert lease_of("refused") in publisher._without_ending
    publisher.close()
