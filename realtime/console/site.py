"""The site: what the console's parts have in common."""

import hashlib
import hmac
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request

from jobcast.errors import SettingsError
from jobcast.settings import Settings

TOKEN_SECONDS = 300
FILES_SECONDS = 24 * 3600


@dataclass(frozen=True, kw_only=True)
class Site:
    """Where the console keeps things, and what it signs with.

    Raises:
        SettingsError: the settings have no secret, so that nothing can be signed.
    """

    settings: Settings
    directory: Path  # has what was started, and each job's files
    samples: Path  # the input that tasks have by themselves, as ``tasks.samples`` writes it
    queue: str = "celery"  # where the worker takes its jobs from
    token_seconds: int = TOKEN_SECONDS
    files_seconds: int = FILES_SECONDS  # that a job's files stay after the last one was written
    is_demonstration: bool = False  # anybody on this machine may sign in, as anybody

    def __post_init__(self) -> None:
        if not self.settings.secrets:
            raise SettingsError(
                "JOBCAST_JWT_SECRET", "is not set: the console signs its pages' tokens with it"
            )

    @property
    def secret(self) -> str:
        """What tokens are signed with."""
        return self.settings.secrets[0].text

    @property
    def session_key(self) -> str:
        """What sessions are signed with: a token is no session, and a session is no token."""
        return hmac.new(self.secret.encode(), b"a session", hashlib.sha256).hexdigest()


def site_of(request: Request) -> Site:
    site: Site = request.scope["jobcast.site"]
    return site
