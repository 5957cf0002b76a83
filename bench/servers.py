"""Servers that a run kills and starts again."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.support import Process, free_port
from tests.support.ports import is_open
from tests.support.redis_family import RedisProcess

DURABLE: Final = ("--appendonly", "yes", "--appendfsync", "always")


class RestartableValkey(RedisProcess):
    """A Valkey server whose port stays free while the server is down.

    Args:
        folder: the folder for its data and its log.
        options: command-line options, such as ``DURABLE``: keep confirmed writes across a kill.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        super().__init__(folder, *options, port=free_port())


class RestartableServer(Process):
    """``jobcast serve``, on another port after each restart."""

    def __init__(self, log_path: Path, env: Mapping[str, str]) -> None:
        self.repair_lock = asyncio.Lock()
        super().__init__([], log_path, env)

    def start(self) -> None:
        self.port = free_port()
        self.argv = [sys.executable, "-m", "jobcast.cli", "serve", "--port", str(self.port)]
        super().start()

    def ready(self) -> None:
        self.expect(lambda: is_open(self.port), "listening server")
