"""Node and npm, which the virtual environment provides."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path


def node_command(name: str) -> str:
    """Return the path of ``node`` or ``npm``, preferably in the virtual environment."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.exists() else shutil.which(name) or name


def install_packages(folder: Path) -> None:
    """Install the packages of a folder's lock file, unless they are installed."""
    if not (folder / "node_modules").exists():
        subprocess.run([node_command("npm"), "ci", "--silent"], cwd=folder, check=True, timeout=300)
