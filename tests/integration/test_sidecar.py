"""The process that keeps a worker's jobs alive, with a store to do it in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from uuid import uuid4

import psutil
import pytest
from redis import Redis

from jobcast.liveness import sidecar_main
from jobcast.transports import Run
from jobcast.transports.leases import Lease
from jobcast.transports.prefix import DEFAULT_PREFIX
from jobcast.transports.redis.names import Names
from tests.conftest import Valkey
from tests.support import wait_for

LEASE = 3600.0  # seconds: half of it cannot pass in a test


@pytest.fixture(params=[LEASE])
def sidecar(valkey: Valkey, request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[bytes]]:
    """Such a process of this one. Its parameter is the seconds of a lease."""
    how = {
        "worker": os.getpid(), "url": valkey.url, "prefix": DEFAULT_PREFIX,
        "seconds": request.param, "path": sys.path,
    }  # fmt: skip
    command = [sys.executable, "-I", "-S", sidecar_main.__file__]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as sidecar:
        tell(sidecar, json.dumps(how))
        yield sidecar


def tell(sidecar: subprocess.Popen[bytes], line: str) -> None:
    assert sidecar.stdin is not None
    sidecar.stdin.write(line.encode() + b"\n")
    sidecar.stdin.flush()


def test_what_is_read_late_was_not_said_late(
    sidecar: subprocess.Popen[bytes], valkey: Valkey
) -> None:
    """As on a loaded machine, where it takes its time to start."""
    lease = str(Lease(str(uuid4()), Run(sending="s", attempt=1, delivery="000000000001")))
    tell(sidecar, f"+{lease}\n={time.monotonic() - LEASE * 0.6}")
    with Redis.from_url(valkey.url) as redis:
        wait_for(lambda: redis.zscore(Names().running, lease) is not None, "renewed lease")
        redis.zrem(Names().running, lease)


@pytest.mark.parametrize("sidecar", [2.0], indirect=True)
def test_leases_are_renewed_again_and_again(
    sidecar: subprocess.Popen[bytes], valkey: Valkey
) -> None:
    lease = str(Lease(str(uuid4()), Run(sending="s", attempt=1, delivery="000000000002")))
    tell(sidecar, f"+{lease}")
    with Redis.from_url(valkey.url) as redis:
        for _ in range(2):
            wait_for(lambda: redis.zscore(Names().running, lease) is not None, "renewed lease")
            redis.zrem(Names().running, lease)


def test_what_that_takes_is_there_before_it_is_needed(sidecar: subprocess.Popen[bytes]) -> None:
    """On a machine that is busy by then a lease may be over before all of it is imported."""
    process = psutil.Process(sidecar.pid)
    wait_for(
        lambda: any("msgspec" in mapped.path for mapped in process.memory_maps()),
        "what the transport needs",
    )
