"""Processes that the tests start."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support import ROOT

START = """
import os, sys
from pathlib import Path
from tests.support import Process

marker, log = map(Path, sys.argv[1:])
os.register_at_fork(after_in_child=marker.touch)
code = "import signal; print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)"
process = Process([sys.executable, "-c", code], log)
process.popen.wait()
print(marker.exists(), process.log.strip())
"""


def test_process_heeds_sigint_and_runs_no_python_before_its_start(tmp_path: Path) -> None:
    """Between fork and exec, Python code may wait for ever for a lock of another thread."""
    paths = str(tmp_path / "marker"), str(tmp_path / "log")
    in_background = ["sh", "-c", 'trap "" INT; exec "$@"', "sh"]
    answer = subprocess.run(
        [*in_background, sys.executable, "-c", START, *paths],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert answer.stdout.split() == ["False", "False"]
