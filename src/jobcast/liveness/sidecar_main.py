"""Renew a worker's leases while its interpreter is too busy to do so itself.

The script runs isolated and without site packages. It imports the transport from the worker's
``sys.path``, and does so at its start: later the machine may be too busy to import it before a
lease expires.

The first line of its input is a JSON object with the arguments of :func:`keep`. Each further line
adds a lease (``+``), removes a lease (``-``), or has the time of the worker's last renewal (``=``).
That time is one of the system's monotonic clock, so that it is correct even if it is read late. The
input ends with the worker, whatever the cause.
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

SILENCE: Final = 1 / 2  # fraction of a lease's duration; a healthy worker renews more often
RENEWALS: Final = 3  # renewals per lease duration
RETRY_DELAY: Final = 1.0  # seconds after a failed renewal
READ_SIZE: Final = 65536  # bytes
# A terminal sends some of these to all of its processes. Only the worker reacts to them.
IGNORED_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP)

Renew = Callable[[Iterable[str], float], bool]


class Orders:
    """The state that the worker has sent: its leases, and the time of its last renewal."""

    def __init__(self) -> None:
        self.leases: set[str] = set()
        self.renewed_at = time.monotonic()
        self._rest = b""

    def take(self, data: bytes) -> None:
        """Apply received bytes, which may end in the middle of a line."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            value = line[1:].decode()
            match line[:1]:
                case b"+":
                    self.leases.add(value)
                case b"-":
                    self.leases.discard(value)
                case _:
                    self.renewed_at = float(value)


def open_renewal(url: str, prefix: str, path: Sequence[str]) -> Renew:
    """Open the transport. Return a function that renews leases, and returns whether it could.

    Args:
        url: the URL of the transport.
        prefix: the prefix of the transport.
        path: the worker's ``sys.path``.
    """
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
            # The worker logs that the transport cannot be reached.
            return False
        return True

    return renew


def keep(worker: int, url: str, prefix: str, seconds: float, path: Sequence[str]) -> None:
    """Renew the leases of a worker whenever it does not, for as long as it lives.

    Args:
        worker: the process id of the worker.
        url: the URL of the transport.
        prefix: the prefix of the transport.
        seconds: the duration of a lease.
        path: the worker's ``sys.path``.
    """
    orders = Orders()
    renew = open_renewal(url, prefix, path)
    due = orders.renewed_at + seconds * SILENCE
    # Checks the parent, because a process forked by the worker may inherit the other end of the
    # pipe and outlive the worker.
    while os.getppid() == worker:
        timeout = max(0.0, due - time.monotonic()) if orders.leases else None
        if select.select([0], [], [], timeout)[0]:
            data = os.read(0, READ_SIZE)
            if not data:
                break
            orders.take(data)
            due = orders.renewed_at + seconds * SILENCE
        elif os.getppid() == worker:
            renewed = renew(orders.leases, seconds)
            due = time.monotonic() + (seconds / RENEWALS if renewed else RETRY_DELAY)


def first_line() -> bytes:
    """Read only the first line of the input. Exit if the input ends before its line break."""
    line = b""
    while not line.endswith(b"\n"):
        character = os.read(0, 1)
        if not character:
            sys.exit()
        line += character
    return line


if __name__ == "__main__":
    for number in IGNORED_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    keep(**json.loads(first_line()))
