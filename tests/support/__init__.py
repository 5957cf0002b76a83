"""Helpers of several test tiers: servers as real processes, and waits for conditions."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import ssl
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
from celery import Celery
from kombu.connection import Connection

from jobcast.events import JOB_EVENTS, JobEvent, JobGap
from jobcast.publishing.publisher import Publisher
from tests.support.ports import free_port as free_port
from tests.support.reaper import reaper

ROOT = Path(__file__).resolve().parents[2]
LOG_CONFIG = str(ROOT / "tests" / "logging.json")
SECRET = "a secret for tests that is long enough"
TIMEOUT = 90.0  # seconds until a wait fails; a loaded machine is slow
GRACE = 15.0  # seconds until a session-scoped process is killed after SIGTERM
SHORT_LIVED = 6  # seconds until a token expires: time for a busy client to connect before
COUNTDOWN = 8.0  # seconds until a sent job may start: time for a busy worker to learn of a change
# Engine.IO has its own pings. uvicorn's would close a slow consumer after 40 s.
NO_WEBSOCKET_PINGS = ("--ws-ping-interval", "0")

T = TypeVar("T")


class StubRuntime(NamedTuple):
    """A stand-in for the runtime: it only holds the publisher of a job."""

    publisher: Publisher


def new_id(stem: str = "job") -> str:
    """Return a job id that no other test uses."""
    return f"{stem}-{uuid.uuid4().hex[:12]}"


def call_in_thread(function: Callable[..., T], *args: Any, **options: Any) -> T:
    """Call a function in a thread, where enqueueing waits until ``queued`` is stored."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(copy_context().run, function, *args, **options).result()


def wait_for(condition: Callable[[], Any], what: str, timeout: float = TIMEOUT) -> Any:
    """Wait until ``condition()`` is truthy, and return its value."""
    deadline = time.monotonic() + timeout
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"timed out after {timeout:.0f} s waiting for: {what}")
        time.sleep(0.02)
    return answer


async def eventually(condition: Callable[[], Any], what: str, timeout: float = TIMEOUT) -> Any:
    """Wait as ``wait_for`` does, without blocking the event loop."""
    deadline = time.monotonic() + timeout
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"timed out after {timeout:.0f} s waiting for: {what}")
        await asyncio.sleep(0.02)
    return answer


