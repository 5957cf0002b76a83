"""The state of a job, as the HTTP interface describes it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from msgspec import Struct

from jobcast.errors import JobFailed
from jobcast.events import TERMINAL_STATES


class JobState(Struct, frozen=True, kw_only=True):
    """The state of a job at one moment. A field without a value is None.

    Attributes:
        job_id: the job.
        status: its state, such as ``started``; ``pending`` if there is no event of it.
        created_at: when the job was sent.
        task: the Celery task's name.
        title: the title of the job, for people.
        tags: the labels of the job.
        queue: the queue that the job was sent to.
        worker: the worker that runs the job.
        parent: the id of the job that sent this one.
        owner: the subject that owns the job.
        cancellable: whether a request can cancel the job.
        terminates: whether a cancelled run is terminated if it does not end by itself.
        attempt: the attempt, from 1.
        run: the number of the run of the job id, from 1.
        progress: ``percentage`` and the other fields of the latest progress.
        retry: ``retry_at``, ``error`` and ``message`` while the job is ``retrying``.
        result: the result of a job that is ``complete``.
        error: ``error``, ``message`` and ``reason`` of a job that has failed or was cancelled;
            ``by``, the subject who cancelled it.
        cancellation: ``by`` and ``message`` of the request, while the job is ``cancelling``.
        queued_at: when the latest run was queued.
        started_at: when the latest attempt started.
        ended_at: when the job ended.
        updated_at: when the latest event occurred.
        cursor: the position of this state, for ``follow(job_id, after=cursor)``.
        log_lines: the number of stored log lines.
        logs: the latest log lines, if they were requested.
    """

    job_id: str
    status: str
    created_at: datetime | None = None
    task: str | None = None
    title: str | None = None
    tags: tuple[str, ...] = ()
    queue: str | None = None
    worker: str | None = None
    parent: str | None = None
    owner: str | None = None
    cancellable: bool = True
    terminates: bool = False
    attempt: int | None = None
    run: int | None = None
    progress: Mapping[str, Any] | None = None
    retry: Mapping[str, Any] | None = None
    result: Any = None
    error: Mapping[str, Any] | None = None
    cancellation: Mapping[str, Any] | None = None
    queued_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    updated_at: datetime | None = None
    cursor: str | None = None
    log_lines: int = 0
    logs: tuple[Mapping[str, Any], ...] = ()

    @property
    def has_ended(self) -> bool:
        """Whether the job has completed, failed or been cancelled."""
        # A newer server may have further terminal states.
        return self.status in TERMINAL_STATES or self.ended_at is not None

    def outcome(self) -> Any:
        """Return the result of a job that has ended.

        Raises:
            JobFailed: the job ended with an error, or was cancelled.
        """
        if self.error is None:
            return self.result
        texts = (str(self.error.get(name, "")) for name in ("error", "message", "reason"))
        raise JobFailed(self.job_id, *texts)
