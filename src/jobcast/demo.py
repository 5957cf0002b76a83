"""Everything on one machine: ``jobcast demo``.

An embedded Valkey, a worker, a Socket.IO process, and five jobs that are shown while they run.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shlex
import signal
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final
from urllib.request import urlopen

import redis
from celery import Celery

from jobcast.children import Child, Children, until
from jobcast.errors import JobcastError
from jobcast.reference import reference_directory
from jobcast.settings import PREFIX, Settings
from jobcast.worker.sending import OWNER_HEADER

OWNER: Final = "demo"
SCALE: Final = 6  # of the sample input: jobs last a few seconds each
FAILING: Final = frozenset({"audit_ledger"})  # its input has an error
HOST: Final = "127.0.0.1"
PACKAGES: Final = ("aiohttp", "jwt", "PIL", "rich", "starlette", "uvicorn")
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run(*, port: int = 8000, once: bool | None = None, scale: int = SCALE) -> int:
    """Run the demo.

    Args:
        port: where the Socket.IO process listens; if it is taken, another one is.
        once: end when the jobs have ended; otherwise the processes stay until a signal comes. By
            default it is so unless the output is a terminal.
        scale: of the sample input, 1 to 100.

    Returns:
        0 if each job ended as it should, 1 if not, or if something did not start, and 128 and
        the signal's number if one came before the end.
    """
