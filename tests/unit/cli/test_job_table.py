from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from jobcast.cli.appearance import UNKNOWN_SYMBOL, style_of, symbol_of
from jobcast.cli.job_table import LIST_COLUMNS, LIVE_COLUMNS, job_table, message_of, name_of
from jobcast.cli.top import fitting
from jobcast.feeds import JobSummary

NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)
ID = "7b8444d1-8e31-7041-87dd-aeb784b28054"
HOSTILE = "\x1b]0;owned\x07\x9b2J\u202e\x00\r\nforged"


def job(status: str = "started", **fields: Any) -> JobSummary:
    values = {"job_id": ID, "created_at": NOON - timedelta(minutes=5), **fields}
    return JobSummary(epoch="e", seq=1, status=status, **values)


def drawn(*jobs: JobSummary, width: int = 110, columns: Any = LIST_COLUMNS) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    with console.capture() as capture:
        console.print(job_table(jobs, columns, width, NOON))
    return capture.get().splitlines()


LONG = job(
    title="Export of the orders of March 2026 for the tax office", tags=("project:7", "tax"),
    owner="alice", percentage=43.4, message="row 4340 of 10,000, " * 5,
    started_at=NOON - timedelta(seconds=90),
)  # fmt: skip


@pytest.mark.parametrize("width", [40, 62, 80, 110, 160, 240])
@pytest.mark.parametrize("columns", [LIST_COLUMNS, LIVE_COLUMNS])
def test_table_fits_the_terminal(width: int, columns: Any) -> None:
    lines = drawn(LONG, job("queued"), width=width, columns=columns)
    assert len(lines) == 3
    assert all(cell_len(line) <= width for line in lines)


@pytest.mark.parametrize("width", [62, 80, 110, 160])
def test_job_id_is_never_truncated_in_a_list(width: int) -> None:
    assert ID in drawn(LONG, width=width)[1]


def test_completed_job_has_no_message_of_its_work() -> None:
    assert message_of(job("started", message="importing rows")) == "importing rows"
    assert message_of(job("complete", message="importing rows")) == ""


def test_only_whole_hints_are_shown() -> None:
    hints = ["Enter follow", "q quit", "↑↓ select"]
    assert fitting(hints, 80) == "Enter follow  q quit  ↑↓ select"
    assert fitting(hints, 30) == "Enter follow  q quit"
    assert fitting(hints, 5) == "Enter follow"


@pytest.mark.parametrize(("state", "style"), [("cancelling", "cyan"), ("cancelled", "dim")])
def test_cancellation_does_not_look_like_a_failure(state: str, style: str) -> None:
    assert style_of(state) == style
    assert symbol_of(state).plain not in {symbol_of("error").plain, UNKNOWN_SYMBOL}


def test_row_has_state_progress_age_and_duration() -> None:
    line = drawn(LONG)[1]
    for text in ("▸", "started", "Export of", "43%", "5m", "1:30", "row 4340"):
        assert text in line
    ended = job(
        "complete", started_at=NOON - timedelta(hours=2), ended_at=NOON - timedelta(hours=1)
    )
    assert "100%" in drawn(ended)[1]
    assert "1:00:00" in drawn(ended)[1]


def test_unknown_state_is_shown_as_it_is() -> None:
    assert "• frozen" in drawn(job("frozen"))[1]


def test_clock_that_is_behind_gives_no_negative_times() -> None:
    later = NOON + timedelta(minutes=1)
    line = drawn(job(created_at=later, started_at=later))[1]
    assert "0s" in line
    assert "0:00" in line
    assert "-1" not in line


def test_name_is_the_title_or_the_task_or_the_id() -> None:
    assert name_of(job(title="March", task="shop.export")) == "March"
    assert name_of(job(task="shop.export")) == "export"
    assert name_of(job()) == ID


def test_message_begins_with_the_reason_of_a_failure() -> None:
    assert message_of(job("error", reason="time_limit", message="too slow")) == (
        "time_limit: too slow"
    )
    assert message_of(job("error", reason="failure", message="no row")) == "no row"
    assert message_of(job("retrying", attempt=2, message="later")) == "attempt 2: later"
    assert message_of(job()) == ""


@pytest.mark.parametrize("columns", [LIST_COLUMNS, LIVE_COLUMNS])
def test_text_of_a_job_cannot_control_the_terminal(columns: Any) -> None:
    fields = dict.fromkeys(("title", "task", "owner", "message", "worker", "queue"), HOSTILE)
    lines = drawn(job(HOSTILE[:64], tags=(HOSTILE,), **fields), width=240, columns=columns)
    assert len(lines) == 2
    assert all(line.isprintable() for line in lines)
    assert "owned" not in lines[1]
