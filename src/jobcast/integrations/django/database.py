"""Django's database in the server process: for sessions, and for rules of the application."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING

import django
from django.apps import apps

if TYPE_CHECKING:
    from jobcast.targets import Target
    from jobcast.tokens import Subject

    PlainRule = Callable[[Subject, str, Target], bool]


@contextmanager
def database() -> Iterator[None]:
    """Set up Django if necessary, and replace connections to the database that have broken.

    Django itself only does that in the requests of its own views.
    """
    _set_up()
    from django.db import close_old_connections

    close_old_connections()
    try:
        yield
    finally:
        close_old_connections()


def rule(function: PlainRule) -> PlainRule:
    """Decorate a function for ``JOBCAST_AUTHORIZE`` that queries the database.

    The function may use Django in every process of ``manage.py jobcast serve``, and still
    works after a restart of the database.

    Raises:
        TypeError: the function is ``async``; the server calls a plain function in a thread.

    >>> @rule
    ... def allow(subject, action, target):
    ...     return get_user_model().objects.filter(pk=subject.sub, is_staff=True).exists()
    """
    if iscoroutinefunction(function):
        raise TypeError("rule() decorates a plain function; the server calls it in a thread")

    @wraps(function)
    def decide(subject: Subject, action: str, target: Target) -> bool:
        with database():
            return function(subject, action, target)

    return decide


def _set_up() -> None:
    """Set up Django in a process that only imports this module, such as one of several workers."""
    if not apps.ready and "DJANGO_SETTINGS_MODULE" in os.environ:
        django.setup()
