"""A test run that is killed leaves no server behind."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.support import ROOT, TIMEOUT, wait_for

STARTS_TWO = """
import sys
from collections.abc import Callable
from pathlib import Path
from tests.support import Process

folder = Path(sys.argv[1])
pair = Process(["sh", "-c", "sleep 600 & wait"], folder / "pair.log")
ended = Process(["true"], folder / "ended.log")
ended.end()
print(pair.popen.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("end", [psutil.Process.kill, psutil.Process.terminate])
def test_killed_run_leaves_no_process(
    tmp_path: Path, end: Callable[[psutil.Process], None]
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STARTS_TWO, str(tmp_path)],
        cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as run:  # fmt: skip
        assert run.stdout is not None
        leader = psutil.Process(int(run.stdout.readline()))
        wait_for(leader.children, "the child of the server")
        server = [leader, *leader.children()]
        end(psutil.Process(run.pid))
    gone, alive = psutil.wait_procs(server, timeout=TIMEOUT)
    assert (len(gone), alive) == (2, [])
