"""``jobcast top``: a live list of jobs in a terminal."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from jobcast.aio import first_of
from jobcast.cli.appearance import Terminal
from jobcast.cli.cancel_prompt import CancelPrompt, read_keys
from jobcast.cli.feed_options import FeedOptions
from jobcast.cli.job_list import JobList
from jobcast.cli.job_table import LIVE_COLUMNS, job_table, name_of
from jobcast.cli.job_view import JobView
from jobcast.cli.keyboard import Keyboard
from jobcast.cli.terminal import clean
from jobcast.cli.watch import Display, follow_jobs, protect_terminal
from jobcast.client import ConnectionState, Feed, JobClient, Token
from jobcast.errors import JobcastError, JoinRefused

REFRESH_INTERVAL: Final = 0.25  # seconds
FRAME_LINES: Final = 4  # lines of the screen that are not jobs: title, header, status, keys
BACK_KEYS: Final = frozenset({"escape", "q"})
JOB_KEYS: Final = "c cancel  Esc back to the list"


class NoTerminal(JobcastError):
    """``jobcast top`` was started without a terminal."""

    def __init__(self) -> None:
        super().__init__(
            "top needs a terminal for its display and its keys: use `jobcast ls` in scripts and"
            " pipes"
        )


async def top(url: str, token: Token, wanted: FeedOptions, *, namespace: str = "/") -> None:
    """Show the jobs of a feed until the user quits.

    Args:
        url: the server's URL.
        token: a token, as for :class:`jobcast.client.JobClient`.
        wanted: the feed, the filter and the limit.
        namespace: the Socket.IO namespace that the server attaches jobcast to.

    Raises:
        NoTerminal: standard input or output is not a terminal.
        ClientError: the server cannot be reached, or refuses the request.
        ValueError: the filter, the URL or the namespace is not valid.
    """
    console = Terminal()
    if not (sys.stdin.isatty() and sys.stdout.isatty()) or console.is_dumb_terminal:
        raise NoTerminal
    protect_terminal()
    connection = ConnectionView()
    async with (
        JobClient(url, token, on_state=connection.enter, namespace=namespace) as client,
        client.feed(**wanted.arguments) as feed,
    ):
        with Keyboard(sys.stdin.fileno()) as keyboard:
            await Top(client, feed, connection, keyboard, console).run()


class ConnectionView:
    """The state of the connection, for the screen that is shown."""

    def __init__(self) -> None:
        self.state: ConnectionState = "connecting"
        self.display: Display | None = None  # of the followed job

    def enter(self, state: ConnectionState) -> None:
        self.state = state
        if self.display is not None:
            self.display.connection(state)


class Top:
    """The display: the list, or one job that the user has opened."""

    def __init__(
        self, client: JobClient, feed: Feed, connection: ConnectionView, keyboard: Keyboard,
        console: Console,
    ) -> None:  # fmt: skip
        self._client = client
        self._feed = feed
        self._connection = connection
        self._keyboard = keyboard
        self._console = console
        self._list = JobList()
        self._is_typing = False  # a search text
        self._notice = ""
        self._prompt = CancelPrompt(client)
        self._opened: str | None = None  # the job to follow next

    async def run(self) -> None:
        """Show the list and the jobs that the user opens, until the user quits.

        Raises:
            ClientError: the connection or the right to the feed has ended.
        """
        try:
            await first_of(self._run_screens(), self._follow_feed())
        finally:
            await self._prompt.close()

    async def _run_screens(self) -> None:
        while True:
            await self._show_list()
            if self._opened is None:
                return
            await self._show_job(self._opened)

    async def _follow_feed(self) -> None:
        """Take the changes of the feed: the list reads the feed itself."""
        async for _ in self._feed:
            pass

    # --- the list ---------------------------------------------------------------------------------

    async def _show_list(self) -> None:
        self._opened = None
        live = Live(
            get_renderable=self._draw, console=self._console, screen=True, auto_refresh=False
        )
        with live:
            await first_of(self._refresh(live), self._handle_keys(live))

    async def _refresh(self, live: Live) -> None:
        while True:
            live.refresh()
            await asyncio.sleep(REFRESH_INTERVAL)

    async def _handle_keys(self, live: Live) -> None:
        """Apply keys until one of them ends the list: it quits, or it opens a job."""
        while True:
            key = await self._keyboard.key()
            self._notice = ""
            if self._prompt.question:
                self._prompt.answer(key)
            elif self._is_typing:
                self._type(key)
            elif key == "q":
                return
            elif key == "enter" and self._list.selected is not None:
                self._opened = self._list.selected.job_id
                return
            else:
                self._act(key)
            live.refresh()

    def _type(self, key: str) -> None:
        """Edit the search text."""
        text = self._list.search
        if key == "enter":
            self._is_typing = False
        elif key == "escape":
            self._is_typing = False
            self._list.find("")
        elif key == "backspace":
            self._list.find(text[:-1])
        elif len(key) == 1:
            self._list.find(text + key)

    def _act(self, key: str) -> None:
        page = self._height
        steps = {
            "up": -1, "k": -1, "down": 1, "j": 1, "page up": -page, "page down": page,
            "home": -len(self._list.jobs), "g": -len(self._list.jobs),
            "end": len(self._list.jobs), "G": len(self._list.jobs),
        }  # fmt: skip
        if key in steps:
            self._list.move(steps[key])
        elif key == "s":
            self._list.next_order()
        elif key == "r":
            self._list.reverse()
        elif key == "f":
            self._list.next_filter()
        elif key == "/":
            self._is_typing = True
        elif key == "c":
            self._ask_to_cancel()
        elif key == "escape":
            self._list.show_all()

    def _ask_to_cancel(self) -> None:
        job = self._list.selected
        if job is None:
            return
        if job.has_ended:
            self._notice = f"{name_of(job)} has already ended"
        elif job.cancellable is False:
            self._notice = f"{name_of(job)} cannot be cancelled"
        else:
            self._prompt.ask({job.job_id: name_of(job)})

    @property
    def _height(self) -> int:
        """The number of lines for jobs."""
        return max(1, self._console.height - FRAME_LINES)

    def _draw(self) -> RenderableType:
        self._list.update(self._feed.jobs)
        rows = self._list.window(self._height)
        selected = self._list.selected
        table = job_table(
            rows, LIVE_COLUMNS, self._console.width, datetime.now(UTC),
            selected=None if selected is None else selected.job_id,
        )  # fmt: skip
        space = Text("\n" * (self._height - len(rows) - 1)) if len(rows) < self._height else None
        lines = [self._title(), table, space, self._status(), self._keys()]
        return Group(*(line for line in lines if line is not None))

    def _title(self) -> Text:
        counts = self._list.counts()
        total = self._feed.total or 0
        loaded = len(self._list.jobs)
        title = Text.assemble(
            (clean(self._feed.name), "bold"),
            f"  {loaded:,} of {total:,} jobs" if total > loaded else f"  {_jobs(loaded)}",
            no_wrap=True, overflow="ellipsis",
        )  # fmt: skip
        styles = {
            "running": "cyan",
            "waiting": "dim",
            "failed": "red",
            "complete": "green",
            "cancelled": "dim",
        }
        for name, count in counts.items():
            if name == "cancelled" and not count:
                continue
            title.append(f"  {count:,} {name}", style=styles[name] if count else "dim")
        return title

    def _status(self) -> Text:
        """Return the line below the jobs: a problem, the search, or the selected job."""
        selected = self._list.selected
        if self._connection.state in ("connecting", "reconnecting"):
            text, style = f"{self._connection.state} …", "yellow"
        elif self._prompt.question:
            text, style = self._prompt.question, "bold yellow"
        elif self._notice:
            text, style = self._notice, "red"
        elif self._is_typing:
            text, style = f"search: {self._list.search}▏", "bold"
        elif self._prompt.notice:
            text, style = self._prompt.notice, "yellow"
        elif selected is None:
            text, style = "no job matches" if self._list.jobs else "no jobs", "dim"
        else:
            task = f"  {selected.task}" if selected.task else ""
            text, style = f"{selected.job_id}{task}", "dim"
        return Text(clean(text), style=style, no_wrap=True, overflow="ellipsis")

    def _keys(self) -> Text:
        if self._is_typing:
            hints = ["Enter keep the search", "Esc clear it"]
        else:
            order = f"{self._list.order.name}{' ↑' if self._list.is_reversed else ''}"
            search = f"/ {self._list.search}" if self._list.search else "/ search"
            hints = [
                "Enter follow", "c cancel", "q quit", f"s sort: {order}",
                f"f show: {self._list.shown}", search, "r reverse", "↑↓ select",
            ]  # fmt: skip
        text = fitting(map(clean, hints), self._console.width)
        return Text(text, style="dim", no_wrap=True, overflow="ellipsis")

    # --- one job ----------------------------------------------------------------------------------

    async def _show_job(self, job_id: str) -> None:
        """Follow a job as `jobcast watch` does, until the user goes back."""
        display = Display(
            jobs := [JobView(job_id=job_id)],
            self._console,
            hint=f"{job_id}  {JOB_KEYS}",
            prompt=self._prompt,
        )
        self._connection.display = display
        try:
            with self._console.screen(), display.opened():
                await first_of(
                    self._follow(jobs, display),
                    read_keys(self._keyboard, self._prompt, jobs, BACK_KEYS),
                )
        finally:
            self._connection.display = None

    async def _follow(self, jobs: list[JobView], display: Display) -> None:
        """Show the events of a job; return if the server refuses it."""
        display.connection(self._connection.state)
        try:
            await follow_jobs(self._client, jobs, display)
        except ExceptionGroup as group:
            if group.subgroup(JoinRefused) is None:
                raise
            self._notice = f"cannot follow {jobs[0].job_id}: {group.exceptions[0]}"
        else:
            await asyncio.Event().wait()  # the job has ended; its display stays


def fitting(hints: Iterable[str], width: int) -> str:
    """Return the first hints that fit a line, at least one of them."""
    line = ""
    for hint in hints:
        longer = f"{line}  {hint}" if line else hint
        if line and cell_len(longer) > width:
            break
        line = longer
    return line


def _jobs(count: int) -> str:
    return "1 job" if count == 1 else f"{count:,} jobs"
