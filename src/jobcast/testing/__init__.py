"""Help for tests: a recorder of jobs for projects, and contracts for transports.

Needs ``jobcast[testing]``. The pytest plugin gives tests the fixture ``job_recorder``, a
:class:`JobRecorder`:

>>> def test_convert_reports_each_page(job_recorder):
...     convert.apply(args=[3])
...     assert job_recorder.result == {"pages": 3}

Every transport should pass the contract tests:

>>> # test_my_transport.py
>>> from jobcast.testing import TransportContract
>>>
>>> class TestMyTransport(TransportContract):
...     @pytest.fixture
...     def transport_url(self, my_server):
...         return my_server.url

A transport whose connections can break also passes :class:`InterruptionContract`. A transport with
leases also passes :class:`LeaseContract`, one with revocations :class:`RevocationContract`, and one
that cancels jobs :class:`AnsweredCancellationContract` or :class:`RepeatedCancellationContract`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jobcast.testing.cancellation import (
        AnsweredCancellationContract,
        RepeatedCancellationContract,
    )
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
    from jobcast.testing.feeds import FeedContract, InterruptedFeedContract
    from jobcast.testing.interruptions import InterruptionContract
    from jobcast.testing.leases import LeaseContract
    from jobcast.testing.recorder import JobRecorder
    from jobcast.testing.revocations import RevocationContract

__all__ = [
    "AnsweredCancellationContract",
    "Ends",
    "FeedContract",
    "InterruptedFeedContract",
    "InterruptionContract",
    "JobRecorder",
    "LeaseContract",
    "RepeatedCancellationContract",
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

_HOMES = {
    "AnsweredCancellationContract": "jobcast.testing.cancellation",
    "FeedContract": "jobcast.testing.feeds",
    "InterruptedFeedContract": "jobcast.testing.feeds",
    "InterruptionContract": "jobcast.testing.interruptions",
    "JobRecorder": "jobcast.testing.recorder",
    "LeaseContract": "jobcast.testing.leases",
    "RepeatedCancellationContract": "jobcast.testing.cancellation",
    "RevocationContract": "jobcast.testing.revocations",
    "TransportContract": "jobcast.testing.contracts",
}


def __getattr__(name: str) -> Any:
    # Imported on first access: every run of pytest imports this package for its plugin.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES.get(name, "jobcast.testing.ends")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
