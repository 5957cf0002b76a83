"""What tests of several tiers share: servers as real processes, and waiting for conditions."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import copy_context
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.error import URLError

import socketio
from kombu.connection import Connection

from jobcast.publishing.publisher import Publisher

ROOT = Path(__file__).resolve().parents[2]
LOG_CONFIG = str(ROOT / "tests" / "logging.json")
SECRET = "a secret for tests that is long enough"
TIMEOUT = 90.0  # seconds that a condition may take on a loaded machine
GRACE = 15.0  # seconds that a process of the session may take to end by itself
AHEAD = 5.0  # seconds that a job is sent ahead, so that a busy worker can be told before it starts
# Engine.IO has pings of its own. Those of uvicorn close who reads slowly after 40 s.
NO_OTHER_PINGS = ("--ws-ping-interval", "0")

T = TypeVar("T")


class Serving(NamedTuple):
    """What a job publishes through where there is no runtime."""

    publisher: Publisher


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def new_id(stem: str = "job") -> str:
    """A job id that no other test uses."""
    return f"{stem}-{uuid.uuid4().hex[:12]}"


def outside_of_the_loop(function: Callable[..., T], *args: Any, **options: Any) -> T:
    """Call a function in a thread: there a sender waits until ``queued`` is stored."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(copy_context().run, function, *args, **options).result()


def wait_for(condition: Callable[[], Any], what: str, timeout: float = TIMEOUT) -> Any:
    """Wait until ``condition()`` is true, and return what it gave."""
    deadline = time.monotonic() + timeout
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"in {timeout:.0f} s there was no: {what}")
        time.sleep(0.02)
    return answer


async def eventually(condition: Callable[[], Any], what: str, timeout: float = TIMEOUT) -> Any:
    """``wait_for`` for tests that are coroutines."""
    deadline = time.monotonic() + timeout
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"in {timeout:.0f} s there was no: {what}")
        await asyncio.sleep(0.02)
    return answer


