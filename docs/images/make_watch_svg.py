"""Makes watch.svg from a real run of the demo in a terminal. Needs tmux.

python docs/images/make_watch_svg.py
"""

from __future__ import annotations

import io
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.text import Text

WIDTH, HEIGHT = 108, 34  # characters
SESSION = "jobcast-screenshot"
TIMEOUT = 120  # seconds


def tmux(*arguments: str) -> str:
    return subprocess.run(
        ["tmux", *arguments], check=True, text=True, stdout=subprocess.PIPE
    ).stdout


def shown_while(running: str, done: str) -> str:
    """The screen at a moment when something runs and something is done."""
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        screen = tmux("capture-pane", "-p", "-e", "-t", SESSION)
        lines = screen.splitlines()
        if any(running in line and "▸" in line and "left" in line for line in lines) and any(
            done in line and "✔" in line and "━" in line for line in lines
        ):
            return screen
        time.sleep(0.05)
    raise SystemExit("the demo did not come to that point")


def main() -> None:
    command = f"{sys.executable} -m jobcast.cli demo"
    tmux("new-session", "-d", "-s", SESSION, "-x", str(WIDTH), "-y", str(HEIGHT), command)
    try:
        screen = shown_while(running="make_thumbnails", done="hash_tree")
    finally:
        tmux("send-keys", "-t", SESSION, "C-c")
        while (
            subprocess.run(["tmux", "has-session", "-t", SESSION], capture_output=True).returncode
            == 0
        ):
            time.sleep(0.1)
    lines = screen.rstrip().splitlines()
    begin = next(i for i, line in enumerate(lines) if "export JOBCAST_TOKEN" in line) + 3
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi("\n".join(["$ jobcast demo", "", *lines[begin:]])), soft_wrap=True)
    svg = console.export_svg(title="jobcast demo")
    Path(__file__).with_name("watch.svg").write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
