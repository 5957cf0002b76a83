"""The configuration that the parts of the demo's site share."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from starlette.requests import Request

from jobcast.demo.mark import VARIABLE, read_queue
from jobcast.demo.web.loopback import is_loopback
from jobcast.errors import SettingsError
from jobcast.settings import SERVED_ON, Settings

TOKEN_SECONDS: Final = 300
TOKEN_VARIABLE: Final = "JOBCAST_DEMO_TOKEN_SECONDS"  # noqa: S105 - tests shorten the lifetime


@dataclass(frozen=True, kw_only=True)
class Site:
    """The site's directory, queue, lifetimes and signing key.

    Raises:
        SettingsError: the settings have no secret to sign tokens with.
    """

    settings: Settings
    directory: Path  # contains the list of jobs and each job's files
    queue: str  # the queue that the demo's worker consumes
    token_seconds: int = TOKEN_SECONDS

    def __post_init__(self) -> None:
        if not self.settings.secrets:
            raise SettingsError(
                "JOBCAST_JWT_SECRET", "is not set: the site signs its pages' tokens with it"
            )

    @property
    def samples(self) -> Path:
        """The input of the sample tasks, which ``tasks.samples`` writes."""
        return self.directory / "samples"

    @property
    def session_key(self) -> str:
        """The key that signs sessions. It differs from that of tokens: no token is a session."""
        secret = self.settings.secrets[0].text
        return hmac.new(secret.encode(), b"a session", hashlib.sha256).hexdigest()


def load_site(settings: Settings, environ: Mapping[str, str] = os.environ) -> Site:
    """Return the site of the demo that started this process.

    The login of the site has no password, so only the demo's own machine may reach it.

    Raises:
        SettingsError: the process does not belong to a demo, or listens on an address that other
            machines can reach.
    """
    directory = environ.get(VARIABLE)
    if not directory:
        raise SettingsError(
            VARIABLE, "is not set: only `jobcast demo` starts this application, and sets it"
        )
    queue = read_queue(Path(directory))
    _check_listens_on_loopback(settings, environ)
    return Site(
        settings=settings,
        directory=Path(directory),
        queue=queue,
        token_seconds=_token_seconds(environ),
    )


def site_of(request: Request) -> Site:
    """Return the site that serves a request."""
    site: Site = request.scope["jobcast.site"]
    return site


def _check_listens_on_loopback(settings: Settings, environ: Mapping[str, str]) -> None:
    # Only `jobcast serve` reports its listening address.
    listening = environ.get(SERVED_ON)
    for where, host in (("JOBCAST_HOST", settings.host), ("the server's address", listening)):
        if not is_loopback(host):
            raise SettingsError(
                VARIABLE,
                f"may not be set where others can connect ({where} is {host or 'not known'}): it"
                " turns on a login that asks for no password. Only `jobcast demo` sets it",
            )


def _token_seconds(environ: Mapping[str, str]) -> int:
    """Return the lifetime of the page's tokens, in seconds.

    Raises:
        SettingsError: the variable is not a whole number from 1 to 86,400.
    """
    text = environ.get(TOKEN_VARIABLE) or str(TOKEN_SECONDS)
    if not text.isdecimal() or not 1 <= int(text) <= 24 * 3600:
        raise SettingsError(TOKEN_VARIABLE, f"should be a whole number of seconds, not {text!r}")
    return int(text)
