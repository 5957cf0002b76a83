"""Directories for the input and output of jobs, deleted after a retention time."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SWEEP_EVERY = 3600.0  # seconds
KEPT = 24 * 3600.0  # seconds after the last write

logger = logging.getLogger("jobcast.demo")


class Workspaces:
    """The directories of jobs. The methods block on disk access.

    Args:
        directory: the parent directory.
        kept: how long a directory is kept after the last write to it, in seconds. The server does
            not know whether the job has ended, so this must exceed the time that jobs wait and
            run.
    """

    def __init__(self, directory: Path, kept: float = KEPT) -> None:
        self._directory = directory
        self._kept = kept
        self._lock = threading.Lock()
        self._swept_at = time.monotonic()
        directory.mkdir(parents=True, exist_ok=True)
        self._sweep()

    @contextmanager
    def new(self, job_id: str) -> Iterator[Path]:
        """Create a directory for a job. Delete it if the block raises."""
        directory = self._directory / job_id
        directory.mkdir()
        try:
            yield directory
        except BaseException:
            shutil.rmtree(directory)
            raise

    def sweep(self) -> None:
        """Remove expired directories, at most once every ``SWEEP_EVERY`` seconds."""
        with self._lock:
            if time.monotonic() - self._swept_at < SWEEP_EVERY:
                return
            self._swept_at = time.monotonic()
        self._sweep()

    def _sweep(self) -> None:
        for workspace in self._directory.iterdir():
            try:
                if time.time() - _written_at(workspace) > self._kept:
                    shutil.rmtree(workspace)
            except FileNotFoundError:
                continue  # another server process has removed it
            except OSError as exc:
                logger.warning(
                    "could not remove %s (%s); the next sweep tries again", workspace, exc
                )


def _written_at(workspace: Path) -> float:
    return max(path.lstat().st_mtime for path in (workspace, *workspace.iterdir()))
