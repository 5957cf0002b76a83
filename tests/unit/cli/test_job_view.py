from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from msgspec import structs
from rich.text import Text

from jobcast.cli.appearance import SYMBOLS, duration
from jobcast.cli.job_view import NAME_LENGTH, JobView
from jobcast.cli.watch import _doing, _row, describe
from jobcast.events import (
    JobComplete,
    JobError,
    JobEvent,
    JobGap,
    JobLog,
    JobProgress,
    JobStatus,
    State,
)

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def watched(*events: JobEvent) -> JobView:
    job = JobView(job_id="a")
    for event in events:
        job.apply(event)
    return job


STARTED = JobStatus(job_id="a", timestamp=at(0), status="started", task="shop.convert", attempt=1)


def test_view_follows_the_events() -> None:
    job = watched(
        STARTED,
        JobProgress(
            job_id="a", percentage=40, message="reading", stage="one", rate=2.5, eta=12.0,
            current=4, total=10,
        ),
    )  # fmt: skip
    assert (job.name, job.state, job.has_ended) == ("convert", "started", False)
    assert (job.percentage, job.message, job.stage, job.rate, job.eta) == (
        40, "reading", "one", 2.5, 12.0,
    )  # fmt: skip
    assert job.elapsed(at(7)) == timedelta(seconds=7)
    job.apply(JobComplete(job_id="a", timestamp=at(9), result=1))
    assert (job.state, job.percentage, job.has_ended, job.eta) == ("complete", 100, True, None)
    assert job.elapsed(at(60)) == timedelta(seconds=9)


def test_retry_resets_progress_and_keeps_elapsed_time() -> None:
    job = watched(
        STARTED,
        JobProgress(job_id="a", percentage=80, message="x"),
        JobStatus(job_id="a", status="retrying", attempt=2, error="OSError"),
    )
    assert (job.state, job.attempt) == ("retrying", 2)
    job.apply(JobStatus(job_id="a", timestamp=at(30), status="started", attempt=2))
    assert (job.state, job.percentage, job.message) == ("started", 0, None)
    assert job.elapsed(at(40)) == timedelta(seconds=40)


def test_stalled_run_resumes_with_its_progress() -> None:
    job = watched(
        structs.replace(STARTED, run=1),
        JobProgress(job_id="a", percentage=80, message="x"),
        JobStatus(job_id="a", status="stalled"),
    )
    assert (job.state, job.percentage) == ("stalled", 80)
    job.apply(structs.replace(STARTED, run=1))
    assert (job.state, job.percentage, job.message) == ("started", 80, "x")
    job.apply(structs.replace(STARTED, run=2))
    assert (job.state, job.percentage, job.message) == ("started", 0, None)


def test_fields_missing_from_the_history_are_unknown() -> None:
    job = JobView(job_id="a")
    assert job.elapsed(at(5)) == timedelta(0)
    line = JobLog(job_id="a", level="info", message="x")
    job.apply(line, "retrying")
    assert (job.state, job.attempt, job.elapsed(at(5))) == ("retrying", None, None)
    assert _doing(job).plain == "retrying"
    job.apply(line, "started")
    assert (job.state, job.elapsed(at(5))) == ("started", None)
    # The state of an event takes precedence: the client's state may already be newer.
    job.apply(JobError(job_id="a", error="E", message="", reason="failure"), "started")
    assert job.state == "error"


@pytest.mark.parametrize("ended", ["complete", "error"])
def test_replay_of_an_ended_job_shows_no_time_or_progress(
    ended: State,
) -> None:
    job = JobView(job_id="a")
    for event in (STARTED, JobProgress(job_id="a", percentage=40, message="x")):
        job.apply(event, ended)
        assert (job.state, job.elapsed(at(60))) == (ended, None)
        shown = [cell.plain for cell in _row(job, at(60), 20) if isinstance(cell, Text)]
        assert shown == [SYMBOLS[ended], "convert", "   ?", "?", ended]
    job.apply(JobComplete(job_id="a", timestamp=at(9), result=1), "complete")
    assert (job.state, job.percentage) == ("complete", 100)
    assert job.elapsed(at(60)) == timedelta(seconds=9)


def test_unknown_total_has_no_percentage() -> None:
    job = watched(STARTED, JobProgress(job_id="a", percentage=None, current=3))
    assert job.percentage is None


def test_failed_job_keeps_its_percentage() -> None:
    job = watched(
        STARTED,
        JobProgress(job_id="a", percentage=57, message="x"),
        JobError(job_id="a", timestamp=at(3), error="KeyError", message="k", reason="failure"),
    )
    assert (job.state, job.percentage, job.error) == ("error", 57, "KeyError")


def test_long_names_are_truncated() -> None:
    job = JobView(job_id="x" * 100)
    assert len(job.name) == NAME_LENGTH


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0:00"), (7.4, "0:07"), (750, "12:30"), (3900, "1:05:00")]
)
def test_duration_is_formatted(seconds: float, shown: str) -> None:
    assert duration(timedelta(seconds=seconds)) == shown


def test_markup_in_events_is_escaped() -> None:
    job = watched(STARTED)
    event = JobLog(job_id="a", level="info", message="[red]not markup[/]")
    line = describe(job, event)
    assert line is not None
    assert r"\[red]not markup\[/]" in line


def test_describe_returns_none_for_started_and_progress() -> None:
    job = watched(STARTED)
    assert describe(job, STARTED) is None
    assert describe(job, JobProgress(job_id="a", percentage=1, message="x")) is None


@pytest.mark.parametrize(
    ("event", "shown"),
    [
        (JobStatus(job_id="a", status="pausing"), "• pausing"),
        (JobStatus(job_id="a", status="pausing", message="by ada"), "• pausing: by ada"),
        (JobStatus(job_id="a", status="[b]"), r"• \[b]"),
        (JobLog(job_id="a", level="notice", message="m"), "[default]notice   m[/]"),
        (JobLog(job_id="a", level="[b]", message="m"), r"[default]\[b]     m[/]"),
        (
            JobError(job_id="a", error="E", message="m", reason="replaced"),
            "[red]✖ E (replaced)[/] m",
        ),
        (JobError(job_id="a", error="E", message="m", reason="[b]"), r"[red]✖ E (\[b])[/] m"),
    ],
)
def test_unknown_values_are_shown_as_they_are(event: JobEvent, shown: str) -> None:
    line = describe(watched(STARTED), event)
    assert line is not None
    assert line.endswith(f" {shown}")


def test_job_with_an_unknown_status_has_not_ended() -> None:
    job = watched(STARTED, JobStatus(job_id="a", status="waiting_for_parent"))
    assert (job.state, job.has_ended) == ("waiting_for_parent", False)
    shown = [cell.plain for cell in _row(job, at(60), 20) if isinstance(cell, Text)]
    assert (shown[0], shown[-1]) == ("•", "waiting_for_parent")


def test_job_ends_with_an_unknown_reason() -> None:
    job = watched(STARTED, JobError(job_id="a", error="E", message="", reason="replaced"))
    assert (job.state, job.has_ended) == ("error", True)


def test_gap_is_one_line() -> None:
    line = describe(watched(STARTED), JobGap(job_id="a", after=0, before=9))
    assert line is not None
    assert "log lines are missing here" in line
    assert "JOBCAST_HISTORY_SIZE" in line