def _keep_sigint_from_children() -> None:
    """Have children get SIGINT, although a shell makes its background jobs ignore it.

    Children inherit that a signal is ignored, but no handler. A ``preexec_fn`` that restores the
    signal would run Python between fork and exec, where a lock of another thread stays locked.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, _ignore)


def _ignore(*_: object) -> None:
    """Do nothing, as SIG_IGN does."""


_keep_sigint_from_children()


class Process:
    """A child process that writes its output to a file."""

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
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        reaper().add(self.popen.pid)

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    async def wait_exit(self) -> int:
        """Wait for the exit status in a thread, so that clients in the loop still answer pings."""
        return await asyncio.to_thread(self.popen.wait, TIMEOUT)

    def expect(self, condition: Callable[[], Any], what: str, timeout: float = TIMEOUT) -> Any:
        """Wait for a condition, and fail early if the process exits."""

        def check() -> Any:
            if self.popen.poll() is not None:
                raise AssertionError(
                    f"{self.argv} exited with {self.popen.returncode}:\n{self.log}"
                )
            return condition()

        try:
            return wait_for(check, what, timeout)
        except AssertionError as exc:
            raise AssertionError(f"{exc}\n{self.log[-4000:]}") from None

    def kill(self) -> None:
        """Kill the process and its children at once, as a crash does."""
        try:
            os.killpg(self.popen.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        finally:
            self.popen.wait()
            reaper().remove(self.popen.pid)

    def end(self) -> None:
        """Terminate the process so that it saves its coverage; kill it after ``GRACE`` seconds.

        A worker may wait for a job of a test that never ends.
        """
        if self.popen.poll() is None:
            self.popen.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.popen.wait(GRACE)
        self.kill()

    def stop(self, timeout: float = TIMEOUT) -> int:
        """Terminate the process, fail if it does not exit in time, and return its exit code."""
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


def answers(url: str, status: int = 200, context: ssl.SSLContext | None = None) -> bool:
    """Return whether a GET request is answered with a status."""
    try:
        with urllib.request.urlopen(url, timeout=5, context=context) as response:
            return bool(response.status == status)
    except URLError as exc:
        return getattr(exc, "code", None) == status
    except OSError:
        return False


SLOW_DRAIN = "tests.slow_drain_app:create_app"


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
        self.expect(lambda: answers(f"{self.url}/readyz"), "response of /readyz")
        return self

    def drain(self) -> None:
        """Begin to drain. The application should be ``SLOW_DRAIN``, which goes on draining."""
        self.popen.terminate()
        self.expect(lambda: answers(f"{self.url}/readyz", 503), "unready server")


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

    def wait_result(self, task_id: str) -> str:
        """Wait until a task succeeds. Returns its result as the worker logs it."""
        line = re.compile(rf"\[{re.escape(task_id)}\] succeeded in [^:]+s: (.*)")
        found: re.Match[str] = self.expect(lambda: line.search(self.log), f"end of {task_id}")
        return found[1]

    def wait_idle(self) -> None:
        """Wait until the main process has the results of all its tasks.

        A child logs the result of a task before it passes the result on.
        """
        with self._active_tasks() as active:
            self.expect(lambda: not active(), "no active task")

    def wait_active(self, task_id: str) -> None:
        """Wait until the main process knows that a task has started.

        The first events of a task may arrive earlier.
        """
        with self._active_tasks() as active:
            self.expect(lambda: task_id in active(), f"active task {task_id}")

    @contextmanager
    def _active_tasks(self) -> Iterator[Callable[[], list[str]]]:
        """Yield a function that asks the main process for the ids of its active tasks."""
        node = f"{self.name}@test"
        with Celery(broker=self.env["CELERY_BROKER_URL"], set_as_current=False) as app:
            inspect = app.control.inspect([node], timeout=TIMEOUT, limit=1)
            yield lambda: [task["id"] for task in inspect.active()[node]]


def restore_unacknowledged(redis_url: str) -> None:
    """Return unacknowledged messages to the queue, so that another worker receives them.

    Kombu does so after the visibility timeout. A timeout that is short enough for a test would
    also expire on a busy machine while a live worker runs the task.
    """
    with Connection(redis_url) as connection:
        channel = connection.default_channel
        with channel.conn_or_acquire() as client:
            tags = client.zrange(channel.unacked_index_key, 0, -1)
        for tag in tags:
            channel.qos.restore_by_tag(tag.decode())


class Transcript:
    """The events that one client received, in order. ``hello`` precedes them."""

    def __init__(self) -> None:
        self.hello: dict[str, Any] | None = None
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
                if data.get("job_id") == job_id and name in JOB_EVENTS]  # fmt: skip

    async def wait_logged(self, job_id: str, lines: int) -> None:
        """Wait until the client has received so many log lines of a job."""
        await eventually(lambda: len(self.of(job_id, "job_log")) == lines, f"{lines} log lines")

    async def end(self, job_id: str) -> dict[str, Any]:
        """Wait for the terminal event of a job."""
        ended = await eventually(
            lambda: self.of(job_id, "job_complete", "job_error"), f"end of {job_id}"
        )
        event: dict[str, Any] = ended[0]
        return event


async def next_event(events: AsyncIterator[JobEvent | JobGap]) -> JobEvent:
    """Return the next event of a followed job whose history is complete."""
    event = await anext(events)
    assert isinstance(event, JobEvent)
    return event


class Follower:
    """A stock python-socketio client, without any code of jobcast."""

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
    url: str, token: str, transports: tuple[str, ...] = ("websocket",), *,
    ssl_verify: bool = True, **options: Any,
) -> AsyncIterator[Follower]:  # fmt: skip
    """Connect a stock client."""
    client = socketio.AsyncClient(reconnection=False, handle_sigint=False, ssl_verify=ssl_verify)
    transcript = Transcript()

    async def record(event: str, data: dict[str, Any]) -> None:
        if event == "hello" and not transcript.events:
            transcript.hello = data
        else:
            transcript.events.append((event, data))

    client.on("*", record)
    try:
        await client.connect(
            url, auth={"token": token}, transports=list(transports), wait_timeout=TIMEOUT, **options
        )
        yield Follower(client, transcript)
    finally:
        if transports == ("polling",):
            # An orderly disconnect would wait for the response to the last poll.
            await client.eio.disconnect(abort=True)
        await client.disconnect()
        if client.eio.http is not None:
            await client.eio.http.close()
