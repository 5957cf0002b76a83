"""The npm package socket.io-client in a Node.js process."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support import TIMEOUT, new_id
from tests.support.node import node_command

FOLDER = Path(__file__).parent / "stock_client"

Event = tuple[str, dict[str, Any]]


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
            [node_command("node"), str(FOLDER / script), url, token, job_id],
            stdout=stdout,
            text=True,
        )
    try:
        yield StockClient(process, output)
    finally:
        process.kill()
        process.wait()
