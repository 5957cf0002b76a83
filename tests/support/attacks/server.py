"""The attacked server: its memory, its log, its gauges."""

from __future__ import annotations

import re
import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.support import SECRET, Process, answers, free_port

_STATUS: Final = re.compile(r'" (\d{3})\b')
_GAUGES: Final = ("jobcast_connections", "jobcast_jobs_followed")


class Served(Process):
    """``jobcast serve`` with its production settings.

    Args:
        log_path: the file for its output.
        transport: the URL of Redis.
        env: additional settings.
        files: the limit of open files; 0 keeps the limit of this process.
    """

    def __init__(
        self, log_path: Path, transport: str, env: Mapping[str, str] | None = None, files: int = 0
    ) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        limited = ["sh", "-c", f'ulimit -n {files} && exec "$@"', "sh"] if files else []
        super().__init__(
            [*limited, sys.executable, "-m", "jobcast.cli", "serve", "--port", str(self.port)],
            log_path,
            {
                "JOBCAST_URL": transport, "JOBCAST_JWT_SECRET": SECRET, "JOBCAST_METRICS": "true",
                **(env or {}),
            },
        )  # fmt: skip

    def ready(self) -> Served:
        self.expect(lambda: answers(f"{self.url}/readyz"), "answer of /readyz")
        return self

    @property
    def tracebacks(self) -> int:
        return self.log.count("Traceback (most recent call last)")

    @property
    def server_errors(self) -> list[str]:
        return server_errors(self.log)

    def gauges(self) -> dict[str, float]:
        """Return the metrics of connections and followed jobs."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=30) as response:
            page = response.read().decode()
        found = {name: re.search(rf"^{name} (\S+)$", page, re.MULTILINE) for name in _GAUGES}
        return {name: float(match[1]) for name, match in found.items() if match is not None}

    def files(self) -> int:
        """Return the number of open file descriptors of the process."""
        return len(list(Path(f"/proc/{self.popen.pid}/fd").iterdir()))

    def memory(self) -> int:
        """Return the resident memory of the process, in bytes."""
        return self._status("VmRSS")

    def peak_memory(self) -> int:
        """Return the peak of the resident memory since `forget_peak`, in bytes."""
        return self._status("VmHWM")

    def forget_peak(self) -> int:
        """Reset the peak to the present memory, and return it, in bytes."""
        Path(f"/proc/{self.popen.pid}/clear_refs").write_text("5")
        return self.peak_memory()

    def _status(self, field: str) -> int:
        status = Path(f"/proc/{self.popen.pid}/status").read_text()
        return int(status.partition(f"{field}:")[2].split()[0]) * 1024


def server_errors(log: str) -> list[str]:
    """Return the lines of an access log with a status of 5xx.

    503 does not count: a server that is full or starting answers with it.
    """
    found = ((line, _STATUS.search(line)) for line in log.splitlines())
    return [line for line, match in found if match and match[1][0] == "5" and match[1] != "503"]
