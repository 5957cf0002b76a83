"""The state of a job, computed from its events, for display in a terminal."""

from __future__ import annotations

from datetime import datetime, timedelta

from msgspec import UNSET, Struct

from jobcast.events import (
    NO_INFO,
    TERMINAL,
    TERMINAL_STATES,
    JobComplete,
    JobError,
    JobEvent,
    JobInfo,
    JobProgress,
    JobStatus,
)

NAME_LENGTH = 24  # characters


class JobView(Struct, kw_only=True):
    """The current state of a job."""

    job_id: str
    state: str = "pending"
    task: str | None = None
    title: str | None = None
    attempt: int | None = None
    run: int | None = None  # the number of the latest run
    percentage: float | None = 0.0
    message: str | None = None
    stage: str | None = None
    rate: float | None = None  # items a second
    eta: float | None = None  # seconds left
    error: str | None = None
    cancellable: bool = True
    began: datetime | None = None
    ended: datetime | None = None

    @property
    def name(self) -> str:
        """The title, else the task's name, else the job id; truncated to ``NAME_LENGTH``."""
        name = self.title or (self.job_id if self.task is None else self.task.rpartition(".")[2])
        return name if len(name) <= NAME_LENGTH else name[: NAME_LENGTH - 1] + "…"

    @property
    def has_ended(self) -> bool:
        """Whether the job has ended."""
        return self.state in TERMINAL_STATES

    @property
    def can_be_cancelled(self) -> bool:
        """Whether a request can cancel the job now."""
        is_known = self.state not in ("pending", "cancelling")
        return self.cancellable and is_known and not self.has_ended

    @property
    def replaying(self) -> bool:
        """Whether the job has ended and its terminal event is still to be replayed."""
        return self.has_ended and self.ended is None

    def elapsed(self, now: datetime) -> timedelta | None:
        """Return the time since the job began; None if unknown."""
        if self.replaying:
            return None
        if self.began is None:
            return timedelta(0) if self.state in ("pending", "queued") else None
        return max(timedelta(0), (self.ended or now) - self.began)

    def apply(self, event: JobEvent, state: str | None = None, info: JobInfo = NO_INFO) -> None:
        """Update the view with an event.

        Args:
            event: the job's next event.
            state: the job's state according to the client. The bounded history may lack the event
                that led to it. If the state is terminal, events before the terminal event are a
                replay and do not change it.
            info: the job's description according to the client.
        """
        self.title, self.cancellable = info.title, info.cancellable
        if state in TERMINAL_STATES and event.kind != TERMINAL:
            self.state = state
        else:
            self.state = event.state or state or self.state
        match event:
            case JobStatus():
                self._apply_status(event)
            case JobProgress():
                self.percentage = event.percentage
                self.message = None if event.message is UNSET else event.message
                self.stage = None if event.stage is UNSET else event.stage
                self.rate = None if event.rate is UNSET else event.rate
                self.eta = None if event.eta is UNSET else event.eta
            case JobComplete():
                self.percentage, self.eta, self.ended = 100.0, None, event.timestamp
            case JobError():
                self.error, self.eta, self.ended = event.error, None, event.timestamp

    def _apply_status(self, status: JobStatus) -> None:
        if status.task is not UNSET:
            self.task = status.task
        if status.attempt is not UNSET:
            self.attempt = status.attempt
        run = None if status.run is UNSET else status.run
        resumed = run is not None and run == self.run  # the run was stalled and is alive again
        if status.status == "started" and not resumed:
            self.run = run
            self.began = self.began or status.timestamp
            self.percentage, self.message, self.stage = 0.0, None, None
            self.rate = self.eta = self.ended = self.error = None
