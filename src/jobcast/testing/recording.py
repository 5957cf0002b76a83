"""Recorded events of jobs."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from typing import Any, TypeVar

from jobcast.events import (
    NO_INFO,
    JobComplete,
    JobError,
    JobEvent,
    JobInfo,
    JobLog,
    JobProgress,
    JobStatus,
    info_of,
)

E = TypeVar("E", bound=JobEvent)


class Recording:
    """Recorded events, in the order in which the jobs reported them."""

    def __init__(self, events: Iterable[JobEvent]) -> None:
        self._events = list(events)

    @property
    def events(self) -> list[JobEvent]:
        """All events."""
        return list(self._events)

    @property
    def statuses(self) -> list[str]:
        """The statuses: ``queued``, ``started``, ``retrying``."""
        return [event.status for event in self._of(JobStatus)]

    @property
    def title(self) -> str | None:
        """The latest title; None if there is none."""
        return self._info.title

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags, in the order in which the sender, the task's class and the task added them."""
        return self._info.tags

    @property
    def progress(self) -> list[JobProgress]:
        """The progress events, with ``percentage``, ``message``, ``current``, ``total`` etc."""
        return self._of(JobProgress)

    @property
    def logs(self) -> list[JobLog]:
        """The log lines, with ``level`` and ``message``."""
        return self._of(JobLog)

    @property
    def ending(self) -> JobComplete | JobError | None:
        """The latest terminal event; None if no job has ended."""
        endings = [event for event in self.events if isinstance(event, JobComplete | JobError)]
        return endings[-1] if endings else None

    @property
    def result(self) -> Any:
        """The result that followers of the job see.

        Raises:
            AssertionError: the job has failed, or has not ended.
        """
        match self.ending:
            case JobComplete(result=result):
                return result
            case JobError(error=error, message=message, reason=reason):
                raise AssertionError(f"the job failed ({reason}): {error}: {message}")
        raise AssertionError(f"no job has ended; {self.summary}")

    @property
    def error(self) -> JobError:
        """The error that followers of the job see, with ``error``, ``message`` and ``reason``.

        Raises:
            AssertionError: the job is complete, or has not ended.
        """
        match self.ending:
            case JobError() as failed:
                return failed
            case JobComplete(result=result):
                raise AssertionError(f"the job is complete, with the result {result!r}")
        raise AssertionError(f"no job has ended; {self.summary}")

    @property
    def summary(self) -> str:
        """A description of the events, for failed assertions."""
        return f"recorded events: {', '.join(event.name for event in self.events) or 'none'}"

    @property
    def _info(self) -> JobInfo:
        return reduce(JobInfo.updated, map(info_of, self.events), NO_INFO)

    def _of(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]
