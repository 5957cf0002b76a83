"""System checks, which ``manage.py check`` runs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any, Final

from celery import Task
from django.conf import settings
from django.core import checks

from jobcast.celery.apps import active_apps
from jobcast.celery.enqueue import is_followed
from jobcast.errors import SettingsError
from jobcast.integrations.django import conf
from jobcast.issuing import TOKEN_TTL, default_settings
from jobcast.settings import PREFIX, Settings, misspelt

TAG: Final = "jobcast"
KNOWN_KEYS: Final = (
    f"The keys are those of the settings of jobcast, without {PREFIX}, and"
    f" {', '.join(conf.OWN_KEYS)}."
)
AUTHENTICATION: Final = "django.contrib.auth.middleware.AuthenticationMiddleware"


def register() -> None:
    """Register the checks."""
    for check in (check_settings, check_users, check_tasks):
        checks.register(check, TAG)


def check_settings(**_: Any) -> list[checks.CheckMessage]:
    """Check the setting ``JOBCAST``, and that pages can reach the server."""
    if not isinstance(conf.given(), Mapping):
        return [
            checks.Error(
                f"JOBCAST should be a dictionary, not {type(conf.given()).__name__}.",
                hint='For example: JOBCAST = {"URL": "redis://localhost:6379/0"}',
                id="jobcast.E001",
            )
        ]
    wrong = [*_unknown_keys(), *_wrong_own_values()]
    if wrong:
        return wrong
    try:
        found = default_settings()
    except SettingsError as exc:
        return [checks.Error(f"{exc}.", hint=_place_of(exc.name), id="jobcast.E003")]
    return list(_check_public_url(found))


def check_users(**_: Any) -> list[checks.CheckMessage]:
    """Check that requests have a user."""
    if AUTHENTICATION in settings.MIDDLEWARE:
        return []
    return [
        checks.Warning(
            f"MIDDLEWARE has no {AUTHENTICATION}: if no other middleware sets request.user, no user"
            " gets a token.",
            hint=f"Add {AUTHENTICATION!r} after the middleware of sessions.",
            id="jobcast.W002",
        )
    ]


def check_tasks(**_: Any) -> list[checks.CheckMessage]:
    """Check that tasks have Celery's methods for Django."""
    return [
        checks.Warning(
            f"The task {task.name} has no delay_on_commit.",
            hint="Import its base from jobcast.integrations.django instead of jobcast.",
            id="jobcast.W003",
        )
        for task in _followed_tasks()
        if not hasattr(task, "delay_on_commit")
    ]


def _unknown_keys() -> Iterator[checks.CheckMessage]:
    names = [f"{PREFIX}{key}" for key in conf.given() if key not in conf.OWN_KEYS]
    for name, similar in misspelt(dict.fromkeys(names, "")).items():
        key = name.removeprefix(PREFIX)
        hint = f"Did you mean {similar.removeprefix(PREFIX)!r}?" if similar else KNOWN_KEYS
        yield checks.Error(f"JOBCAST has the unknown key {key!r}.", hint=hint, id="jobcast.E002")


def _wrong_own_values() -> Iterator[checks.CheckMessage]:
    ttl: Any = conf.given().get("TOKEN_TTL", TOKEN_TTL)
    url = conf.given().get("INTERNAL_URL")
    if not isinstance(ttl, int | float) or ttl < 1:
        yield checks.Error(
            f"JOBCAST['TOKEN_TTL'] should be a number of seconds from 1, not {ttl!r}.",
            hint='For example: "TOKEN_TTL": 900',
            id="jobcast.E004",
        )
    if url is not None and not str(url).startswith(("http://", "https://")):
        yield checks.Error(
            f"JOBCAST['INTERNAL_URL'] should be a URL, not {url!r}.",
            hint='For example: "INTERNAL_URL": "http://127.0.0.1:8001"',
            id="jobcast.E004",
        )


def _place_of(variable: str) -> str:
    """Return where to correct a setting."""
    key = variable.removeprefix(PREFIX)
    if key in conf.given() and variable not in os.environ:
        return f"Correct the value of {key!r} in JOBCAST."
    return f"Correct {variable} in the environment or in Celery's configuration."


def _check_public_url(found: Settings) -> Iterator[checks.CheckMessage]:
    if "://" in found.client_url and not found.cors_origins:
        yield checks.Warning(
            f"Pages connect to {found.client_url}, which accepts pages of its own origin only.",
            hint='List the origin of your pages: "CORS_ORIGINS": ["https://www.example.com"]',
            id="jobcast.W001",
        )


def _followed_tasks() -> Iterator[Task]:
    for app in active_apps():
        yield from filter(is_followed, app.tasks.values())
