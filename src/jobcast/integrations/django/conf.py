"""The setting ``JOBCAST`` of Django.

>>> JOBCAST = {"URL": "redis://localhost:6379/0", "PUBLIC_URL": "https://jobs.example.com"}
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

from django.conf import settings
from django.utils.crypto import salted_hmac

from jobcast.integrations.endpoint import Endpoint
from jobcast.issuing import TOKEN_TTL, default_settings
from jobcast.settings import FILE_SUFFIX, PREFIX, text_of

#: The keys of the setting that only Django's processes use. All others are settings of jobcast.
OWN_KEYS: Final = ("TOKEN_TTL", "INTERNAL_URL")
AUTHENTICATE: Final = "jobcast.integrations.django:authenticate"
SALT: Final = "jobcast.integrations.django.token"

_KEYS: Final = (
    "JWT_SECRET", "JWT_SECRETS", "JWT_PUBLIC_KEY", "JWT_PUBLIC_KEYS", "JWT_PRIVATE_KEY", "JWKS_URL",
)  # fmt: skip


def given() -> Mapping[str, Any]:
    """Return the setting ``JOBCAST``."""
    value: Mapping[str, Any] = getattr(settings, "JOBCAST", {})
    return value


def variables() -> dict[str, Any]:
    """Return the ``JOBCAST_*`` variables that Django's settings stand for.

    Without a key for tokens, it is derived from ``SECRET_KEY``. Without ``AUTHENTICATE``, the
    server recognises users by Django's session.
    """
    values = {"AUTHENTICATE": AUTHENTICATE, **given()}
    found = {f"{PREFIX}{key}": value for key, value in values.items() if key not in OWN_KEYS}
    if not _has_key(found) and not _has_key(os.environ):
        keys = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
        found[f"{PREFIX}JWT_SECRETS"] = [_secret_of(key) for key in keys]
    return found


def export() -> None:
    """Put the settings into the environment, for a server process and the processes it starts."""
    for name, value in variables().items():
        if not _is_given(os.environ, name):
            os.environ[name] = text_of(value)


def endpoint() -> Endpoint:
    """Return the endpoints for the present settings."""
    return Endpoint(
        default_settings(),
        ttl=given().get("TOKEN_TTL", TOKEN_TTL),
        internal_url=given().get("INTERNAL_URL"),
    )


def _secret_of(key: str | bytes) -> str:
    return salted_hmac(SALT, "token", secret=key, algorithm="sha256").hexdigest()


def _has_key(values: Mapping[str, Any]) -> bool:
    return any(_is_given(values, f"{PREFIX}{key}") for key in _KEYS)


def _is_given(values: Mapping[str, Any], name: str) -> bool:
    """Return whether a mapping has a variable, or the name of a file with its value."""
    return bool(values.get(name) or values.get(name + FILE_SUFFIX))
