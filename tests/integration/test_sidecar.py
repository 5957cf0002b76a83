"""The lease sidecar process with a real store."""

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

LEASE = 3600.0  # seconds; half of a lease never passes during a test


@pytest.fixture(params=[LEASE])
def sidecar(valkey: Valkey, request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[bytes]]:
    """Start a sidecar of this process. The parameter is the lease in seconds."""
    configuration = {
        "worker": os.getpid(), "url": valkey.url, "prefix": DEFAULT_PREFIX,
        "seconds": request.param, "path": sys.path,
    }  # fmt: skip
    command = [sys.executable, "-I", "-S", sidecar_main.__file__]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as sidecar:
        write_line(sidecar, json.dumps(configuration))
        yield sidecar


def write_line(sidecar: subprocess.Popen[bytes], line: str) -> None:
    assert sidecar.stdin is not None
    sidecar.stdin.write(line.encode() + b"\n")
    sidecar.stdin.flush()


def test_sidecar_renews_a_lease_that_it_reads_late(
    sidecar: subprocess.Popen[bytes], valkey: Valkey
) -> None:
    """On a loaded machine the sidecar starts slowly and reads its input late."""
    lease = str(Lease(str(uuid4()), Run(sending="s", attempt=1, delivery="000000000001")))
    write_line(sidecar, f"+{lease}\n={time.monotonic() - LEASE * 0.6}")
    with Redis.from_url(valkey.url) as redis:
        wait_for(lambda: redis.zscore(Names().running, lease) is not None, "renewed lease")
        redis.zrem(Names().running, lease)


@pytest.mark.parametrize("sidecar", [2.0], indirect=True)
def test_leases_are_renewed_repeatedly(sidecar: subprocess.Popen[bytes], valkey: Valkey) -> None:
    lease = str(Lease(str(uuid4()), Run(sending="s", attempt=1, delivery="000000000002")))
    write_line(sidecar, f"+{lease}")
    with Redis.from_url(valkey.url) as redis:
        for _ in range(2):
            wait_for(lambda: redis.zscore(Names().running, lease) is not None, "renewed lease")
            redis.zrem(Names().running, lease)


def test_transport_is_imported_before_the_first_renewal(sidecar: subprocess.Popen[bytes]) -> None:
    """On a busy machine a lease could expire during a later import."""
    process = psutil.Process(sidecar.pid)
    wait_for(
        lambda: any("msgspec" in mapped.path for mapped in process.memory_maps()),
        "imports of the transport",
    )
