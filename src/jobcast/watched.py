"""What a terminal shows of a job: its state, folded from its events."""

from __future__ import annotations

from datetime import datetime, timedelta

from msgspec import UNSET, Struct

from jobcast.events import (
    TERMINAL,
    TERMINAL_STATES,
    JobComplete,
    JobError,
    JobEvent,
    JobProgress,
    JobStatus,
    State,
)

NAME_LENGTH = 24  # characters


class Watched(Struct, kw_only=True):
    """A job as it is now."""

    job_id: str
    state: State = "pending"
    task: str | None = None
    attempt: int | None = None
    run: int | None = None  # the number of the one that started last
    percentage: float | None = 0.0
    message: str | None = None
    stage: str | None = None
    rate: float | None = None  # items a second
    eta: float | None = None  # seconds left
    error: str | None = None
    began: datetime | None = None
    ended: datetime | None = None

    @property
    def name(self) -> str:
        """The task's name where it is known, else the id; short enough for a column."""
        name = self.job_id if self.task is None else self.task.rpartition(".")[2]
        return name if len(name) <= NAME_LENGTH else name[: NAME_LENGTH - 1] + "…"

    @property
    def over(self) -> bool:
        """Whether the job has ended."""
        return self.state in TERMINAL_STATES

    @property
    def replaying(self) -> bool:
        """Whether the job has ended, and its end is still to come among the events."""
        return self.over and self.ended is None

    def elapsed(self, now: datetime) -> timedelta | None:
        """Since it began; None if that is not known."""
        if self.replaying:
            return None
        if self.began is None:
            return timedelta(0) if self.state in ("pending", "queued") else None
        return max(timedelta(0), (self.ended or now) - self.began)

    def see(self, event: JobEvent, state: State | None = None) -> None:
        """Take an event into account.

        Args:
            event: the next one.
            state: that the job is known to be in. The history is bounded: it may have lost the
                event that led to it. If the job has ended, the events before its end are history.
        """
        if state in TERMINAL_STATES and event.kind != TERMINAL:
            self.state = state
        else:
            self.state = event.state or state or self.state
        match event:
            case JobStatus():
                self._see_status(event)
            case JobProgress():
                self.percentage = event.percentage
                self.message = event.message
                self.stage = None if event.stage is UNSET else event.stage
                self.rate = None if event.rate is UNSET else event.rate
                self.eta = None if event.eta is UNSET else event.eta
            case JobComplete():
                self.percentage, self.eta, self.ended = 100.0, None, event.timestamp
            case JobError():
                self.error, self.eta, self.ended = event.error, None, event.timestamp

    def _see_status(self, status: JobStatus) -> None:
        if status.task is not UNSET:
            self.task = status.task
        if status.attempt is not UNSET:
            self.attempt = status.attempt
        run = None if status.run is UNSET else status.run
        lives = run is not None and run == self.run  # it was thought to be lost, and was not
        if status.status == "started" and not lives:
            self.run = run
            self.began = self.began or status.timestamp
            self.percentage, self.message, self.stage = 0.0, None, None
            self.rate = self.eta = self.ended = self.error = None
