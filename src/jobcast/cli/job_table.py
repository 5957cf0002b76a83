"""A table of jobs for a terminal of any width."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Final

from msgspec import Struct, structs
from rich.table import Table
from rich.text import Text

from jobcast.cli.appearance import age, duration, style_of, symbol_of
from jobcast.cli.terminal import clean, clean_struct
from jobcast.feeds import JobSummary


class Column(Struct, frozen=True):
    """A column of a table of jobs.

    Attributes:
        title: its header.
        cell: makes the cell of a job at a time.
        min_terminal: the width of the narrowest terminal that has room for the column.
        ratio: the column's part of the remaining width; None for a column as wide as its cells.
        min_width: characters that the column has at least.
        align_right: whether its cells are right-aligned.
    """

    title: str
    cell: Callable[[JobSummary, datetime], Text]
    min_terminal: int = 0
    ratio: int | None = None
    min_width: int | None = None
    align_right: bool = False


def _symbol(job: JobSummary, _: datetime) -> Text:
    return symbol_of(job.status)


def _status(job: JobSummary, _: datetime) -> Text:
    return Text(job.status, style=style_of(job.status))


def _id(job: JobSummary, _: datetime) -> Text:
    return Text(job.job_id)


def _name(job: JobSummary, _: datetime) -> Text:
    return Text(name_of(job), style="bold")


def _done(job: JobSummary, _: datetime) -> Text:
    if job.status == "complete":
        return Text("100%", style=style_of(job.status))
    known = isinstance(job.percentage, float)
    return Text(f"{job.percentage:.0f}%" if known else "", style=style_of(job.status))


def _age(job: JobSummary, now: datetime) -> Text:
    return Text(age(now - job.created_at), style="dim")


def _time(job: JobSummary, now: datetime) -> Text:
    if not isinstance(job.started_at, datetime):
        return Text()
    end = job.ended_at if isinstance(job.ended_at, datetime) else now
    return Text(duration(max(end - job.started_at, timedelta(0))), style="dim")


def _message(job: JobSummary, _: datetime) -> Text:
    return Text(message_of(job), style="red" if job.status == "error" else "")


def _owner(job: JobSummary, _: datetime) -> Text:
    return Text(job.owner or "")


def _tags(job: JobSummary, _: datetime) -> Text:
    return Text(" ".join(job.tags), style="dim")


def name_of(job: JobSummary) -> str:
    """Return the title of a job, else the name of its task, else its id."""
    return job.title or (job.task or "").rpartition(".")[2] or job.job_id


def message_of(job: JobSummary) -> str:
    """Return the latest message of a job that is not complete, after the reason of a failure."""
    if job.status == "complete":
        return ""
    reason = job.reason if job.reason and job.reason not in ("failure", job.status) else ""
    attempt = f"attempt {job.attempt}" if job.status == "retrying" and job.attempt else ""
    return ": ".join(part for part in (reason, attempt, job.message or "") if part)


LIST_COLUMNS: Final = (
    Column("", _symbol),
    Column("STATE", _status, min_terminal=90),
    Column("JOB", _id),
    Column("NAME", _name, ratio=3, min_width=8),
    Column("DONE", _done, align_right=True),
    Column("AGE", _age, align_right=True),
    Column("TIME", _time, min_terminal=90, align_right=True),
    Column("OWNER", _owner, min_terminal=130),
    Column("TAGS", _tags, min_terminal=150, ratio=1),
    Column("MESSAGE", _message, min_terminal=110, ratio=3),
)
LIVE_COLUMNS: Final = (
    Column("", _symbol),
    Column("STATE", _status, min_terminal=90, min_width=8),
    Column("NAME", _name, ratio=3, min_width=12),
    Column("DONE", _done, min_width=4, align_right=True),
    Column("TIME", _time, min_width=5, align_right=True),
    Column("AGE", _age, min_width=3, align_right=True),
    Column("OWNER", _owner, min_terminal=100),
    Column("TAGS", _tags, min_terminal=140, ratio=2),
    Column("MESSAGE", _message, ratio=4),
)


def job_table(
    jobs: Iterable[JobSummary],
    columns: Iterable[Column],
    width: int,
    now: datetime,
    *,
    expand: bool = True,
    selected: str | None = None,
) -> Table:
    """Return a table of jobs.

    Args:
        jobs: the jobs, in display order.
        columns: the columns; those that a terminal of this width has no room for are left out.
        width: the width of the terminal, in characters.
        now: the time, for ages and durations.
        expand: whether the table is as wide as the terminal, else as its cells.
        selected: the id of the job to highlight.
    """
    shown = [column for column in columns if column.min_terminal <= width]
    table = Table(box=None, expand=expand, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    for column in shown:
        table.add_column(
            column.title, no_wrap=True, overflow="ellipsis", ratio=column.ratio if expand else None,
            min_width=column.min_width, justify="right" if column.align_right else "left",
        )  # fmt: skip
    for job in map(clean_summary, jobs):
        cells = [column.cell(job, now) for column in shown]
        table.add_row(*cells, style="reverse" if job.job_id == selected else None)
    return table


def clean_summary(job: JobSummary) -> JobSummary:
    """Return a summary whose texts are safe to print."""
    return structs.replace(clean_struct(job), tags=tuple(map(clean, job.tags)))
