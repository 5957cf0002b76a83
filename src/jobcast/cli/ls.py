"""``jobcast ls``: jobs as a table, or as lines of JSON."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from rich.console import Console, RenderableType

from jobcast.cli.appearance import Terminal
from jobcast.cli.feed_options import FeedOptions
from jobcast.cli.job_table import LIST_COLUMNS, job_table
from jobcast.cli.watch import protect_terminal
from jobcast.client import JobClient, JobSummary, Token
from jobcast.events import payload_of

UNLIMITED: Final = 10_000  # characters of a line that is not for a terminal


async def list_jobs(
    url: str, token: Token, wanted: FeedOptions, *, as_json: bool = False, namespace: str = "/"
) -> None:
    """Print the jobs of a feed, the newest first.

    Args:
        url: the server's URL.
        token: a token, as for :class:`jobcast.client.JobClient`.
        wanted: the feed, the filter and the limit.
        as_json: print each job as one line of JSON instead of a table.
        namespace: the Socket.IO namespace that the server attaches jobcast to.

    Raises:
        ClientError: the server cannot be reached, or refuses the request.
        ValueError: the filter, the URL or the namespace is not valid.
        BrokenPipeError: the reader of the output has exited.
    """
    protect_terminal()
    async with (
        JobClient(url, token, namespace=namespace) as client,
        client.feed(**wanted.arguments) as feed,
    ):
        jobs, total = feed.jobs[: wanted.limit], feed.total or 0
    if as_json:
        print_lines(jobs)
    else:
        print_table(jobs)
    print_rest(len(jobs), total)


def print_lines(jobs: Sequence[JobSummary]) -> None:
    """Print each job as one line of JSON."""
    for job in jobs:
        print(json.dumps(payload_of(job)), flush=True)


def print_table(jobs: Sequence[JobSummary]) -> None:
    """Print a table that fits the terminal; without a terminal, with whole texts."""
    if not jobs:
        return
    console, now = Terminal(), datetime.now(UTC)
    if console.is_terminal:
        console.print(job_table(jobs, LIST_COLUMNS, console.width, now))
        return
    has_width = bool(os.environ.get("COLUMNS"))
    console.width = console.width if has_width else UNLIMITED
    table = job_table(jobs, LIST_COLUMNS, console.width, now, expand=has_width)
    for line in _lines(console, table):
        print(line)


def print_rest(shown: int, total: int) -> None:
    """Print to standard error how many jobs there are. Standard output is for jobs."""
    if total > shown:
        print(f"{shown:,} of {total:,} jobs; --limit shows more", file=sys.stderr)
    elif not shown:
        print("no jobs", file=sys.stderr)


def _lines(console: Console, table: RenderableType) -> list[str]:
    with console.capture() as capture:
        console.print(table)
    return [line.rstrip() for line in capture.get().splitlines()]
