"""Uploads of files, streamed to disk up to a maximum size."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from jobcast.demo.web.problems import Problem
from jobcast.demo.web.task_catalog import CatalogTask

LARGEST: Final = 32 * 1024 * 1024  # bytes
CONTENT_TYPE: Final = "text/csv"
HEADER: Final = 4096  # bytes read of the first line


async def receive(request: Request, task: CatalogTask, path: Path) -> Path | None:
    """Write the request's body to ``path`` and return the path; None if the request has no file.

    The content type distinguishes an empty file from no file.

    Raises:
        Problem: the task does not accept the file.
        ClientDisconnect: the client disconnected during the upload.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > LARGEST:
        raise _too_large()
    size = 0
    with path.open("xb") as file:
        async for chunk in request.stream():
            size += len(chunk)
            if size > LARGEST:
                raise _too_large()
            if size:
                _check_type(task, content_type)
            await run_in_threadpool(file.write, chunk)
    if not size and content_type != CONTENT_TYPE:
        await run_in_threadpool(path.unlink)
        return None
    _check_type(task, content_type)
    await run_in_threadpool(_check_columns, task, path)
    return path


def _check_type(task: CatalogTask, content_type: str) -> None:
    if not task.columns:
        raise Problem(415, "takes_no_file", f"“{task.title}” takes no file.")
    if content_type != CONTENT_TYPE:
        raise Problem(415, "not_csv", f"The file should be a CSV file ({CONTENT_TYPE}).")


def _check_columns(task: CatalogTask, path: Path) -> None:
    """Refuse a file with wrong columns now, so that no job has to fail because of it."""
    header = ",".join(task.columns)
    with path.open("rb") as file:
        line = file.readline(HEADER).decode("utf-8-sig", errors="replace")
    if not line:
        raise Problem(400, "empty_file", f"The file is empty. Its first line should be {header}")
    try:
        columns = next(csv.reader([line], strict=True), [])
    except csv.Error:
        columns = []
    if tuple(columns) != task.columns:
        raise Problem(400, "wrong_columns", f"The first line of the file should be {header}")


def _too_large() -> Problem:
    return Problem(
        413, "too_large", f"The file is too large: the maximum is {LARGEST // 1024**2} MiB."
    )
