"""Keeps a worker's jobs alive while its interpreter is too busy to do so itself.

Run as a script, isolated and without site packages: what it takes to renew leases is imported from
where the worker has it, and at once. By the time that it is needed the machine is busy, and a lease
may be over before it is there. The first line of its input says how; each further one that a lease
is to be kept (``+``), is so no more (``-``), or when the worker has renewed them all (``=``, by the
system's monotonic clock: what is read late was not said late). Its input ends when the worker does,
whatever ended it.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

SILENCE: Final = 1 / 2  # of a lease: a worker that is well renews it more often
RENEWALS: Final = 3  # a lease
RETRY_DELAY: Final = 1.0  # seconds after a renewal that failed
AT_ONCE: Final = 65536  # bytes that are read
# A terminal sends some to all that runs in it, and the worker decides what they mean.
NOT_ITS_OWN: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP)

Renew = Callable[[Iterable[str], float], bool]


class Orders:
    """What the worker has said so far."""

    def __init__(self) -> None:
        self.leases: set[str] = set()
        self.renewed_at = time.monotonic()
        self._rest = b""

    def take(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            what = line[1:].decode()
            match line[:1]:
                case b"+":
                    self.leases.add(what)
                case b"-":
                    self.leases.discard(what)
                case _:
                    self.renewed_at = float(what)


def renewing(url: str, prefix: str, path: Sequence[str]) -> Renew:
    """How leases are renewed; it returns whether they could be."""
    sys.path[:] = path
    from jobcast.errors import PublishFailed
    from jobcast.transports import open_publisher
    from jobcast.transports.leases import Lease, SupportsLeaseRenewal

    transport = open_publisher(url, prefix=prefix)

    def renew(leases: Iterable[str], seconds: float) -> bool:
        if not isinstance(transport, SupportsLeaseRenewal):
            return True
        try:
            transport.renew([Lease.parse(lease) for lease in sorted(leases)], seconds)
        except PublishFailed:
            # It is the worker that says when the transport cannot be reached.
            return False
        return True

    return renew


def keep(worker: int, url: str, prefix: str, seconds: float, path: Sequence[str]) -> None:
    """Renew the leases of a worker while it does not, for as long as it is there."""
    orders = Orders()
    renew = renewing(url, prefix, path)
    due = orders.renewed_at + seconds * SILENCE
    # What a worker forks may inherit the other end of the pipe, and outlive it.
    while os.getppid() == worker:
        patience = max(0.0, due - time.monotonic()) if orders.leases else None
        if select.select([0], [], [], patience)[0]:
            data = os.read(0, AT_ONCE)
            if not data:
                break
            orders.take(data)
            due = orders.renewed_at + seconds * SILENCE
        elif os.getppid() == worker:
            renewed = renew(orders.leases, seconds)
            due = time.monotonic() + (seconds / RENEWALS if renewed else RETRY_DELAY)


def first_line() -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        character = os.read(0, 1)
        if not character:
            sys.exit()
        line += character
    return line


if __name__ == "__main__":
    for number in NOT_ITS_OWN:
        signal.signal(number, signal.SIG_IGN)
    keep(**json.loads(first_line()))
