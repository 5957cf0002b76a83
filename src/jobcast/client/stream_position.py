"""The position of a client in the event stream of a job."""

from __future__ import annotations

import logging

import msgspec

from jobcast.client.event_lines import StreamMessage
from jobcast.client.followed import unseen_part
from jobcast.client.http import Unavailable
from jobcast.client.retry import RETRYABLE_CODES
from jobcast.errors import InvalidMessage, JoinRefused
from jobcast.events import (
    JOB_EVENTS,
    TERMINAL,
    JobEvent,
    JobGap,
    Joined,
    Left,
    parse_event,
    parse_request,
)

logger = logging.getLogger(__name__)


class StreamPosition:
    """A position that survives the streams of one job, one after the other.

    Args:
        job_id: the job.
        cursor: the position to begin after; None for the beginning.

    Raises:
        ValueError: the cursor is not one.
    """

    def __init__(self, job_id: str, cursor: str | None) -> None:
        self.job_id = job_id
        self.cursor = cursor
        self.has_ended = False
        self._epoch, self._seq = _parse(cursor)
        self._skipped_to = self._seq  # the last seq that a gap need not report

    def receive(self, message: StreamMessage) -> JobEvent | JobGap | None:
        """Return the event of a message; None if it is about the connection, or is repeated.

        Raises:
            JoinRefused: the right to follow the job has ended.
            Unavailable: the server cannot check the right to follow the job now.
        """
        self.cursor = message.id or self.cursor
        try:
            payload = msgspec.json.decode(message.data)
            return self._receive(message.name, payload)
        except (InvalidMessage, msgspec.DecodeError) as exc:
            logger.warning(
                "job %s: ignored a message that violates the protocol: %s", self.job_id, exc
            )
            return None

    def _receive(self, name: str, payload: object) -> JobEvent | JobGap | None:
        if name in JOB_EVENTS:
            return self._pass(parse_event(name, payload))
        if name == JobGap.name:
            return self._skip(parse_request(name, payload, JobGap))
        if name == Joined.name:
            self._begin(parse_request(name, payload, Joined))
        elif name == Left.name:
            self._leave(parse_request(name, payload, Left))
        return None

    def _begin(self, joined: Joined) -> None:
        if joined.epoch != self._epoch:
            # The next stream would otherwise resume after events of the former record.
            self.cursor = f"{joined.epoch}:0" if joined.epoch else None
            self._epoch, self._seq = joined.epoch, 0
            self._skipped_to = 0
        self._skipped_to = max(self._skipped_to, self._seq)

    def _pass(self, event: JobEvent) -> JobEvent | None:
        if event.seq <= self._seq:
            return None
        self._seq = event.seq
        self.has_ended = event.kind == TERMINAL
        return event

    def _skip(self, gap: JobGap) -> JobGap | None:
        """Return the part of a gap that no earlier gap or event covers."""
        missing = unseen_part(gap, self._skipped_to)
        self._skipped_to = max(self._skipped_to, gap.before - 1)
        return missing

    def _leave(self, left: Left) -> None:
        refusal = JoinRefused(left.job_id, left.code, left.message)
        raise Unavailable(refusal) if left.code in RETRYABLE_CODES else refusal


def _parse(cursor: str | None) -> tuple[str, int]:
    if cursor is None:
        return "", 0
    epoch, _, seq = cursor.partition(":")
    if not epoch or not (seq.isascii() and seq.isdecimal()):
        raise ValueError(f"after should be the cursor of a state, such as '9f:7', not {cursor!r}")
    return epoch, int(seq)
