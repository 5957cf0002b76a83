"""A file that a user sends: straight to the disk, and no more of it than may be."""

import csv
from pathlib import Path

import anyio
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from realtime.console.problems import Problem
from realtime.console.startable import Startable

LARGEST = 32 * 1024 * 1024  # bytes
CONTENT_TYPE = "text/csv"
HEADER = 4096  # bytes that the first line may have


async def receive(request: Request, startable: Startable, path: Path) -> Path | None:
    """Write the body into a file; None if there is no body.

    Its type tells an empty file from one that was not sent.

    Raises:
        Problem: it is no file that the task takes.
        ClientDisconnect: it broke off.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > LARGEST:
        raise _too_large()
    size = 0
    async with await anyio.open_file(path, "xb") as file:
        async for chunk in request.stream():
            size += len(chunk)
            if size > LARGEST:
                raise _too_large()
            if size:
                _check_type(startable, content_type)
            await file.write(chunk)
    if not size and content_type != CONTENT_TYPE:
        await anyio.Path(path).unlink()
        return None
    _check_type(startable, content_type)
    await run_in_threadpool(_check_columns, startable, path)
    return path


def _check_type(startable: Startable, content_type: str) -> None:
    if not startable.columns:
        raise Problem(415, "takes_no_file", f"“{startable.title}” takes no file.")
    if content_type != CONTENT_TYPE:
        raise Problem(415, "not_csv", f"The file should be a CSV file ({CONTENT_TYPE}).")


def _check_columns(startable: Startable, path: Path) -> None:
    """A wrong file is said at once, not by a job that fails."""
    header = ",".join(startable.columns)
    with path.open("rb") as file:
        line = file.readline(HEADER).decode("utf-8-sig", errors="replace")
    if not line:
        raise Problem(400, "empty_file", f"The file is empty. Its first line should be {header}")
    try:
        columns = next(csv.reader([line], strict=True), [])
    except csv.Error:
        columns = []
    if tuple(columns) != startable.columns:
        raise Problem(400, "wrong_columns", f"The first line of the file should be {header}")


def _too_large() -> Problem:
    return Problem(
        413, "too_large", f"The file is too large: it may have {LARGEST // 1024**2} MiB at most."
    )
