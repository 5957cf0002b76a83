"""The process that keeps a worker's jobs alive, with a store to do it in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import IO
from uuid import uuid4

import pytest
from redis import Redis

from jobcast.transports import Run
from jobcast.transports.leases import Lease
from jobcast.transports.redis import RUNNING
from jobcast.worker import keeper_process
from tests.conftest import Valkey
from tests.support import wait_for

LEASE = 3600.0  # seconds: half of it cannot pass in a test


@pytest.fixture(params=[LEASE])
def told(valkey: Valkey, request: pytest.FixtureRequest) -> Iterator[IO[bytes]]:
    """What such a process of this one reads. Its parameter is the seconds of a lease."""
    how = {"worker": os.getpid(), "url": valkey.url, "seconds": request.param, "path": sys.path}
    command = [sys.executable, "-I", "-S", keeper_process.__file__]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as keeper:
        assert keeper.stdin is not None
        keeper.stdin.write(json.dumps(how).encode() + b"\n")
        yield keeper.stdin


def test_what_is_read_late_was_not_said_late(told: IO[bytes], valkey: Valkey) -> None:
    """As on a loaded machine, where it takes its time to start."""
    lease = str(Lease(str(uuid4()), Run(sending="s", attempt=1, delivery="000000000001")))
    told.write(f"+{lease}\n={time.monotonic() - LEASE * 0.6}\n".encode())
    told.flush()
    with Redis.from_url(valkey.url) as redis:
        wait_for(lambda: redis.zscore(RUNNING, lease) is not None, "renewed lease")
        redis.zrem(RUNNING, lease)


@pytest.mark.parametrize("told", [9.0], indirect=True)
def test_a_lease_that_leaves_no_time_for_it_is_renewed_too(told: IO[bytes], valkey: Valkey) -> None:
    """What that takes was imported before."""
    lease = str(Lease(str(uuid4()), Run(sending="s", attempt=1, delivery="000000000002")))
    told.write(f"+{lease}\n".encode())
    told.flush()
    with Redis.from_url(valkey.url) as redis:
        for _ in range(2):
            wait_for(lambda: redis.zscore(RUNNING, lease) is not None, "renewed lease")
            redis.zrem(RUNNING, lease)
