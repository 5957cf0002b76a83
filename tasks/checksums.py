"""Checksums of a directory tree."""

import hashlib
import os
import stat
from pathlib import Path
from typing import Any

from celery import shared_task

from jobcast import ProgressTask, current_job

CHUNK = 1024 * 1024  # bytes


@shared_task(base=ProgressTask, bind=True)
def hash_tree(self: ProgressTask, root: str) -> dict[str, Any]:
    """Hash every file below ``root``, and compute one digest of all hashes.

    The digest is the SHA-256 of the sorted output lines of ``sha256sum``, with paths relative to
    ``root``.
    """
    top = Path(root)
    if not top.is_dir():
        raise FileNotFoundError(f"there is no directory {root}")
    unreadable = 0

    def skip(exc: OSError) -> None:
        nonlocal unreadable
        unreadable += 1
        self.log(f"cannot read {os.path.relpath(exc.filename, top)}: {exc.strerror}", "warning")

    self.progress(message="looking for files")
    sizes: dict[Path, int] = {}
    for folder, _, names in os.walk(top, onerror=skip):
        for path in (Path(folder, name) for name in names):
            try:
                status = path.stat()
            except OSError as exc:
                skip(exc)
            else:
                if stat.S_ISREG(status.st_mode):  # opening a pipe would block until it has a writer
                    sizes[path] = status.st_size

    total, done = sum(sizes.values()), 0
    lines: list[bytes] = []
    for path in sorted(sizes):
        name = path.relative_to(top).as_posix()
        self.progress(current=done, total=total, message=name)
        try:
            digest, size = hash_file(path, done, total)
        except OSError as exc:
            skip(OSError(exc.errno, exc.strerror, path))
        else:
            done += size
            lines.append(os.fsencode(f"{digest}  {name}\n"))
    digest = hashlib.sha256(b"".join(sorted(lines))).hexdigest()
    return {"files": len(lines), "bytes": done, "unreadable": unreadable, "digest": digest}


def hash_file(path: Path, before: int, total: int) -> tuple[str, int]:
    """Return the digest and the size of a file; ``before`` bytes were hashed before it."""
    sha, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            sha.update(chunk)
            size += len(chunk)
            current_job().progress(current=before + size, total=total)
    return sha.hexdigest(), size
