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
from jobcast.settings import FILE_SUFFIX, PREFIX, application_defaults, is_token_key, text_of

#: The keys of the setting that only Django's processes use. All others are settings of jobcast.
OWN_KEYS: Final = ("TOKEN_TTL", "INTERNAL_URL")
AUTHENTICATE: Final = "jobcast.integrations.django:authenticate"
SALT: Final = "jobcast.integrations.django.token"


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
    if not any(value and is_token_key(name) for name, value in found.items()):
        keys = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
        found[f"{PREFIX}JWT_SECRETS"] = [_secret_of(key) for key in keys]
    return found


def export() -> None:
    """Put the settings into the environment, for a server process and the processes it starts."""
    for name, value in application_defaults(os.environ, {}).items():
        is_given = os.environ.get(name) or os.environ.get(f"{name}{FILE_SUFFIX}")
        if not is_given:
            os.environ[name] = text_of(value)


def token_ttl() -> float:
    """Return the lifetime of tokens, in seconds."""
    ttl: float = given().get("TOKEN_TTL", TOKEN_TTL)
    return ttl


def endpoint() -> Endpoint:
    """Return the endpoints for the present settings."""
    internal_url = given().get("INTERNAL_URL")
    return Endpoint(default_settings(), ttl=token_ttl(), internal_url=internal_url)


def _secret_of(key: str | bytes) -> str:
    digest: str = salted_hmac(SALT, "token", secret=key, algorithm="sha256").hexdigest()
    return digest
