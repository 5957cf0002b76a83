"""The runs of a job, and the decision which run's events are stored.

A task may run more than once under one id: as a retry, or as a redelivery after its worker was
lost. Events of the earlier run may arrive after the later run has begun. Every event therefore
names its run, and the store decides by the run instead of the order of arrival. It drops statuses,
progress and outcomes of a past run, and keeps its log lines with their attempt.

A job id can be reused. A run with another owner than the record's begins a new record, and no event
of an earlier run gets into it.
"""

from __future__ import annotations

import secrets
from collections import deque
from typing import Final, Literal

from msgspec import Struct

REMEMBERED: Final = 32  # past runs per job
CONTINUES: Final = "."  # between the first sending of a job and the id of a replacement

Standing = Literal["same", "newer", "past"]


class Run(Struct, frozen=True):
    """One attempt at a job.

    Events without a run, such as those of an ``emit``, belong to the current run.
    """

    # A new id whenever the task is sent; retries keep it. See also ``continuing``.
    sending: str = ""
    attempt: int = 0  # 1 for the first; 0 for the process that sends the task
    delivery: str = ""  # a new id whenever a worker receives the task's message
    redelivered: bool = False  # whether a worker has received the message before

    @property
    def is_known(self) -> bool:
        return bool(self.attempt or self.sending)

    def __str__(self) -> str:
        return f"{self.attempt} {self.redelivered:d} {self.sending or '-'} {self.delivery or '-'}"

    @classmethod
    def parse(cls, text: str) -> Run:
        """Parse the text of a run.

        Raises:
            ValueError: the text is not a run.
        """
        attempt, redelivered, sending, delivery = text.split(" ")
        return cls(
            sending.removeprefix("-"), int(attempt), delivery.removeprefix("-"), redelivered == "1"
        )


UNKNOWN_RUN: Final = Run()


def draw() -> str:
    """Draw a random id for a sending or a delivery."""
    return secrets.token_hex(6)


def continuing(sending: str) -> str:
    """Return an id for the sending of a task that replaces one with the given sending.

    The job continues: a request to cancel it covers both sendings.

    >>> continuing("0a1b2c3d4e5f")
    '0a1b2c3d4e5f.6f5e4d3c2b1a'
    """
    return f"{first_sending(sending)}{CONTINUES}{draw()}"


def first_sending(sending: str) -> str:
    """Return the sending that another one continues, directly or not; else the sending itself."""
    return sending.partition(CONTINUES)[0]


class Runs:
    """The runs of one job, with the rules of ``publish.lua``."""

    def __init__(self) -> None:
        self.current: Run | None = None
        self.count = 0  # runs that have started
        self._past_ids: deque[str] = deque(maxlen=REMEMBERED)  # past sendings and deliveries

    def standing(self, run: Run) -> Standing:
        """Return how a run relates to the current one."""
        current = self.current
        if not run.is_known or run == current:
            return "same"
        if current is None:
            return "newer"
        if run.sending in self._past_ids or run.delivery in self._past_ids:
            return "past"
        if run.sending != current.sending:
            return "newer"
        if run.attempt != current.attempt:
            return "newer" if run.attempt > current.attempt else "past"
        if run.delivery == current.delivery:
            return "same"
        # Only the broker knows which of two deliveries is the later one.
        return "past" if run.redelivered < current.redelivered else "newer"

    def adopt(self, run: Run) -> None:
        """Make a newer run the current one."""
        self.retire(run)
        self.current = run

    def retire(self, run: Run) -> None:
        """Make the current run a past one, because of another run."""
        current, self.current = self.current, None
        if current is not None:
            another = run.sending != current.sending and current.sending
            past_id = another or current.delivery
            if past_id:
                self._past_ids.append(past_id)
