"""Wrap the hooks and requests of subclasses, so that they need not call ``super()``."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from importlib import import_module
from typing import Any, Final

from jobcast.celery.cancelled import cancellable
from jobcast.celery.progress_mirror import stop_mirroring

#: Celery's hooks, with the method of ``ProgressTask`` that publishes each outcome.
REPORTS: Final = {
    "on_success": "_report_success",
    "on_failure": "_report_failure",
    "on_retry": "_report_retry",
}


def wrap_hooks(cls: Any, followed: type) -> None:
    """Wrap the hooks and the ``__call__`` with which a subclass overrides those of ``followed``."""
    for name, report in REPORTS.items():
        own = _own(cls, name, followed)
        if own is not None:
            setattr(cls, name, _with_report(own, getattr(followed, report)))
    call = _own(cls, "__call__", followed)
    if call is not None:
        cls.__call__ = _as_run(call)
    before_start = _own(cls, "before_start", followed)
    if before_start is not None:
        cls.before_start = _as_cancellable(before_start)


def package_of(task: Any) -> str:
    """Return the top-level package of the module that a task is defined in."""
    return str(type(task).__module__).partition(".")[0]


def _own(cls: type, name: str, followed: type) -> Any:
    """Return the method with which a class or its bases override a method of ``followed``.

    Return None if nothing overrides it, or if the override is already wrapped.
    """
    for base in cls.__mro__:
        if name in vars(base):
            inherited = issubclass(base, followed) and base is not cls
            return None if base is followed or inherited else vars(base)[name]
    return None


def _with_report(own: Any, report: Callable[..., None]) -> Callable[..., Any]:
    """Return a subclass's hook, followed by ``report`` even if it does not call ``super()``."""

    @wraps(own if callable(own) else own.__func__)
    def hook(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return own.__get__(self, type(self))(*args, **kwargs)
        finally:
            report(self, *args, **kwargs)

    return hook


def _as_run(own: Any) -> Callable[..., Any]:
    """Return a subclass's ``__call__`` that can be cancelled.

    It stops the mirror before Celery stores the outcome.
    """

    @wraps(own)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        request = self.request_stack.top
        bound = own.__get__(self, type(self))
        if request is None or request.called_directly:
            return bound(*args, **kwargs)
        try:
            with cancellable(self):
                return bound(*args, **kwargs)
        finally:
            stop_mirroring(request.id)

    return call


def _as_cancellable(own: Any) -> Callable[..., Any]:
    """Return a subclass's hook that does not run for a cancelled job."""

    @wraps(own if callable(own) else own.__func__)
    def hook(self: Any, *args: Any, **kwargs: Any) -> Any:
        with cancellable(self):
            return own.__get__(self, type(self))(*args, **kwargs)

    return hook


def request_class_of(task: Any) -> type:
    """Return the class of a task's requests: jobcast's combined with the project's own.

    Raises:
        TypeError: the two cannot be combined.
    """
    found: type = import_module("jobcast.celery.request").request_class(task.Request)
    return found
