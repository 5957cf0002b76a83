"""Run the code and the commands of a documentation page unchanged."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import Valkey
from tests.e2e.stock import FOLDER as STOCK_CLIENT
from tests.support import ROOT, SECRET, TIMEOUT, Process, answers, free_port, new_id, running
from tests.support.node import node_command

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE_NAME = re.compile(r"# ([\w/]+\.py)\n")
URL = "redis://localhost:6379/0"
SERVER_URL = "http://127.0.0.1:8000"
MINT = "jobcast token --sub alice"


class Page:
    """A Markdown page: modules by file name, shell commands, and code blocks by language."""

    def __init__(self, path: str) -> None:
        self.blocks = BLOCK.findall((ROOT / path).read_text("utf-8"))
        self.modules = {
            match[1]: code
            for language, code in self.blocks
            if language == "python" and (match := FILE_NAME.match(code))
        }
        self.commands = [line for code in self.code_blocks("sh") for line in code.splitlines()]

    def code_blocks(self, language: str) -> list[str]:
        return [code for name, code in self.blocks if name == language]


class Project:
    """A folder with the modules of pages. Its processes use a Valkey server of the tests."""

    def __init__(self, folder: Path, valkey: Valkey, modules: Mapping[str, str]) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.valkey = valkey
        self.env = {
            "JOBCAST_URL": valkey.url,
            "JOBCAST_PORT": str(self.port),
            "SECRET": SECRET,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        for name, code in modules.items():
            self.write(name, code)

    def write(self, name: str, code: str) -> None:
        """Write a module. Its Celery application uses the tests' broker and a unique queue."""
        adapted = code.replace(URL, self.valkey.url).replace(SERVER_URL, self.url)
        if adapted != code and "app = Celery(" in code:
            adapted += f"\napp.conf.task_default_queue = {new_id('queue')!r}\n"
            adapted += "app.conf.result_backend = app.conf.broker_url\n"
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(adapted)

    def shell(self, line: str, log: str) -> Process:
        return Process(["bash", "-c", line], self.folder / log, self.env, self.folder)

    @contextmanager
    def worker(self, line: str) -> Iterator[Process]:
        """Run a worker during the block. The block starts when the worker is ready."""
        with running(self.shell(f"{line} -c 2", f"{new_id('worker')}.log")) as worker:
            worker.expect(lambda: " ready." in worker.log, "ready worker")
            yield worker

    @contextmanager
    def server(self, line: str) -> Iterator[Process]:
        """Run a server during the block. The block starts when the server is ready."""
        with running(self.shell(line, f"{new_id('server')}.log")) as server:
            server.expect(lambda: answers(f"{self.url}/readyz"), "ready server")
            yield server

    def run(self, code: str, **env: str) -> str:
        """Run Python code in the project and return its output."""
        return self._output([sys.executable, "-W", "error", "-c", code], **env)

    def mint(self, *arguments: str) -> str:
        line = " ".join([MINT, *arguments])
        return self._output(["bash", "-c", line], JOBCAST_JWT_SECRET=SECRET)

    def watch(
        self, line: str, job_id: str, token: str, url: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run the page's ``jobcast watch`` with a job id and a token."""
        return subprocess.run(
            ["bash", "-c", f"{line} --url {url or self.url}"], text=True, check=False,
            env={**os.environ, **self.env, "JOBCAST_TOKEN": token, "JOB_ID": job_id},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=TIMEOUT,
        )  # fmt: skip

    def _output(self, argv: list[str], **env: str) -> str:
        completed = subprocess.run(
            argv, cwd=self.folder, text=True, check=True, timeout=3 * TIMEOUT,
            env={**os.environ, **self.env, **env}, stdout=subprocess.PIPE,
        )  # fmt: skip
        return completed.stdout.strip()


def run_stock_script(script: str, url: str, token: str, job_id: str) -> list[str]:
    """Run a page's socket.io-client script until the job ends and return its lines."""
    path = STOCK_CLIENT / f".{new_id('page')}.mjs"
    path.write_text(
        _with_constants(script, url, token, job_id)
        + "setTimeout(() => process.exit(2), 90000);\n"
        + "for (const end of ['job_complete', 'job_error'])\n"
        + "  socket.on(end, () => process.exit(0));\n"
    )
    try:
        return _node(path)
    finally:
        path.unlink()


def run_package_script(script: str, url: str, token: str, job_id: str, folder: Path) -> list[str]:
    """Run a page's @jobcast/client script until the job ends and return its lines."""
    installed = folder / "node_modules" / "@jobcast" / "client"
    installed.parent.mkdir(parents=True)
    installed.symlink_to(ROOT / "client")
    path = folder / "page.mjs"
    path.write_text(_with_constants(script, url, token, job_id) + "client.close();\n")
    return _node(path)


def _with_constants(script: str, url: str, token: str, job_id: str) -> str:
    imports, blank, rest = script.partition("\n\n")
    assert blank
    constants = f"const url = '{url}', token = '{token}', job_id = '{job_id}';"
    return f"{imports}\n{constants}\n{rest}"


def _node(path: Path) -> list[str]:
    completed = subprocess.run(
        [node_command("node"), str(path)],
        text=True,
        timeout=TIMEOUT,
        check=True,
        stdout=subprocess.PIPE,
    )
    return completed.stdout.splitlines()
