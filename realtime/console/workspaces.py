"""Where jobs find their input and may write: a directory for each, which goes after its time."""

import logging
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SWEEP_EVERY = 3600.0  # seconds

logger = logging.getLogger("jobcast.console")


class Workspaces:
    """The directories of jobs. Its methods wait for the disk.

    Args:
        directory: which has all of them.
        kept: seconds that one stays after something was last written to it. Whether its job is
            over nobody says here, so that this has to be longer than jobs wait and run.
    """

    def __init__(self, directory: Path, kept: float) -> None:
        self._directory = directory
        self._kept = kept
        self._lock = threading.Lock()
        self._swept_at = time.monotonic()
        directory.mkdir(parents=True, exist_ok=True)
        self._sweep()

    @contextmanager
    def new(self, job_id: str) -> Iterator[Path]:
        """A new directory for a job, which goes if the job does not come about."""
        directory = self._directory / job_id
        directory.mkdir()
        try:
            yield directory
        except BaseException:
            shutil.rmtree(directory)
            raise

    def sweep(self) -> None:
        """Remove what is too old, unless that was done a short while ago."""
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
                continue  # another process of the site was faster
            except OSError as exc:
                logger.warning("%s could not be removed: %s", workspace, exc)


def _written_at(workspace: Path) -> float:
    return max(path.lstat().st_mtime for path in (workspace, *workspace.iterdir()))
