"""A list of jobs as a person looks at it: filtered, sorted, and with one job selected."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from msgspec import Struct

from jobcast.cli.job_table import message_of, name_of
from jobcast.feeds import RUNNING, FeedFilter, JobSummary

STUCK_FIRST: Final = ("stalled", "retrying", "cancelling", "started", "queued", "pending")
WAITING_STATES: Final = ("pending", "queued")
#: The filters, each with the states that it shows; None for all.
SHOWN: Final[Mapping[str, tuple[str, ...] | None]] = {
    "all": None, "running": (RUNNING,), "waiting": WAITING_STATES, "failed": ("error",),
    "complete": ("complete",), "cancelled": ("cancelled",),
}  # fmt: skip


class Order(Struct, frozen=True):
    """An order of jobs, with the key of the first ones lowest."""

    name: str
    key: Callable[[JobSummary], Any]


def _stuck(job: JobSummary) -> int:
    return STUCK_FIRST.index(job.status) if job.status in STUCK_FIRST else len(STUCK_FIRST)


def _least_done(job: JobSummary) -> float:
    if job.status == "complete":
        return 100.0
    return job.percentage if isinstance(job.percentage, float) else 0.0


def _longest(job: JobSummary) -> tuple[int, timedelta | datetime]:
    """Return a key that puts running jobs first, those that began earliest, then the longest."""
    if not isinstance(job.started_at, datetime):
        return 2, timedelta(0)
    if isinstance(job.ended_at, datetime):
        return 1, job.started_at - job.ended_at
    return 0, job.started_at


#: The list of a feed has the newest jobs first, and sorting is stable.
ORDERS: Final = (
    Order("newest", lambda _: 0),
    Order("stuck", _stuck),
    Order("least done", _least_done),
    Order("longest", _longest),
    Order("name", lambda job: name_of(job).casefold()),
)


class JobList:
    """The jobs of a feed in the chosen order, and a window of them around the selected one."""

    def __init__(self) -> None:
        self.jobs: Sequence[JobSummary] = ()
        self.order = ORDERS[0]
        self.is_reversed = False
        self.shown = "all"
        self.search = ""
        self._rows: list[JobSummary] = []
        self._selected: str | None = None
        self._index = 0  # of the selected job
        self._top = 0  # the index of the first job of the window

    @property
    def selected(self) -> JobSummary | None:
        """The selected job; None if no job is shown."""
        return self._rows[self._index] if self._rows else None

    @property
    def matching(self) -> int:
        """The number of jobs that the filter and the search match."""
        return len(self._rows)

    def counts(self) -> dict[str, int]:
        """Return the number of jobs that each filter shows."""
        states = Counter(map(_filter_of, self.jobs))
        return {name: states[name] for name in SHOWN if name != "all"}

    def update(self, jobs: Sequence[JobSummary]) -> None:
        """Take over the present jobs, the newest first. The selected job stays selected."""
        self.jobs = jobs
        self._arrange()

    def next_order(self) -> None:
        self._start_over(order=_next(ORDERS, self.order))

    def reverse(self) -> None:
        self._start_over(is_reversed=not self.is_reversed)

    def next_filter(self) -> None:
        self._start_over(shown=_next(tuple(SHOWN), self.shown))

    def find(self, text: str) -> None:
        """Show only jobs with a text in their id, name, task, owner, tags or message."""
        self._start_over(search=text)

    def show_all(self) -> None:
        """Clear the filter and the search."""
        self._start_over(shown="all", search="")

    def move(self, rows: int) -> None:
        """Select the job so many rows below; above, if the number is negative."""
        self._index = max(0, min(self._index + rows, len(self._rows) - 1))
        self._selected = self.selected.job_id if self.selected else None

    def window(self, height: int) -> list[JobSummary]:
        """Return the jobs of a window of so many rows, with the selected job in it."""
        self._top = max(self._index - height + 1, min(self._top, self._index))
        self._top = max(0, min(self._top, len(self._rows) - height))
        return self._rows[self._top : self._top + height]

    def _start_over(self, **choices: Any) -> None:
        """Change how the list is shown, and select its first job."""
        for name, value in choices.items():
            setattr(self, name, value)
        self._selected, self._index = None, 0
        self._arrange()

    def _arrange(self) -> None:
        rows = sorted(filter(self._matches, self.jobs), key=self.order.key)
        self._rows = rows[::-1] if self.is_reversed else rows
        places = {job.job_id: index for index, job in enumerate(self._rows)}
        at = places.get(self._selected or "", self._index if self._selected else 0)
        self._index = max(0, min(at, len(self._rows) - 1))

    def _matches(self, job: JobSummary) -> bool:
        states = SHOWN[self.shown]
        if states is not None and not FeedFilter(status=states).matches(job):
            return False
        return not self.search or self.search.casefold() in _text_of(job).casefold()


def _filter_of(job: JobSummary) -> str:
    if job.status in WAITING_STATES:
        return "waiting"
    if job.status in ("complete", "cancelled"):
        return job.status
    return "failed" if job.has_ended else "running"


def _text_of(job: JobSummary) -> str:
    return " ".join((
        job.job_id, name_of(job), job.task or "", job.owner or "", *job.tags, message_of(job)
    ))  # fmt: skip


def _next(values: Sequence[Any], value: Any) -> Any:
    return values[(values.index(value) + 1) % len(values)]
