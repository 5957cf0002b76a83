"""Tests that every transport passes: jobcast's own, and yours. Needs ``jobcast[testing]``.

>>> # test_my_transport.py
>>> from jobcast.testing import TransportContract
>>>
>>> class TestMyTransport(TransportContract):
...     @pytest.fixture
...     def transport_url(self, my_server):
...         return my_server.url

A transport whose connections can break passes :class:`InterruptionContract` too, one that keeps
leases :class:`LeaseContract`, and one that keeps revoked tokens :class:`RevocationContract`.
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
