"""Django in the tests' process, with a database in memory and without a settings module.

With ``DJANGO_SETTINGS_MODULE`` Celery would change the applications of all later tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import django
import pytest
from celery import Celery, signals
from django.conf import settings
from django.core.management import call_command
from django.db import connection

from jobcast.integrations.django import conf
from jobcast.settings import use_defaults
from tests.support import SECRET

if not settings.configured:
    settings.configure(
        SECRET_KEY=SECRET,
        ALLOWED_HOSTS=["testserver"],
        ROOT_URLCONF="tests.unit.integrations.django.urls",
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        INSTALLED_APPS=[
            # Django REST framework imports the admin and its static files. They are set up when
            # pytest-celery looks at all objects of the process.
            "django.contrib.admin",
            "django.contrib.messages",
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.sessions",
            "jobcast.integrations.django",
        ],
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
        ],
        TEMPLATES=[{
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": {"context_processors": ["django.template.context_processors.request"]},
        }],
        STATIC_URL="static/",
        USE_TZ=True,
    )  # fmt: skip
    django.setup()
    use_defaults(dict)  # the settings of Django apply to the tests of this folder only


@pytest.fixture(autouse=True)
def _djangos_settings() -> Iterator[None]:
    use_defaults(conf.variables)
    yield
    use_defaults(dict)


@pytest.fixture(scope="session")
def tables() -> None:
    call_command("migrate", verbosity=0)


@pytest.fixture
def database(tables: None) -> Iterator[Any]:
    """Return the database's connection. Rows of a test are deleted after it."""
    yield connection
    call_command("flush", verbosity=0, interactive=False)


@pytest.fixture
def app() -> Iterator[Celery]:
    with Celery("site", broker="memory://", backend="cache+memory://", set_as_current=False) as app:
        yield app


@pytest.fixture
def sent() -> Iterator[list[dict[str, Any]]]:
    """Return the list of the headers of all sent messages."""
    messages: list[dict[str, Any]] = []

    def record(headers: dict[str, Any], **_: Any) -> None:
        messages.append(headers)

    signals.after_task_publish.connect(record)
    yield messages
    signals.after_task_publish.disconnect(record)
