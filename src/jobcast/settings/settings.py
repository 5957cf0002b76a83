"""All settings of the server and of workers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final, Literal

from msgspec import Struct, structs

from jobcast.errors import SettingsError
from jobcast.masking import MASK, is_secret_name, mask_url, remember
from jobcast.settings.parsers import PARSERS
from jobcast.settings.sources import PREFIX, application_defaults, given
from jobcast.settings.token_keys import (
    HMAC_ALGORITHMS,
    KEY_ALGORITHMS,
    NamedKey,
    named_secret,
    pem_blocks,
)
from jobcast.transports import DEFAULT_HISTORY_SIZE, DEFAULT_HISTORY_TTL, Retention, check_url
from jobcast.transports.base import DEFAULT_FEED_SIZE, DEFAULT_SUMMARY_TTL
from jobcast.transports.leases import DEFAULT_LEASE, DEFAULT_LOST_AFTER, LeaseTimeouts
from jobcast.transports.prefix import DEFAULT_PREFIX

DEFAULT_URL: Final = "redis://localhost:6379/0"
DEFAULT_RESULT_LIMIT: Final = 64 * 1024  # bytes of JSON
DEFAULT_MAX_JOBS: Final = 200  # joins of one connection
DEFAULT_SEND_BUFFER: Final = 1024 * 1024  # characters
DEFAULT_SEND_MEMORY: Final = 128 * 1024 * 1024  # characters
DEFAULT_SEND_TIMEOUT: Final = 30  # seconds
DEFAULT_HANDSHAKE_TIMEOUT: Final = 10  # seconds
DEFAULT_MAX_UNAUTHENTICATED: Final = 1000  # connections
DEFAULT_MAX_CONNECTIONS_PER_SUBJECT: Final = 1000
DEFAULT_MESSAGE_RATE: Final = 20  # messages a second
DEFAULT_RATE_PATIENCE: Final = 10.0  # seconds
DEFAULT_HISTORY_RATE: Final = 1024 * 1024  # characters a second
DEFAULT_FEED_RATE: Final = 200  # summaries a second
DEFAULT_AUTHORIZE_TIMEOUT: Final = 10.0  # seconds
DEFAULT_DRAIN_SECONDS: Final = 5
DEFAULT_ENQUEUE_TIMEOUT: Final = 0.25  # seconds

LogLevel = Literal["off", "debug", "info", "warning", "error", "critical"]


class Settings(Struct, frozen=True, kw_only=True):
    """All settings; ``docs/reference/settings.md`` describes each.

    An instance is safe to print and log: its ``repr`` masks secrets in URLs, and every field whose
    name contains a word such as ``password``, ``secret``, ``token`` or ``key``.
    """

    url: str = DEFAULT_URL
    prefix: str = DEFAULT_PREFIX  # of keys, channels, exchanges and queues
    jwt_secret: str | None = None
    jwt_secrets: tuple[str, ...] = ()  # each a secret or kid=secret; the first signs
    jwt_public_key: str | None = None
    jwt_public_keys: str | None = None  # PEM blocks, each optionally preceded by kid=
    jwt_private_key: str | None = None  # a PEM block that signs, optionally preceded by kid=
    jwks_url: str | None = None
    jwt_algorithms: tuple[str, ...] = ()
    jwt_audience: str | None = None
    jwt_issuer: str | None = None
    jwt_max_lifetime: int | None = None  # maximum lifetime of a token, in seconds
    authenticate: str | None = None
    token_in_query: bool = False  # whether the HTTP interface reads tokens from URLs
    cors_origins: tuple[str, ...] = ()  # empty: the same origin only
    insecure_any_origin: bool = False
    authorize: str | None = None
    authorize_timeout: float = DEFAULT_AUTHORIZE_TIMEOUT  # seconds for one call of the rule
    reauthorize: float = 0  # maximum seconds between checks of the joined jobs; 0: no checks
    http_api: bool = True  # whether the server answers plain HTTP
    console: str = ""  # the path of the console, below the prefix; empty: no console
    history_ttl: int = DEFAULT_HISTORY_TTL
    history_size: int = DEFAULT_HISTORY_SIZE
    feed_size: int = DEFAULT_FEED_SIZE  # jobs per feed; 0: no feeds
    summary_ttl: int = DEFAULT_SUMMARY_TTL  # seconds that an ended job stays in its feeds
    result_limit: int = DEFAULT_RESULT_LIMIT
    max_jobs: int = DEFAULT_MAX_JOBS
    host: str = "127.0.0.1"
    port: int = 8000
    path_prefix: str = ""  # before every path
    public_url: str = ""  # where clients reach the server: a URL or a path
    workers: int = 1  # processes that share the port
    drain_seconds: int = DEFAULT_DRAIN_SECONDS
    send_buffer: int = DEFAULT_SEND_BUFFER  # characters buffered for one connection
    send_memory: int = DEFAULT_SEND_MEMORY  # characters buffered for all connections
    send_timeout: int = DEFAULT_SEND_TIMEOUT  # seconds without a byte accepted by the connection
    handshake_timeout: int = DEFAULT_HANDSHAKE_TIMEOUT  # seconds until a client authenticates
    max_connections: int = 0  # of one process; 0: derived from the limit of open files
    max_unauthenticated: int = DEFAULT_MAX_UNAUTHENTICATED
    max_connections_per_subject: int = DEFAULT_MAX_CONNECTIONS_PER_SUBJECT  # 0: no limit
    max_connections_per_address: int = 0  # 0: no limit
    trusted_proxies: tuple[str, ...] = ()  # whose X-Forwarded-For counts; empty: this host's
    message_rate: int = DEFAULT_MESSAGE_RATE  # messages a second of one connection
    rate_patience: float = DEFAULT_RATE_PATIENCE  # seconds above the rate until refusals begin
    history_rate: int = DEFAULT_HISTORY_RATE  # characters a second of one connection
    feed_rate: int = DEFAULT_FEED_RATE  # changes of feeds a second to one connection
    lease: int = DEFAULT_LEASE  # seconds without a renewal after which a run is stalled
    lease_sidecar: bool = False  # a process that renews leases while its worker cannot
    lost_after: int = DEFAULT_LOST_AFTER  # seconds that a job may be stalled
    enqueue_timeout: float = DEFAULT_ENQUEUE_TIMEOUT  # seconds that sending a task may wait
    store_progress: bool = False  # in Celery's result backend too
    task_events: bool = False  # progress as task-progress events of Celery too
    metrics: bool = False
    log_level: LogLevel = "info"
    log_loggers: tuple[str, ...] = ()  # in addition to the task's own; "*" is every logger

    @classmethod
    def load(
        cls,
        environ: Mapping[str, str] | None = None,
        celery_conf: Mapping[str, Any] | None = None,
    ) -> Settings:
        """Read the settings.

        Args:
            environ: a mapping with the ``JOBCAST_*`` variables; the process's environment by
                default. A blank variable counts as unset. ``JOBCAST_X_FILE`` names a file that
                contains the value of ``JOBCAST_X``.
            celery_conf: a Celery configuration. Its ``jobcast_*`` keys apply to settings that the
                environment does not have.

        Raises:
            SettingsError: a value is wrong. The message names the variable and the expected value.
        """
        conf = {} if celery_conf is None else celery_conf
        # The application's own settings complete the environment, and no explicit mapping.
        defaults: Mapping[str, Any] = (
            {} if environ is not None else application_defaults(os.environ, conf)
        )
        environ = os.environ if environ is None else environ
        values: dict[str, Any] = {}
        for name, parse in PARSERS.items():
            variable = PREFIX + name.upper()
            source, text = given(environ, variable)
            if not text:
                source, text = given(conf, variable.lower())
            if not text:
                source, text = given(defaults, variable)
            if not text:
                continue
            try:
                values[name] = parse(text)
            except ValueError as exc:
                raise SettingsError(source.upper(), str(exc)) from None
        settings = cls(**values)
        if "url" in values:
            settings._check_url()
        settings._check()
        settings._remember_secrets()
        return settings

    def _remember_secrets(self) -> None:
        for name, value in structs.asdict(self).items():
            if isinstance(value, str) and "://" in value:
                remember(value)
            elif _is_secret(name, value) and value:
                remember(*_texts_in(value))
        remember(*(secret.text for secret in self.secrets))  # without their key ids

    def _check_url(self) -> None:
        try:
            check_url(self.url, self.prefix)
        except ValueError as exc:
            raise SettingsError("JOBCAST_URL", str(exc)) from None

    def _check(self) -> None:
        if "*" in self.cors_origins and not self.insecure_any_origin:
            raise SettingsError(
                "JOBCAST_CORS_ORIGINS",
                "may not be *: list the origins, as in https://app.example.com"
                " (for a test, JOBCAST_INSECURE_ANY_ORIGIN=true allows it)",
            )
        self._check_keys()

    def _check_keys(self) -> None:
        given = [
            variable
            for variable, value in (
                ("JOBCAST_JWT_SECRET", self.jwt_secret),
                ("JOBCAST_JWT_SECRETS", self.jwt_secrets),
                ("JOBCAST_JWT_PUBLIC_KEY", self.jwt_public_key),
                ("JOBCAST_JWT_PUBLIC_KEYS", self.jwt_public_keys),
                ("JOBCAST_JWKS_URL", self.jwks_url),
            )
            if value
        ]
        if len(given) > 1:
            raise SettingsError(
                given[0],
                f"may not be set together with {' or '.join(given[1:])}: tokens are verified by one"
                " of them (JOBCAST_JWT_SECRETS and JOBCAST_JWT_PUBLIC_KEYS take several keys)",
            )
        if self.jwt_private_key and self.secrets:
            raise SettingsError(
                "JOBCAST_JWT_PRIVATE_KEY",
                f"may not be set together with {given[0]}: new tokens are signed with one of them",
            )
        allowed = HMAC_ALGORITHMS if self.secrets else KEY_ALGORITHMS
        if given or self.jwt_private_key:
            for algorithm in self.jwt_algorithms:
                if algorithm not in allowed:
                    raise SettingsError(
                        "JOBCAST_JWT_ALGORITHMS",
                        f"has {algorithm}, which does not fit the configured key;"
                        f" allowed: {', '.join(allowed)}",
                    )

    def require_authentication(self) -> None:
        """Check that connections can be authenticated.

        Raises:
            SettingsError: no secret, public key, JWKS URL or function is set. A server requires
                one.
        """
        if not (self.verifies_tokens or self.authenticate):
            raise SettingsError(
                "JOBCAST_JWT_SECRET",
                "is not set, nor are JOBCAST_JWT_SECRETS, JOBCAST_JWT_PUBLIC_KEY,"
                " JOBCAST_JWT_PUBLIC_KEYS, JOBCAST_JWKS_URL and JOBCAST_AUTHENTICATE: one of them"
                " is needed to authenticate connections. A secret for development:"
                ' python -c "import secrets; print(secrets.token_urlsafe(32))"',
            )

    @property
    def verifies_tokens(self) -> bool:
        """Whether the server has keys that verify tokens."""
        return bool(self.secrets or self.public_keys or self.jwks_url)

    @property
    def secrets(self) -> tuple[NamedKey, ...]:
        """The shared secrets that verify tokens. The first one signs new tokens."""
        if self.jwt_secret is not None:
            return (NamedKey(None, self.jwt_secret),)
        return tuple(named_secret(entry) for entry in self.jwt_secrets)

    @property
    def public_keys(self) -> tuple[NamedKey, ...]:
        """The PEM public keys that verify tokens."""
        if self.jwt_public_key is not None:
            return (NamedKey(None, self.jwt_public_key),)
        return pem_blocks(self.jwt_public_keys or "")

    @property
    def private_key(self) -> NamedKey | None:
        """The PEM private key that signs new tokens, if one is set."""
        return next(iter(pem_blocks(self.jwt_private_key or "")), None)

    @property
    def algorithms(self) -> tuple[str, ...]:
        """The accepted JWT algorithms. They are never taken from a token."""
        if self.jwt_algorithms:
            return self.jwt_algorithms
        return ("HS256",) if self.secrets else ("RS256", "ES256", "EdDSA")

    @property
    def client_url(self) -> str:
        """The URL or path at which clients reach the server, without a trailing slash."""
        return self.public_url or self.path_prefix

    @property
    def retention(self) -> Retention:
        """How long the store keeps a job and its summary, and how many events and jobs."""
        return Retention(
            ttl=self.history_ttl,
            size=self.history_size,
            feed_size=self.feed_size,
            summary_ttl=self.summary_ttl,
        )

    @property
    def lease_timeouts(self) -> LeaseTimeouts:
        """The seconds after which a run is stalled, and after which a stalled run is lost."""
        return LeaseTimeouts(lease=self.lease, lost_after=self.lost_after)

    @property
    def masked_url(self) -> str:
        """The transport's URL with its secrets masked, for logs."""
        return mask_url(self.url)

    def __repr__(self) -> str:
        shown = {name: _shown(name, value) for name, value in structs.asdict(self).items()}
        return f"Settings({', '.join(f'{k}={v!r}' for k, v in shown.items())})"


def _shown(name: str, value: Any) -> Any:
    """Return the value of a setting with its secrets masked. The name decides whether it is one."""
    if _is_secret(name, value):
        return MASK if value else value
    return mask_url(value) if isinstance(value, str) else value


def _is_secret(name: str, value: Any) -> bool:
    return is_secret_name(name) and not isinstance(value, bool)


def _texts_in(value: Any) -> list[str]:
    """Return the strings of a setting, which may be one string, a sequence or a mapping."""
    if isinstance(value, Mapping):
        value = value.values()
    return [value] if isinstance(value, str) else list(map(str, value))
