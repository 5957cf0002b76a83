"""The npm package socket.io-client in a Node.js process."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support import TIMEOUT, new_id

FOLDER = Path(__file__).parent / "stock_client"

Event = tuple[str, dict[str, Any]]


def command(name: str) -> str:
    """Return the path of a Node.js command, from the virtual environment if it has one."""
    in_environment = Path(sys.executable).with_name(name)
    return str(in_environment) if in_environment.exists() else shutil.which(name) or name


def install() -> None:
    """Install the stock client's dependencies from its lock file."""
    if not (FOLDER / "node_modules").exists():
        subprocess.run([command("npm"), "ci", "--silent"], cwd=FOLDER, check=True, timeout=300)


class StockClient:
    def __init__(self, process: subprocess.Popen[str], output: Path) -> None:
        self._process = process
        self._output = output

    @property
    def events(self) -> list[Event]:
        lines = self._output.read_text().splitlines(keepends=True)
        return [tuple(json.loads(line)) for line in lines if line.endswith("\n")]

    def finish(self) -> list[Event]:
        assert self._process.wait(TIMEOUT) == 0
        return self.events


@contextmanager
def stock_client(
    url: str, token: str, job_id: str, folder: Path, script: str = "follow.mjs"
) -> Iterator[StockClient]:
    output = folder / f"{new_id('output')}.jsonl"
    with output.open("w") as stdout:
        process = subprocess.Popen(
            [command("node"), str(FOLDER / script), url, token, job_id],
            stdout=stdout,
            text=True,
        )
    try:
        yield StockClient(process, output)
    finally:
        process.kill()
        process.wait()
