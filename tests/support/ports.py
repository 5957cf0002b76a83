"""Ports for servers, of which no two processes on a machine get the same."""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from functools import cache
from pathlib import Path
from typing import Final

# Below the ephemeral ports. Otherwise an outgoing connection could occupy the port of a server that
# is down, or a client that keeps trying to reach that port could connect to itself.
PORTS: Final = range(20_000, 32_000)


def free_port() -> int:
    """Return a port that is free, and that stays reserved until this process ends.

    A server binds its port seconds after its test chose it, and servers that set ``SO_REUSEADDR``
    can bind one port until the first of them listens. So the choice alone has to be exclusive.
    """
    while True:
        port = random.choice(PORTS)
        if _reserve(port) and _is_free(port):
            return port


def is_open(port: int) -> bool:
    """Return whether a process of this machine accepts connections to a port."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2):
            return True
    except OSError:
        return False


def _reserve(port: int) -> bool:
    """Lock the port's byte of a file that all test processes share."""
    if port in _reserved():
        return False  # a process does not conflict with its own locks
    try:
        fcntl.lockf(_lock_file(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except BlockingIOError:
        return False
    _reserved().add(port)
    return True


def _is_free(port: int) -> bool:
    with socket.socket() as listener:
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


@cache
def _reserved() -> set[int]:
    return set()


@cache
def _lock_file() -> int:
    path = Path(tempfile.gettempdir()) / f"jobcast-test-ports-{os.getuid()}.lock"
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
