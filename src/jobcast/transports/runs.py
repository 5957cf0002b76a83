"""The runs of a job: who speaks, and whether anybody still listens to it.

A task may run more than once under one id: it is tried again, or delivered again after its worker
was lost, and events of the former run may come after the latter has begun. So every event names
its run, and the store decides by that, not by what comes first: statuses, progress and endings of a
past run are dropped. Log lines are kept, and carry the attempt that they are of.

A job id can be used again. A run with another owner than the record's begins a new record, and
nothing of the runs before gets into it.
"""

from __future__ import annotations

import secrets
from collections import deque
from typing import Final, Literal

from msgspec import Struct

REMEMBERED: Final = 32  # runs that were followed by others

Standing = Literal["same", "newer", "past"]


class Run(Struct, frozen=True):
    """One try at a job.

    What no run says, such as an ``emit`` from anywhere, is of the run that is there.
    """

    sending: str = ""  # drawn whenever the task is sent; its retries belong to the same sending
    attempt: int = 0  # 1 for the first; 0 for who sends the task
    delivery: str = ""  # drawn whenever a worker takes the task's message
    redelivered: bool = False  # a worker had taken the message before

    @property
    def is_known(self) -> bool:
        return bool(self.attempt or self.sending)

    def __str__(self) -> str:
        return f"{self.attempt} {self.redelivered:d} {self.sending or '-'} {self.delivery or '-'}"

    @classmethod
    def parse(cls, text: str) -> Run:
        """The run that a text stands for.

        Raises:
            ValueError: it stands for none.
        """
        attempt, redelivered, sending, delivery = text.split(" ")
        return cls(
            sending.removeprefix("-"), int(attempt), delivery.removeprefix("-"), redelivered == "1"
        )


NOBODY: Final = Run()


def draw() -> str:
    """A name for a sending or a delivery."""
    return secrets.token_hex(6)


class Runs:
    """The runs of one job, by the rules of ``publish.lua``."""

    def __init__(self) -> None:
        self.current: Run | None = None
        self.count = 0  # of those that have started
        self._gone: deque[str] = deque(maxlen=REMEMBERED)  # sendings and deliveries

    def standing(self, run: Run) -> Standing:
        """How a run stands to the one that is there."""
        here = self.current
        if not run.is_known or run == here:
            return "same"
        if here is None:
            return "newer"
        if run.sending in self._gone or run.delivery in self._gone:
            return "past"
        if run.sending != here.sending:
            return "newer"
        if run.attempt != here.attempt:
            return "newer" if run.attempt > here.attempt else "past"
        if run.delivery == here.delivery:
            return "same"
        # It is the broker that knows which of two deliveries is the later one.
        return "past" if run.redelivered < here.redelivered else "newer"

    def adopt(self, run: Run) -> None:
        """Make a newer run the current one."""
        self.retire(run)
        self.current = run

    def retire(self, run: Run) -> None:
        """Make the current run a past one, because of another run."""
        here, self.current = self.current, None
        if here is not None:
            another = run.sending != here.sending and here.sending
            gone = another or here.delivery
            if gone:
                self._gone.append(gone)
