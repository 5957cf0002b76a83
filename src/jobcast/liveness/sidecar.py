"""The process that keeps the jobs of a worker alive whose pool has no processes of its own.

With threads, greenlets or none of them everything in the worker waits while one of its tasks holds
the interpreter: nobody in it can say that its jobs are alive.
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
    """Tells such a process what runs, and starts it when there is something to tell.

    It waits for nothing, and uses nothing that gevent or eventlet replace: those would have it wait
    in the loop that is busy. The process ends by itself when the pipe to it is closed.

    Args:
        url: the transport's.
        seconds: how long a lease lasts.
        prefix: the transport's.
    """

    def __init__(self, url: str, seconds: float, prefix: str = DEFAULT_PREFIX) -> None:
        self._url = url
        self._prefix = prefix
        self._seconds = seconds
        self._pipe: int | None = None
        self._pid = 0
        self._told: Set[Lease] = frozenset()
        self._unsent = bytearray()  # what the pipe had no room for
        self._full_since: float | None = None
        self._starts = 0
        self._not_before = 0.0  # another one is not started

    def update(self, leases: Set[Lease]) -> None:
        """Say that these leases are to be kept, and no others."""
        if self._pipe is None and leases:
            self._pipe = self._start()
        if self._pipe is None:
            return
        if not self._send(self._pipe):
            # What is over by the time that there is room need not be said at all.
            return
        orders = [f"+{lease}\n" for lease in leases - self._told]
        orders += [f"-{lease}\n" for lease in self._told - leases]
        self._told = frozenset(leases)
        self._unsent += "".join(orders).encode()
        self._send(self._pipe)

    def renewed(self, at: float) -> None:
        """Say when this process has renewed them all, by the system's monotonic clock."""
        if self._pipe is not None and not self._unsent:
            self._unsent += f"={at}\n".encode()
            self._send(self._pipe)

    def close(self) -> None:
        """End it."""
        self.leave()
        if self._pid:
            try:
                posix.waitpid(self._pid, os.WNOHANG)
            except ChildProcessError:
                logger.debug("somebody else has waited for process %d", self._pid)

    def leave(self) -> None:
        """Leave it to the parent, in a process that was forked."""
        if self._pipe is not None:
            os.close(self._pipe)
        self._pipe = None
        self._told = frozenset()
        self._unsent.clear()
        self._full_since = None

    def _start(self) -> int | None:
        """Start the process. Returns this end of the pipe to it, if there is one."""
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
            logger.warning("a job that keeps this worker busy may be taken for lost: %s", exc)
            os.close(ours)
            return None
        finally:
            os.close(theirs)
        os.set_blocking(ours, False)
        how = {
            "worker": os.getpid(), "url": self._url, "prefix": self._prefix,
            "seconds": self._seconds, "path": [*map(str, sys.path)],
        }  # fmt: skip
        self._unsent += json.dumps(how).encode() + b"\n"
        return ours

    def _send(self, pipe: int) -> bool:
        """Write what is to be said. Returns whether all of it is."""
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
            logger.warning("the process that keeps jobs alive does not listen; it is replaced")
            self.close()
        except BrokenPipeError:
            logger.warning("the process that keeps jobs alive has ended; it is replaced")
            self.close()
        else:
            return True
        return False
