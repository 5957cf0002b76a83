"""Virtual environments with the built wheel, as the reader of a tutorial has."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support import ROOT

UV = [sys.executable, "-m", "uv"]


def build_wheel(directory: Path) -> Path:
    """Build the wheel of this checkout."""
    _run([
        sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(directory),
        str(ROOT),
    ])  # fmt: skip
    (wheel,) = directory.glob("*.whl")
    return wheel


def make_environment(environment: Path, wheel: Path, requirements: list[str]) -> None:
    """Install the requirements of a tutorial, with jobcast from the wheel.

    The versions are those of the lock file, so that a new release of a library breaks no test.
    """
    pins = environment.with_suffix(".txt")
    _run([
        *UV, "export", "--quiet", "--frozen", "--all-extras", "--no-hashes", "--no-emit-project",
        "--project", str(ROOT), "--output-file", str(pins),
    ])  # fmt: skip
    named = [
        f"{requirement} @ {wheel.as_uri()}" if requirement.startswith("jobcast") else requirement
        for requirement in requirements
    ]
    _run([*UV, "venv", "--quiet", "--python", sys.executable, str(environment)])
    _run([
        *UV, "pip", "install", "--quiet", "--python", str(environment / "bin" / "python"),
        "--constraint", str(pins), *named,
    ])  # fmt: skip


def _run(argv: list[str]) -> None:
    done = subprocess.run(
        argv, text=True, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert done.returncode == 0, done.stdout