def _hear_ctrl_c() -> None:
    # A shell has its background jobs ignore it, and all that they start inherits that.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Process:
    """A server as a process of its own, its output in a file."""

    def __init__(
        self, argv: list[str], log_path: Path, env: Mapping[str, str] | None = None,
        cwd: Path = ROOT,
    ) -> None:  # fmt: skip
        self.argv = argv
        self.log_path = log_path
        self.env = {**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})}
        self.cwd = cwd
        self.start()

    def start(self) -> None:
        with self.log_path.open("ab") as log:
            self.popen = subprocess.Popen(
                self.argv, cwd=self.cwd, env=self.env, stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=_hear_ctrl_c,
            )  # fmt: skip

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    async def ended(self) -> int:
        """Its exit status, when it has one. Clients in the loop go on answering pings meanwhile."""
        return await asyncio.to_thread(self.popen.wait, TIMEOUT)

    def expect(self, condition: Callable[[], Any], what: str, timeout: float = TIMEOUT) -> Any:
        """Wait for a condition that only a living process can bring about."""

        def check() -> Any:
            if self.popen.poll() is not None:
                raise AssertionError(f"{self.argv} ended with {self.popen.returncode}:\n{self.log}")
            return condition()

        try:
            return wait_for(check, what, timeout)
        except AssertionError as exc:
            raise AssertionError(f"{exc}\n{self.log[-4000:]}") from None

    def kill(self) -> None:
        """End it and everything that it started, at once, as a crash does."""
        try:
            os.killpg(self.popen.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        finally:
            self.popen.wait()

    def end(self) -> None:
        """Let it end by itself and save its coverage; kill it when it takes too long.

        A test may have left a job that never ends, which a worker waits for.
        """
        if self.popen.poll() is None:
            self.popen.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.popen.wait(GRACE)
        self.kill()

    def stop(self, timeout: float = TIMEOUT) -> int:
        """End it in an orderly way. Returns its exit code."""
        if self.popen.poll() is None:
            self.popen.terminate()
            try:
                self.popen.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()
                raise AssertionError(f"{self.argv} did not stop:\n{self.log[-4000:]}") from None
        self.kill()
        return self.popen.returncode


P = TypeVar("P", bound=Process)


@contextmanager
def running(process: P) -> Iterator[P]:
    try:
        yield process
    finally:
        process.kill()


def answers(url: str, status: int = 200) -> bool:
    """Whether a GET is answered with a status."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bool(response.status == status)
    except URLError as exc:
        return getattr(exc, "code", None) == status
    except OSError:
        return False


class Server(Process):
    """The Socket.IO process, as ``jobcast serve`` runs it."""

    def __init__(
        self, log_path: Path, transport: str, env: Mapping[str, str] | None = None,
        port: int | None = None, app: str = "jobcast.realtime:create_app",
    ) -> None:  # fmt: skip
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        super().__init__(
            [
                sys.executable, "-m", "jobcast.cli", "serve", app, "--factory",
                "--port", str(self.port),
            ],
            log_path,
            {"JOBCAST_URL": transport, "JOBCAST_JWT_SECRET": SECRET, **(env or {})},
        )  # fmt: skip

    def ready(self) -> Server:
        self.expect(lambda: answers(f"{self.url}/readyz"), "answer of /readyz")
        return self


class Worker(Process):
    """A Celery worker, by default with the tasks of ``tests/jobs.py``."""

    def __init__(
        self, log_path: Path, transport: str, broker: str, *arguments: str,
        env: Mapping[str, str] | None = None, app: str = "tests.jobs", name: str | None = None,
    ) -> None:  # fmt: skip
        self.name = name or new_id("worker")
        super().__init__(
            [
                sys.executable, "-m", "celery", "-A", app, "worker", "--loglevel=info",
                "-n", f"{self.name}@test", "--without-mingle", "--without-gossip",
                *(() if "-Q" in arguments else ("-Q", self.name)), *arguments,
            ],
            log_path,
            {"JOBCAST_URL": transport, "CELERY_BROKER_URL": broker, **(env or {})},
        )  # fmt: skip

    def ready(self) -> Worker:
        self.expect(lambda: f"{self.name}@test ready" in self.log, "ready worker")
        return self

    def returned(self, task_id: str) -> str:
        """Wait for a task. Returns its result, as the worker logs it."""
        line = re.compile(rf"\[{re.escape(task_id)}\] succeeded in [^:]+s: (.*)")
        found: re.Match[str] = self.expect(lambda: line.search(self.log), f"end of {task_id}")
        return found[1]


def give_back_unacknowledged(redis_url: str) -> None:
    """Let Celery's broker give what no worker has acknowledged to another.

    Redis' does it when its visibility timeout is over. One that is short enough to be waited for
    is also over, on a busy machine, while a living worker runs what it was given.
    """
    with Connection(redis_url) as connection:
        channel = connection.default_channel
        with channel.conn_or_acquire() as client:
            tags = client.zrange(channel.unacked_index_key, 0, -1)
        for tag in tags:
            channel.qos.restore_by_tag(tag.decode())


class Transcript:
    """What one client was sent, in order."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def of(self, job_id: str, *names: str) -> list[dict[str, Any]]:
        return [
            data
            for name, data in self.events
            if data.get("job_id") == job_id and (not names or name in names)
        ]

    def names(self, job_id: str) -> list[str]:
        return [name for name, data in self.events if data.get("job_id") == job_id]

    def seqs(self, job_id: str) -> list[int]:
        return [data["seq"] for name, data in self.events
                if data.get("job_id") == job_id and name not in ("joined", "job_gap")]  # fmt: skip

    async def logged(self, job_id: str, lines: int) -> None:
        """Wait for so many lines of log."""
        await eventually(lambda: len(self.of(job_id, "job_log")) == lines, f"{lines} lines")

    async def end(self, job_id: str) -> dict[str, Any]:
        """Wait for the terminal event."""
        ended = await eventually(
            lambda: self.of(job_id, "job_complete", "job_error"), f"end of {job_id}"
        )
        event: dict[str, Any] = ended[0]
        return event


class Follower:
    """python-socketio's own client, with nothing of jobcast in it."""

    def __init__(self, client: socketio.AsyncClient, transcript: Transcript) -> None:
        self.client = client
        self.transcript = transcript

    async def request(self, event: str, *payload: Any) -> dict[str, Any]:
        data = payload[0] if len(payload) == 1 else payload or None
        answer: dict[str, Any] = await self.client.call(event, data, timeout=TIMEOUT)
        return answer

    async def join(self, job_id: str, **extra: Any) -> dict[str, Any]:
        return await self.request("join_job", {"job_id": job_id, **extra})

    async def leave(self, job_id: str) -> dict[str, Any]:
        return await self.request("leave_job", {"job_id": job_id})


@asynccontextmanager
async def following(
    url: str, token: str, transports: tuple[str, ...] = ("websocket",), **options: Any
) -> AsyncIterator[Follower]:
    """A connected stock client."""
    client = socketio.AsyncClient(reconnection=False, handle_sigint=False)
    transcript = Transcript()

    async def record(event: str, data: dict[str, Any]) -> None:
        transcript.events.append((event, data))

    client.on("*", record)
    try:
        await client.connect(
            url, auth={"token": token}, transports=list(transports), wait_timeout=TIMEOUT, **options
        )
        yield Follower(client, transcript)
    finally:
        if transports == ("polling",):
            # An orderly end would wait for the answer to the last poll.
            await client.eio.disconnect(abort=True)
        await client.disconnect()
        if client.eio.http is not None:
            await client.eio.http.close()
