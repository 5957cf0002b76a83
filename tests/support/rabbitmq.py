"""RabbitMQ as a child process of the tests."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import amqp
from kombu.connection import Connection

from tests.support import Process, free_port, new_id
from tests.support.ports import is_open

DEBIAN_BINARY = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")  # the one on PATH changes the user
START_TIMEOUT = 120.0  # seconds


def rabbitmq_server() -> str:
    found = str(DEBIAN_BINARY) if DEBIAN_BINARY.exists() else shutil.which("rabbitmq-server")
    if found is None or shutil.which("epmd") is None:
        raise AssertionError("the tests need RabbitMQ: apt-get install rabbitmq-server")
    return found


class RabbitMQ:
    """A node with its own data directory and its own epmd, the port mapper of Erlang."""

    def __init__(self, folder: Path, port: int | None = None) -> None:
        server = rabbitmq_server()
        self.port = port or free_port()
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}//"
        self._folder = folder
        epmd_port = free_port()
        (folder / "plugins").write_text("[].\n")
        (folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.local = 127.0.0.1:{self.port}\nloopback_users = none\n"
            "vm_memory_high_watermark.absolute = 1GB\ndisk_free_limit.absolute = 1MB\n"
        )
        self._env = {
            "HOME": str(folder),
            "ERL_EPMD_PORT": str(epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"{new_id('rabbit')}@localhost",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder / "logs"),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 +sbwt none",
        }
        # Without a running epmd, the node would start one that outlives it.
        self._epmd = Process(["epmd", "-port", str(epmd_port)], folder / "epmd.log", self._env)
        self._epmd.expect(lambda: is_open(epmd_port), "epmd to accept connections")
        self.node = Process([server], folder / "rabbitmq.log", self._env)

    def ready(self) -> RabbitMQ:
        self.node.expect(self._accepts_connections, "RabbitMQ to accept connections", START_TIMEOUT)
        return self

    @contextmanager
    def alarm(self) -> Iterator[None]:
        """Make the broker block publishers, as a memory alarm does."""
        self.control("set_vm_memory_high_watermark", "0.0000001")
        try:
            yield
        finally:
            self.control("set_vm_memory_high_watermark", "absolute", "1GB")

    def crash(self) -> None:
        """Kill the node, as a power cut does; its data remains."""
        self.node.kill()

    def start(self) -> None:
        self.node.start()

    def kill(self) -> None:
        self.node.kill()
        self._epmd.kill()

    def control(self, *arguments: str) -> list[str]:
        """Run ``rabbitmqctl``. Return the lines that it prints."""
        command = [str(Path(rabbitmq_server()).with_name("rabbitmqctl")), "--quiet", *arguments]
        ran = subprocess.run(
            command, env={**os.environ, **self._env}, capture_output=True, text=True, check=False
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout.splitlines()

    def _accepts_connections(self) -> bool:
        try:
            with Connection(self.url, connect_timeout=2) as connection:
                connection.connect()
                return True
        except (OSError, amqp.exceptions.AMQPError):
            return False
