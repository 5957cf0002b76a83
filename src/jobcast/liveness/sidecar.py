"""A process that renews the leases of a worker whose pool has no child processes.

In the threads, gevent, eventlet and solo pools, a task that holds the interpreter blocks the
worker's own renewals.
"""

from __future__ import annotations

import json
import logging
import os
import posix
import sys
import time
from collections.abc import Set

from jobcast.liveness import sidecar_main
from jobcast.transports.leases import Lease
from jobcast.transports.prefix import DEFAULT_PREFIX

logger = logging.getLogger(__name__)


class LeaseSidecar:
    """The worker's side of the sidecar process, which it starts with the first lease.

    It never blocks, and uses no functions that gevent or eventlet replace, because those would wait
    in their busy loop. The process ends when its pipe is closed.

    Args:
        url: the URL of the transport.
        seconds: the duration of a lease.
        prefix: the prefix of the transport.
    """

    def __init__(self, url: str, seconds: float, prefix: str = DEFAULT_PREFIX) -> None:
        self._url = url
        self._prefix = prefix
        self._seconds = seconds
        self._pipe: int | None = None
        self._pid = 0
        self._reported: Set[Lease] = frozenset()  # the leases that the process has been sent
        self._unsent = bytearray()  # bytes that did not fit into the pipe
        self._full_since: float | None = None
        self._starts = 0
        self._not_before = 0.0  # earliest time of the next start

    def update(self, leases: Set[Lease]) -> None:
        """Send the changes, so that the process renews exactly these leases."""
        if self._pipe is None and leases:
            self._pipe = self._start()
        if self._pipe is None:
            return
        if not self._send(self._pipe):
            # Leases that end before the pipe has room again need not be sent at all.
            return
        orders = [f"+{lease}\n" for lease in leases - self._reported]
        orders += [f"-{lease}\n" for lease in self._reported - leases]
        self._reported = frozenset(leases)
        self._unsent += "".join(orders).encode()
        self._send(self._pipe)

    def renewed(self, at: float) -> None:
        """Send the time at which this process has renewed all leases.

        Args:
            at: seconds of the system's monotonic clock.
        """
        if self._pipe is not None and not self._unsent:
            self._unsent += f"={at}\n".encode()
            self._send(self._pipe)

    def close(self) -> None:
        """Close the pipe, which ends the process."""
        self.detach()
        if self._pid:
            try:
                posix.waitpid(self._pid, os.WNOHANG)
            except ChildProcessError:
                logger.debug("sidecar process %d was already reaped", self._pid)

    def detach(self) -> None:
        """Detach from the process in a forked process; it belongs to the parent."""
        if self._pipe is not None:
            os.close(self._pipe)
        self._pipe = None
        self._reported = frozenset()
        self._unsent.clear()
        self._full_since = None

    def _start(self) -> int | None:
        """Start the process. Return the writing end of its pipe, or None if it did not start."""
        if time.monotonic() < self._not_before:
            return None
        self._starts += 1
        self._not_before = time.monotonic() + self._seconds * 2 ** min(self._starts, 10)
        theirs, ours = os.pipe()
        try:
            self._pid = posix.posix_spawn(
                sys.executable,
                [sys.executable, "-I", "-S", sidecar_main.__file__],
                os.environ,
                file_actions=[(os.POSIX_SPAWN_DUP2, theirs, 0)],
            )
        except OSError as exc:
            logger.warning(
                "could not start the lease sidecar (%s): jobs may be shown as stalled or lost while"
                " a task blocks this worker; retrying in %.0f s or more",
                exc, self._not_before - time.monotonic(),
            )  # fmt: skip
            os.close(ours)
            return None
        finally:
            os.close(theirs)
        os.set_blocking(ours, False)
        parameters = {
            "worker": os.getpid(), "url": self._url, "prefix": self._prefix,
            "seconds": self._seconds, "path": [*map(str, sys.path)],
        }  # fmt: skip
        self._unsent += json.dumps(parameters).encode() + b"\n"
        return ours

    def _send(self, pipe: int) -> bool:
        """Write the unsent bytes. Return whether all of them are written."""
        try:
            while self._unsent:
                del self._unsent[: posix.write(pipe, self._unsent)]
                self._full_since = None
        except BlockingIOError:
            now = time.monotonic()
            if self._full_since is None:
                self._full_since = now
            if now - self._full_since <= self._seconds:
                return False
            logger.warning(
                "the lease sidecar has not read its pipe for %.1f s; replacing it", self._seconds
            )
            self.close()
        except BrokenPipeError:
            logger.warning("the lease sidecar has ended; replacing it")
            self.close()
        else:
            return True
        return False
