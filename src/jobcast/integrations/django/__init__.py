"""jobcast for Django: list ``"jobcast.integrations.django"`` in ``INSTALLED_APPS``.

>>> from jobcast.integrations.django import ProgressTask
>>> @shared_task(base=ProgressTask, bind=True)
... def build(self, pages): ...
>>> build.owned_by(request.user.pk).delay_on_commit(10)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jobcast.integrations.django.database import rule
    from jobcast.integrations.django.sessions import authenticate, token_id_of
    from jobcast.integrations.django.task import ProgressTask

__all__ = ["ProgressTask", "authenticate", "rule", "token_id_of"]

# Imported on first access: Django imports this package before its own settings are complete.
_HOMES = {
    "ProgressTask": "jobcast.integrations.django.task",
    "authenticate": "jobcast.integrations.django.sessions",
    "rule": "jobcast.integrations.django.database",
    "token_id_of": "jobcast.integrations.django.sessions",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
