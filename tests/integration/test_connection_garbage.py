"""Closed connections are freed at once, because the server seldom collects cycles."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.connection_garbage import COUNT
from tests.support import ROOT, TIMEOUT


@pytest.mark.parametrize("kind", ["websocket", "polling", "plain"])
def test_closed_connection_leaves_no_cycle(kind: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.connection_garbage", kind],
        cwd=ROOT, text=True, capture_output=True, timeout=TIMEOUT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    garbage: dict[str, int] = json.loads(done.stdout)
    assert all(count < COUNT for count in garbage.values()), garbage
