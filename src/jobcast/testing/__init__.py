"""Contract tests for transports. Every transport should pass them. Needs ``jobcast[testing]``.

>>> # test_my_transport.py
>>> from jobcast.testing import TransportContract
>>>
>>> class TestMyTransport(TransportContract):
...     @pytest.fixture
...     def transport_url(self, my_server):
...         return my_server.url

A transport whose connections can break also passes :class:`InterruptionContract`. A transport with
leases also passes :class:`LeaseContract`, and one with revocations :class:`RevocationContract`.
"""

from jobcast.testing.contracts import TransportContract
from jobcast.testing.ends import (
    Ends,
    failed,
    log,
    new_job_id,
    on_both_ends,
    progress,
    queued,
    retrying,
    started,
)
from jobcast.testing.interruptions import InterruptionContract
from jobcast.testing.leases import LeaseContract
from jobcast.testing.revocations import RevocationContract

__all__ = [
    "Ends",
    "InterruptionContract",
    "LeaseContract",
    "RevocationContract",
    "TransportContract",
    "failed",
    "log",
    "new_job_id",
    "on_both_ends",
    "progress",
    "queued",
    "retrying",
    "started",
]
