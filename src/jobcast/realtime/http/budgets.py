"""Budgets of the clients of the HTTP interface, one for all requests of a subject."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Final

from jobcast.aio import LoopChange
from jobcast.realtime.connection.budget import Budget
from jobcast.settings import Settings

MAX_SUBJECTS: Final = 10_000
READS_AT_ONCE: Final = 4  # histories of one subject that are in memory at the same time


class SubjectBudget(Budget):
    """The budget of one subject.

    A history is charged once it has been read. Without a bound on concurrent reads, any number of
    requests could pass the check of the budget before the first one is charged.
    """

    __slots__ = ("reading",)

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, counts_messages=False)
        self.reading = asyncio.Semaphore(READS_AT_ONCE)


class SubjectBudgets:
    """The budgets of the subjects that made requests last.

    A request of HTTP belongs to no connection that a budget could be bound to.

    Args:
        settings: the limits of one budget.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._budgets: OrderedDict[str, SubjectBudget] = OrderedDict()
        self._change = LoopChange()

    def of(self, sub: str) -> SubjectBudget:
        """Return a subject's budget."""
        if self._change.happened():
            self._budgets.clear()  # their semaphores belong to the former event loop
        budget = self._budgets.get(sub)
        if budget is None:
            budget = self._budgets[sub] = SubjectBudget(self._settings)
        self._budgets.move_to_end(sub)
        if len(self._budgets) > MAX_SUBJECTS:
            self._budgets.popitem(last=False)
        return budget
