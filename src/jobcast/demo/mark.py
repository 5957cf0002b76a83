"""The mark of a demo, by which its site recognizes the directory that ``jobcast demo`` created."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Final

from jobcast.errors import SettingsError

VARIABLE: Final = "JOBCAST_DEMO"  # the directory of the demo that started a process
FILE: Final = "demo.json"


def write_mark(directory: Path, queue: str) -> None:
    """Mark a directory as a demo's.

    Args:
        directory: a directory that only this user can access.
        queue: the queue that the demo's worker consumes.
    """
    (directory / FILE).write_text(json.dumps({"queue": queue}), encoding="utf-8")


def read_queue(directory: Path) -> str:
    """Return the queue of the demo's worker from the mark in a directory.

    Raises:
        SettingsError: the directory was not created by a demo of this user.
    """
    try:
        status = directory.stat()
        mark = json.loads((directory / FILE).read_text(encoding="utf-8"))
        is_private = status.st_uid == os.geteuid() and stat.S_IMODE(status.st_mode) == 0o700
        if is_private and "queue" in mark:
            return str(mark["queue"])
    except (OSError, ValueError):
        pass  # reported below
    raise SettingsError(
        VARIABLE,
        "should not be set: it turns on a login that asks for no password, and only `jobcast demo`"
        f" sets it, to a directory of its own, which {directory} is not",
    )
