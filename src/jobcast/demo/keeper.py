"""Cleans up after a demo that was killed before it could do so itself.

Run as a script, isolated and without site packages, so that it is there at once. Each line of its
input is the process groups that run now; its input ends when the demo does, whatever ended it.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from contextlib import suppress
from pathlib import Path


def main(directory: str) -> None:
    groups: list[str] = []
    for line in sys.stdin:
        groups = line.split()
    for group in groups:
        with suppress(ProcessLookupError):
            os.killpg(int(group), signal.SIGKILL)
    # What was killed may be about to write its last file.
    for _ in range(100):
        shutil.rmtree(directory, ignore_errors=True)
        if not Path(directory).exists():
            break


if __name__ == "__main__":
    main(sys.argv[1])
