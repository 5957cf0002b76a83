"""A publisher that also records every event, including each progress that is replaced later."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jobcast.events import NO_INFO, JobEvent, JobInfo
from jobcast.publishing.publisher import Publisher, Reporter, Submitted


class RecordingPublisher(Publisher):
    """A publisher that passes each event to a function before it publishes the event.

    Args:
        record: the function.
        arguments: the arguments of :class:`~jobcast.publishing.publisher.Publisher`.
        named: its keyword arguments.
    """

    def __init__(self, record: Callable[[JobEvent], None], *arguments: Any, **named: Any) -> None:
        self._record = record
        super().__init__(*arguments, **named)

    def mark(self, job: Reporter) -> None:
        progress = job.take_progress(job.slot)
        if progress is not None:
            self.add(job, progress)

    def add(self, job: Reporter, event: JobEvent, info: JobInfo = NO_INFO) -> Submitted:
        self._record(event)
        return super().add(job, event, info)
