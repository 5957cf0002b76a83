"""The configuration that the parts of the console share."""

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
    """The console's directories, queue, lifetimes and signing keys.

    Raises:
        SettingsError: the settings have no secret to sign tokens with.
    """

    settings: Settings
    directory: Path  # contains the list of jobs and each job's files
    samples: Path  # the default input of the tasks, written by ``tasks.samples``
    queue: str = "celery"  # the queue that the worker consumes
    token_seconds: int = TOKEN_SECONDS
    files_seconds: int = FILES_SECONDS  # how long a job's files are kept after the last write
    is_demonstration: bool = False  # anyone on this machine can sign in under any name

    def __post_init__(self) -> None:
        if not self.settings.secrets:
            raise SettingsError(
                "JOBCAST_JWT_SECRET", "is not set: the console signs its pages' tokens with it"
            )

    @property
    def secret(self) -> str:
        """The secret that signs tokens."""
        return self.settings.secrets[0].text

    @property
    def session_key(self) -> str:
        """The key that signs sessions. It differs from ``secret``: no token is a valid session."""
        return hmac.new(self.secret.encode(), b"a session", hashlib.sha256).hexdigest()


def site_of(request: Request) -> Site:
    site: Site = request.scope["jobcast.site"]
    return site
