"""Budgets of the clients of the HTTP interface, one for all requests of a subject."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from jobcast.realtime.connection.budget import Budget
from jobcast.settings import Settings

MAX_SUBJECTS: Final = 10_000


class SubjectBudgets:
    """The budgets of the subjects that made requests last.

    A request of HTTP belongs to no connection that a budget could be bound to.

    Args:
        settings: the limits of one budget.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._budgets: OrderedDict[str, Budget] = OrderedDict()

    def of(self, sub: str) -> Budget:
        """Return a subject's budget."""
        budget = self._budgets.get(sub)
        if budget is None:
            budget = self._budgets[sub] = Budget(self._settings, counts_messages=False)
        self._budgets.move_to_end(sub)
        if len(self._budgets) > MAX_SUBJECTS:
            self._budgets.popitem(last=False)
        return budget
