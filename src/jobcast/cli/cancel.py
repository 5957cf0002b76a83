"""``jobcast cancel``: cancel jobs, and optionally wait for their ends."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from jobcast.cli.appearance import Terminal
from jobcast.cli.cancel_prompt import outcome_text
from jobcast.cli.job_view import JobView
from jobcast.cli.terminal import clean
from jobcast.cli.watch import Lines, follow_jobs, protect_terminal
from jobcast.client import JobClient, Token
from jobcast.errors import CancelRefused, JobcastError


class NotConfirmed(JobcastError):
    """``jobcast cancel`` can ask no question, because standard input is not a terminal."""

    def __init__(self) -> None:
        super().__init__("standard input is not a terminal: confirm the request with --yes")


def confirm(job_ids: Sequence[str]) -> bool:
    """Ask on the terminal whether to cancel jobs, and return the answer.

    Raises:
        NotConfirmed: standard input is not a terminal.
    """
    if not sys.stdin.isatty():
        raise NotConfirmed
    what = f"job {job_ids[0]}" if len(job_ids) == 1 else f"{len(job_ids)} jobs"
    return click.confirm(f"Cancel {what}?", err=True)


async def cancel_jobs(
    url: str,
    token: Token,
    job_ids: Sequence[str],
    *,
    message: str = "",
    wait: bool = False,
    namespace: str = "/",
) -> int:
    """Cancel jobs, and print the answer of each as one line.

    Args:
        url: the server's URL.
        token: a token, as for :class:`jobcast.client.JobClient`.
        job_ids: the ids of the jobs.
        message: why: a text for people.
        wait: follow the jobs that are running until they have ended.
        namespace: the Socket.IO namespace that the server attaches jobcast to.

    Returns:
        0 if every request was accepted, 1 if one was refused.

    Raises:
        ClientError: the server cannot be reached, or refuses the token; possibly in a group.
        ValueError: the message, the URL or the namespace is not valid.
    """
    protect_terminal()
    running: list[JobView] = []
    refused = False
    async with JobClient(url, token, namespace=namespace) as client:
        for job_id in dict.fromkeys(job_ids):
            try:
                result = await client.cancel(job_id, message=message)
            except CancelRefused as exc:
                refused = True
                print(clean(f"{job_id}: not cancelled: {exc} ({exc.code})"), file=sys.stderr)
                continue
            print(clean(f"{job_id}: {outcome_text(result)}"), flush=True)
            if result.outcome == "requested":
                running.append(JobView(job_id=job_id))
        if wait and running:
            await follow_jobs(client, running, Lines(running, Terminal()))
    return int(refused)
