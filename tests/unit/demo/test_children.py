"""The child processes of the demo."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from jobcast.demo.children import ChildEnded, Children


async def test_end_of_a_process_is_reported_although_the_work_notices_it_first(
    tmp_path: Path,
) -> None:
    children = Children(tmp_path)
    argv = [sys.executable, "-c", "import time; time.sleep(600)"]
    child = children.start("realtime", argv, cwd=tmp_path, env=dict(os.environ))

    async def work() -> None:
        child.send_signal(signal.SIGKILL)
        raise ConnectionRefusedError

    with pytest.raises(ChildEnded, match=r"the realtime process ended unexpectedly \(signal 9\)"):
        await children.guard(work())
    await children.stop()


async def test_error_of_the_work_is_raised_while_all_processes_run(tmp_path: Path) -> None:
    children = Children(tmp_path)
    argv = [sys.executable, "-c", "import time; time.sleep(600)"]
    children.start("realtime", argv, cwd=tmp_path, env=dict(os.environ))

    async def work() -> None:
        raise ConnectionRefusedError

    with pytest.raises(ConnectionRefusedError):
        await children.guard(work())
    await children.stop()
