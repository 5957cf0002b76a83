"""Hooks and requests of subclasses, with jobcast's part around them.

A subclass need not call ``super()``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from importlib import import_module
from typing import Any, Final

from jobcast.celery.result_backend import mirror

#: Celery's hooks, and jobcast's part of each.
REPORTS: Final = {
    "on_success": "_report_success",
    "on_failure": "_report_failure",
    "on_retry": "_report_retry",
}


def wrap_hooks(cls: Any, followed: type) -> None:
    """Wrap what a subclass has in the place of ``followed``'s hooks and ``__call__``."""
    for name, report in REPORTS.items():
        own = _own(cls, name, followed)
        if own is not None:
            setattr(cls, name, _with_report(own, getattr(followed, report)))
    call = _own(cls, "__call__", followed)
    if call is not None:
        cls.__call__ = _with_leaving(call)


def package_of(task: Any) -> str:
    """Return the top-level package of the module that a task is defined in."""
    return str(type(task).__module__).partition(".")[0]


def _own(cls: type, name: str, followed: type) -> Any:
    """Return what a class or its bases have in the place of a method of ``followed``.

    None if the class has that method itself, or one that is wrapped already.
    """
    for base in cls.__mro__:
        if name in vars(base):
            inherited = issubclass(base, followed) and base is not cls
            return None if base is followed or inherited else vars(base)[name]
    return None


def _with_report(own: Any, report: Callable[..., None]) -> Callable[..., Any]:
    """A hook of a subclass, with jobcast's part after it whether or not it calls ``super()``."""

    @wraps(own if callable(own) else own.__func__)
    def hook(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return own.__get__(self, type(self))(*args, **kwargs)
        finally:
            report(self, *args, **kwargs)

    return hook


def _with_leaving(own: Any) -> Callable[..., Any]:
    """A ``__call__`` of a subclass, after which Celery stores how the task ended."""

    @wraps(own)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        request = self.request_stack.top
        try:
            return own.__get__(self, type(self))(*args, **kwargs)
        finally:
            if request is not None and not request.called_directly:
                mirror.leave(request.id)

    return call


def request_class_of(task: Any) -> type:
    """Return the class of a task's requests: jobcast's, with what the project has.

    Raises:
        TypeError: the two do not go together.
    """
    found: type = import_module("jobcast.celery.request").request_class(task.Request)
    return found
