"""Tokens for the clients of an application, issued by the application itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final
from uuid import UUID

from msgspec import structs

from jobcast.events import check_job_id
from jobcast.publishing.host import default_configuration
from jobcast.publishing.identity import job_id_of, owner_of
from jobcast.settings import Settings, parse_private_key

TOKEN_TTL: Final = 900  # seconds
MAX_TTL: Final = 100 * 365 * 86400  # seconds; the server refuses times after the year 9999
ANY_JOB: Final = "*"


def issue_token(
    sub: str | int | UUID,
    *,
    jobs: Iterable[str | UUID] | None = None,
    can: Iterable[str] | None = None,
    feeds: Iterable[str] | None = None,
    ttl: float = TOKEN_TTL,
    jti: str | None = None,
    settings: Settings | None = None,
    private_key: str | None = None,
) -> str:
    """Create a token with which a client of this application connects to the server.

    Call it after your own session check, with the user of the session. The token fits the server's
    settings: ``JOBCAST_JWT_PRIVATE_KEY`` signs it, or the first of the shared secrets, and it has
    the audience and the issuer that the server expects.

    Args:
        sub: the subject, which may follow the jobs that it owns. A number is converted to its
            digits, a UUID to its text, as in ``owned_by``.
        jobs: ids of further jobs that the subject may follow; ``["*"]`` allows every job.
        can: further actions on these jobs, such as ``["cancel"]``. The owner of a job needs none.
        feeds: the feeds that the subject may list besides ``mine``, such as ``["tag:nightly"]``;
            ``["*"]`` allows every feed.
        ttl: lifetime of the token in seconds, at least 1 and at most a hundred years.
            ``JOBCAST_JWT_MAX_LIFETIME`` bounds it.
        jti: the id of the token, by which it can be revoked.
        settings: the settings. By default these are those of the environment and of the Celery
            application that has ``jobcast_*`` settings.
        private_key: a private key in PEM, optionally preceded by its key id (``2026-01=-----BEGIN
            PRIVATE KEY-----``), instead of the key in the settings.

    Raises:
        SettingsError: the settings have no key that signs, or a setting is wrong.
        TypeError: ``sub``, ``jobs``, ``can`` or ``feeds`` has another type.
        ValueError: ``sub`` is empty, ``ttl`` is out of its range, or a job id or the private key is
            not valid.
        ModuleNotFoundError: PyJWT is not installed.

    >>> token = issue_token("alice", jobs=["42"], ttl=300)
    """
    if not 1 <= ttl <= MAX_TTL:
        raise ValueError(
            f"the lifetime of a token should be at least 1 second and at most {MAX_TTL} seconds,"
            f" not {ttl!r}"
        )
    grants = {
        "jobs": _allowed_jobs(jobs),
        "can": _names("can", "actions", can),
        "feeds": _names("feeds", "names of feeds", feeds),
    }
    settings = settings or default_settings()
    if private_key is not None:
        settings = _with_private_key(settings, private_key)
    return _issue(settings, owner_of(sub), grants, ttl=ttl, jti=jti)


def default_settings() -> Settings:
    """Return the settings of the environment, and of the Celery application that has some.

    Raises:
        SettingsError: a setting is wrong, or two Celery applications have different settings.
    """
    conf = default_configuration("pass one, as in issue_token(sub, settings=...)")
    return Settings.load(celery_conf=conf)


def _allowed_jobs(jobs: Iterable[str | UUID] | None) -> list[str]:
    if isinstance(jobs, str):
        raise TypeError(f"jobs should be a list of job ids, as in jobs=[{jobs!r}]")
    return [_allowed_job(job) for job in jobs or ()]


def _allowed_job(job: str | UUID) -> str:
    if not isinstance(job, str | UUID):
        raise TypeError(
            f"jobs should contain job ids, each a str or a UUID, not a value of type"
            f" {type(job).__name__}"
        )
    job_id = job_id_of(job)
    return job_id if job_id == ANY_JOB else check_job_id(job_id)


def _names(argument: str, content: str, names: Iterable[str] | None) -> list[str]:
    if isinstance(names, str):
        raise TypeError(f"{argument} should be a list of {content}, as in {argument}=[{names!r}]")
    listed = list(names or ())
    for name in listed:
        if not isinstance(name, str):
            raise TypeError(f"{argument} should be a list of strings, not of {type(name).__name__}")
    return listed


def _with_private_key(settings: Settings, text: str) -> Settings:
    try:
        key = parse_private_key(text)
    except ValueError as exc:
        raise ValueError(f"private_key {exc}") from None
    return structs.replace(settings, jwt_private_key=key, jwt_secret=None, jwt_secrets=())


def _issue(
    settings: Settings, sub: str, grants: Mapping[str, list[str]], *, ttl: float, jti: str | None
) -> str:
    try:
        from jobcast.tokens import issue
    except ModuleNotFoundError as exc:
        raise ModuleNotFoundError(
            f"a token needs {exc.name}: pip install 'jobcast[tokens]'", name=exc.name
        ) from exc
    return issue(settings, sub, ttl=ttl, jti=jti, **grants)
