"""The servers under test, each with a publisher, clients and a Redis server."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final

import redis

from bench.fanout.variants import VARIANTS
from jobcast.tokens import mint
from tests.support import Process, free_port, running, wait_for
from tests.support.node import node_command
from tests.support.redis_family import RedisProcess

PING_TIMEOUT: Final = 60.0  # seconds until each client has received a ping
SECRET: Final = "a secret of the benchmark, which has more than 32 bytes"
NODE: Final = Path(__file__).with_name("node")
USERS: Final = 100  # clients with the same subject, whose limits allow for no more requests
TIMEOUT: Final = 300.0  # seconds for all events of a run


class JsonProcess:
    """A process that reads commands as lines of JSON, and answers with lines."""

    def __init__(self, argv: Sequence[str], env: dict[str, str]) -> None:
        self.popen = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, **env},
        )  # fmt: skip

    def send(self, command: object) -> None:
        assert self.popen.stdin is not None
        self.popen.stdin.write(json.dumps(command) + "\n")
        self.popen.stdin.flush()

    def receive(self) -> str:
        assert self.popen.stdout is not None
        line = self.popen.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.popen.args!r} ended without an answer")
        return line.strip()

    def close(self) -> None:
        self.popen.kill()
        self.popen.wait()
        for pipe in (self.popen.stdin, self.popen.stdout):
            if pipe is not None:
                pipe.close()


class Peer:
    """A running server with its publisher and its clients.

    Args:
        name: jobcast, stock, node, floor, or one of ``VARIANTS`` of jobcast. The clients of ``sse``
            read jobcast's event streams, those of ``starlette`` the streams of a bare
            StreamingResponse; the other clients speak Socket.IO.
        folder: the folder for logs.
    """

    def __init__(self, name: str, folder: Path, stack: ExitStack) -> None:
        self.name = name
        self.port = free_port()
        self.redis_url = stack.enter_context(redis_server())
        env = {"SECRET": SECRET, "REDIS_URL": self.redis_url, "JOBCAST_URL": self.redis_url}
        if name == "floor":
            floor = JsonProcess([sys.executable, "-m", "bench.fanout.floor", str(self.port)], env)
            stack.callback(floor.close)
            self._publisher, self.pid = floor, floor.popen.pid
        else:
            env |= {"JOBCAST_JWT_SECRET": SECRET, "JOBCAST_JWT_AUDIENCE": "jobcast"}
            server = Process(self._command(), folder / f"{name}.log", env)
            self.pid = stack.enter_context(running(server)).popen.pid
            self._publisher = JsonProcess(self._publish_command(), env)
            stack.callback(self._publisher.close)
        self._load = JsonProcess([sys.executable, "-m", "bench.fanout.load"], {})
        stack.callback(self._load.close)
        wait_for(self._listens, f"{name} listening")

    def _command(self) -> list[str]:
        port = str(self.port)
        match self.name:
            case "jobcast" | "sse":
                return [sys.executable, "-m", "jobcast.cli", "serve", "--port", port]
            case variant if variant in VARIANTS:
                return [sys.executable, "-m", "bench.fanout.variants", variant, "--port", port]
            case "stock":
                return [
                    sys.executable, "-m", "uvicorn", "bench.fanout.stock:app", "--port", port,
                    "--ws-per-message-deflate", "false",
                ]  # fmt: skip
            case "starlette":
                app = "bench.fanout.starlette_streams:app"
                return [sys.executable, "-m", "uvicorn", app, "--port", port]
            case _:
                return [node_binary(), str(NODE / "server.mjs"), self.redis_url, port]

    def _publish_command(self) -> list[str]:
        if self.name == "node":
            return [node_binary(), str(NODE / "publish.mjs"), self.redis_url]
        library = "jobcast" if self.name in ("sse", *VARIANTS) else self.name
        return [sys.executable, "-m", "bench.fanout.publish", library, self.redis_url]

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def cpu(self) -> float:
        """Return the CPU time of the server, user and system, in seconds."""
        return time.clock_gettime((~self.pid << 3) | 2)  # the clock id of clock_getcpuclockid

    def resident(self) -> int:
        """Return the proportional memory (PSS) of the server, in bytes."""
        rollup = Path(f"/proc/{self.pid}/smaps_rollup").read_text()
        fields = dict(line.split(":") for line in rollup.splitlines()[1:])
        return (int(fields["Pss"].split()[0])) * 1024

    def reset_peak(self) -> int:
        """Reset the peak to the present memory, and return it, in bytes."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")
        return self.peak()

    def peak(self) -> int:
        """Return the peak memory of the server, in bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        fields = dict(line.split(":", 1) for line in status.splitlines())
        return int(fields["VmHWM"].split()[0]) * 1024

    def subscribed_bytes(self) -> int:
        """Return the bytes that Redis has sent to subscribed connections."""
        with redis.Redis.from_url(self.redis_url) as client:
            return sum(int(info["tot-net-out"]) for info in client.client_list(_type="pubsub"))

    def connect(self, jobs: Sequence[str | None], at_once: int = 50) -> dict[str, Any]:
        """Connect one client per job; a client for ``None`` joins no job."""
        options = {"kind": self._kind, "port": self.port, "at_once": at_once}
        return self._request({"connect": {"clients": self._clients(jobs), **options}})

    def poll(self, jobs: Sequence[str], requests: int) -> dict[str, Any]:
        """Request the state of each job a number of times, each job on a connection of its own."""
        options = {"port": self.port, "requests": requests}
        return self._request({"poll": {"clients": self._clients(jobs, users=1), **options}})

    @property
    def _kind(self) -> str:
        return "sse" if self.name in ("sse", "starlette") else "socketio"

    @staticmethod
    def _clients(jobs: Sequence[str | None], users: int = USERS) -> list[dict[str, str | None]]:
        """Return clients with a token for each job, ``users`` of them with the same subject."""
        keys = [(job, number // users) for number, job in enumerate(jobs)]
        tokens = {
            key: mint(
                SECRET, f"bench-{key[1]}", jobs=[key[0]] if key[0] else [], audience="jobcast"
            )
            for key in set(keys)
        }
        return [{"token": tokens[key], "job": key[0]} for key in keys]

    def reconnect(self) -> dict[str, Any]:
        return self._request({"reconnect": True})

    def publish(self, jobs: Sequence[str], events: int, rate: float = 0) -> None:
        """Start to publish events of each job, ``rate`` per second and job or without pauses."""
        self._publisher.send({"jobs": list(jobs), "events": events, "rate": rate})

    def wait_published(self) -> None:
        if (answer := self._publisher.receive()) != "done":
            raise RuntimeError(answer)

    def expect(self, events: int, timeout: float = TIMEOUT) -> dict[str, Any]:
        """Wait until every client has received a number of events.

        Raises:
            RuntimeError: a client missed events within ``timeout`` seconds or got them misordered.
        """
        return self._request({"expect": {"events": events, "timeout": timeout}})

    def expect_pings(self, count: int) -> None:
        """Wait until the clients have answered a number of pings in total.

        Raises:
            RuntimeError: pings were missing.
        """
        self._request({"pings": {"count": count, "timeout": PING_TIMEOUT}})

    def _request(self, command: object) -> dict[str, Any]:
        self._load.send(command)
        answer: dict[str, Any] = json.loads(self._load.receive())
        if answer.get("failed") or answer.get("missing") or answer.get("disorder"):
            raise RuntimeError(f"{self.name}: { ({**answer, 'latencies': ''}) }")
        return answer


@cache
def node_binary() -> str:
    """Return the path of Node's binary.

    The command may be a wrapper script, whose process has a different CPU clock and exit.
    """
    argv = [node_command("node"), "-p", "process.execPath"]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


@contextmanager
def redis_server() -> Iterator[str]:
    """Start a Redis server, and yield its URL."""
    with tempfile.TemporaryDirectory() as folder, running(RedisProcess(Path(folder))) as server:
        yield server.ready().url


@contextmanager
def peer(name: str) -> Iterator[Peer]:
    """Start a peer with everything that it needs."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        yield Peer(name, Path(folder), stack)
