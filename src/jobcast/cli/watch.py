"""``jobcast watch``: live jobs in a terminal, or as lines for a pipe."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

import msgspec
from msgspec import UNSET
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from jobcast.aio import first_of
from jobcast.cli.appearance import (
    UNKNOWN_STYLE,
    UNKNOWN_SYMBOL,
    Terminal,
    duration,
    style_of,
    symbol_of,
)
from jobcast.cli.cancel_prompt import CancelPrompt, read_keys
from jobcast.cli.job_view import JobView
from jobcast.cli.keyboard import Keyboard
from jobcast.cli.terminal import clean, clean_struct
from jobcast.client import ConnectionState, JobClient, Token
from jobcast.events import (
    RUN_STATUSES,
    JobComplete,
    JobError,
    JobEvent,
    JobGap,
    JobLog,
    JobStatus,
    payload_of,
)
from jobcast.log_safety import CLIENT_LOGGERS, protect, protect_own

FRAMES_A_SECOND: Final = 12
BAR_WIDTH: Final = 28  # characters, in a terminal that is wide enough
NOTICE_DELAY: Final = 2.0  # seconds without an event until `watch` prints a notice about the job
RESULT_LENGTH: Final = 60  # characters of a printed result

LEVEL_STYLES: Final = {
    "debug": "dim", "info": "default", "warning": "yellow", "error": "red", "critical": "bold red",
}  # fmt: skip


class Screen(Protocol):
    """An output for the events of the jobs."""

    def show(self, job: JobView, event: JobEvent | JobGap) -> None: ...
    def waiting(self, job: JobView) -> None: ...
    def connection(self, state: ConnectionState) -> None: ...
    def opened(self) -> AbstractContextManager[Any]: ...


async def watch(
    url: str,
    token: Token,
    job_ids: Sequence[str],
    *,
    as_json: bool = False,
    console: Console | None = None,
    namespace: str = "/",
) -> int:
    """Show jobs until all of them have ended.

    Args:
        url: the server's URL.
        token: a token, as for :class:`jobcast.client.JobClient`.
        job_ids: the ids of the jobs, in display order.
        as_json: print each event as one line of JSON instead of a display.
        console: the output; standard output by default.
        namespace: the Socket.IO namespace that the server attaches jobcast to.

    Returns:
        0 if all jobs completed, 1 if a job failed or was cancelled.

    Raises:
        ClientError: the server cannot be reached, or refuses a request; possibly in a group.
        ValueError: the URL or the namespace is not valid.
        BrokenPipeError: the reader of the output has exited; possibly in a group.
    """
    protect_terminal()
    console = console or Terminal()
    jobs = [JobView(job_id=job_id) for job_id in dict.fromkeys(job_ids)]
    screen = _screen(jobs, console, as_json)
    with screen.opened():
        async with JobClient(url, token, on_state=screen.connection, namespace=namespace) as client:
            if isinstance(screen, Display) and _has_keyboard():
                await _follow_with_keys(client, jobs, screen)
            else:
                await follow_jobs(client, jobs, screen)
    return int(any(job.state != "complete" for job in jobs))


def protect_terminal() -> None:
    """Remove control characters from log records: Python prints warnings to the terminal."""
    protect(*CLIENT_LOGGERS)
    protect_own()


async def follow_jobs(client: JobClient, jobs: Sequence[JobView], screen: Screen) -> None:
    """Show the events of jobs until all of them have ended.

    Raises:
        ClientError: the server refuses a request; always in a group.
        BrokenPipeError: the reader of the output has exited; always in a group.
    """

    async def follow(job: JobView) -> None:
        notice = group.create_task(_note_silence(client, job, screen))
        try:
            async for event in client.follow(job.job_id):
                notice.cancel()
                if isinstance(event, JobEvent):
                    info = clean_struct(client.info(job.job_id))
                    job.apply(clean_struct(event), client.status(job.job_id), info)
                screen.show(job, event)
        finally:
            notice.cancel()

    async with asyncio.TaskGroup() as group:
        for job in jobs:
            group.create_task(follow(job))


async def _follow_with_keys(client: JobClient, jobs: list[JobView], display: Display) -> None:
    prompt = display.prompt = CancelPrompt(client)
    display.hint = "c cancel  Ctrl-C stop watching"
    try:
        with Keyboard(sys.stdin.fileno()) as keyboard:
            await first_of(
                follow_jobs(client, jobs, display), read_keys(keyboard, prompt, jobs, quit_keys=())
            )
    finally:
        await prompt.close()


async def _note_silence(client: JobClient, job: JobView, screen: Screen) -> None:
    """Show a notice after ``NOTICE_DELAY`` seconds if the server has no event of the job yet."""
    status = None
    while status is None:  # the server has not answered the join
        await asyncio.sleep(NOTICE_DELAY)
        status = client.status(job.job_id)
    if status == "pending":
        screen.waiting(job)


def _screen(jobs: list[JobView], console: Console, as_json: bool) -> Screen:
    if as_json:
        return JsonLines()
    return Display(jobs, console) if console.is_terminal else Lines(jobs, console)


def print_waiting(job: JobView) -> None:
    """Print to standard error that a job has no event yet. Standard output is for events."""
    print(
        f"waiting for job {job.job_id}: it has no event yet. Is the id right?"
        " Ctrl-C stops watching.",
        file=sys.stderr, flush=True,
    )  # fmt: skip


class JsonLines:
    """An output of one JSON event a line, for other programs."""

    def show(self, job: JobView, event: JobEvent | JobGap) -> None:  # noqa: ARG002
        print(json.dumps({"event": event.name, **payload_of(event)}), flush=True)

    def waiting(self, job: JobView) -> None:
        print_waiting(job)

    def connection(self, state: ConnectionState) -> None: ...

    def opened(self) -> AbstractContextManager[None]:
        return nullcontext()


class Lines:
    """An output of logs and outcomes as lines, for files and terminals that cannot redraw."""

    def __init__(self, jobs: list[JobView], console: Console) -> None:
        self._jobs = jobs
        self._console = console

    def show(self, job: JobView, event: JobEvent | JobGap) -> None:
        line = describe(job, clean_struct(event), max(len(other.name) for other in self._jobs))
        if line is not None:
            self._console.print(line, soft_wrap=True, highlight=False)

    def waiting(self, job: JobView) -> None:
        print_waiting(job)

    def connection(self, state: ConnectionState) -> None:
        if state == "reconnecting":
            with suppress(BrokenPipeError):  # the next event raises it where `watch` can stop
                self._console.print("[yellow]the connection is lost; reconnecting[/]")

    def opened(self) -> AbstractContextManager[None]:
        return nullcontext()


class Display(Lines):
    """A terminal display with a progress bar for each job below the lines.

    Args:
        jobs: the jobs, in display order.
        console: the terminal.
        hint: a line below the bars.
        prompt: a question, or a notice, that takes the place of the hint.
    """

    def __init__(
        self,
        jobs: list[JobView],
        console: Console,
        hint: str = "",
        prompt: CancelPrompt | None = None,
    ) -> None:
        super().__init__(jobs, console)
        self.hint = hint
        self.prompt = prompt
        self._state: ConnectionState = "connecting"
        self._live = Live(
            get_renderable=self._draw, console=console, refresh_per_second=FRAMES_A_SECOND
        )

    def waiting(self, job: JobView) -> None:
        """Do nothing: the job's row shows that it is pending."""

    def connection(self, state: ConnectionState) -> None:
        self._state = state

    def opened(self) -> AbstractContextManager[Any]:
        return self._live

    def _draw(self) -> RenderableType:
        table = Table.grid(padding=(0, 1))
        for column in ("symbol", "name", "bar", "percentage", "elapsed"):
            table.add_column(
                column, no_wrap=True, justify="right" if column == "elapsed" else "left"
            )
        table.add_column("doing", no_wrap=True, overflow="ellipsis", ratio=1)
        table.expand = True
        now = datetime.now(UTC)
        for job in self._jobs:
            table.add_row(*_row(job, now, min(BAR_WIDTH, self._console.width // 4)))
        rows: list[RenderableType] = [Text(), table]
        if self._state in ("connecting", "reconnecting"):
            rows.append(Text(f"{self._state} …", style="yellow"))
        rows.extend(self._last_line())

        return Group(*rows)

    def _last_line(self) -> list[Text]:
        """Return the line below the bars: a question, a notice or the keys."""
        if self.prompt is not None and (text := self.prompt.question or self.prompt.notice):
            style = "bold yellow" if self.prompt.question else "yellow"
            return [Text(clean(text), style=style)]
        return [Text(self.hint, style="dim")] if self.hint else []


def _has_keyboard() -> bool:
    """Return whether this process may read keys: a process in the background would be stopped."""
    if sys.stdin is None or not sys.stdin.isatty():
        return False
    return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()


def _row(job: JobView, now: datetime, bar_width: int) -> list[RenderableType]:
    style = style_of(job.state)
    percentage = None if job.replaying else job.percentage
    known = percentage is not None
    running = job.state == "started"
    bar = ProgressBar(
        total=100,
        completed=percentage or 0,
        width=bar_width,
        pulse=running and not known,
        complete_style=style,
        finished_style=style,
        pulse_style=style,
    )
    return [
        symbol_of(job.state),
        Text(job.name),
        bar,
        Text(f"{percentage:3.0f}%" if percentage is not None else "   ?", style=style),
        Text("?" if (elapsed := job.elapsed(now)) is None else duration(elapsed), style="dim"),
        _doing(job),
    ]


def _doing(job: JobView) -> Text:
    if job.state != "started":
        known = job.state == "retrying" and job.attempt is not None
        again = f", attempt {job.attempt}" if known else ""
        shown = job.error if job.state == "error" and job.error else job.state
        return Text(f"{shown}{again}", style=style_of(job.state))
    parts = [job.stage, job.message]
    doing = ": ".join(part for part in parts if part)
    pace = []
    if job.rate is not None:
        pace.append(f"{job.rate:,.1f}/s" if job.rate < 100 else f"{job.rate:,.0f}/s")
    if job.eta is not None and job.eta > 0:
        pace.append(f"{duration(timedelta(seconds=job.eta))} left")
    return Text.assemble((", ".join(pace), "dim"), "  " if pace else "", doing)


def describe(job: JobView, event: JobEvent | JobGap, name_width: int = 0) -> str | None:
    """Return an event as a line with rich's markup; None for an event that only bars show.

    Args:
        job: the job of the event.
        event: the event, with cleaned texts.
        name_width: the width of the column of names, in characters.
    """
    match event:
        case JobLog():
            style = LEVEL_STYLES.get(event.level, UNKNOWN_STYLE)
            late = "" if event.attempt is UNSET else f"(attempt {event.attempt}) "
            text = f"[{style}]{escape(event.level):<8} {late}{escape(event.message)}[/]"
        case JobComplete():
            result = clean(msgspec.json.encode(event.result).decode())
            shown = result if len(result) <= RESULT_LENGTH else result[: RESULT_LENGTH - 1] + "…"
            text = f"[green]✔ complete[/] {escape(shown)}"
        case JobError(state="cancelled"):
            text = f"[dim]⏹ {escape(event.reason)}{_by(event)}[/] {escape(event.message)}"
        case JobError():
            reason = "" if event.reason == "failure" else f" ({escape(event.reason)})"
            text = f"[red]✖ {escape(event.error)}{reason}[/] {escape(event.message)}"
        case JobStatus(status="retrying"):
            cause = _cause(event) or "the task is retried"
            text = f"[yellow]↻ attempt {event.attempt} is due[/]: {cause}"
        case JobStatus(status="stalled"):
            text = "[yellow]⏸ stalled: the worker does not renew its lease[/]"
        case JobStatus(status="cancelling"):
            cause = f": {escape(event.message)}" if isinstance(event.message, str) else ""
            text = f"[yellow]⏹ cancelling{_by(event)}[/]{cause}"
        case JobStatus() if event.status not in RUN_STATUSES:
            cause = _cause(event)
            text = f"{UNKNOWN_SYMBOL} {escape(event.status)}{f': {cause}' if cause else ''}"
        case JobGap():
            text = (
                "[yellow]… log lines are missing here: the server keeps a limited number of lines"
                " for each job (JOBCAST_HISTORY_SIZE)[/]"
            )
        case _:
            return None
    at = "        "
    if isinstance(event, JobEvent):
        at = event.timestamp.astimezone().strftime("%H:%M:%S")
    return f"[dim]{at}[/] [bold]{escape(job.name):<{name_width}}[/] {text}"


def _by(event: JobStatus | JobError) -> str:
    return f", by {escape(event.by)}" if isinstance(event.by, str) else ""


def _cause(status: JobStatus) -> str:
    known = [part for part in (status.error, status.message) if isinstance(part, str) and part]
    return escape(": ".join(known))
