"""Tests that every transport passes. Needs ``jobcast[testing]``."""

from jobcast.testing.contracts import (
    Ends,
    InterruptionContract,
    LeaseContract,
    RevocationContract,
    TransportContract,
    failed,
    log,
    new_job_id,
    on_both_ends,
    progress,
    queued,
    retrying,
    started,
)

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
