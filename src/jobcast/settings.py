"""The settings, read once from the environment or from a given mapping.

>>> Settings.load({"JOBCAST_PORT": "9000"}).port
9000
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TypeVar
from urllib.parse import urlsplit

from msgspec import Struct, structs

from jobcast.errors import SettingsError
from jobcast.events import LEVELS
from jobcast.masking import MASK, is_secret_name, mask_url, remember
from jobcast.transports import DEFAULT_HISTORY_SIZE, DEFAULT_HISTORY_TTL, Retention, check_url
from jobcast.transports.base import DEFAULT_FEED_SIZE, DEFAULT_SUMMARY_TTL
from jobcast.transports.leases import DEFAULT_LEASE, DEFAULT_LOST_AFTER, LeaseTimeouts
from jobcast.transports.prefix import DEFAULT_PREFIX, check_prefix

PREFIX: Final = "JOBCAST_"
SERVED_ON: Final = "JOBCAST_SERVED_ON"  # the listening address, which `jobcast serve` sets
FILE_SUFFIX: Final = "_FILE"
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
DEFAULT_CONSOLE: Final = "/console"
#: The first segments of the server's own paths.
SERVER_PATHS: Final = frozenset(
    {
        "events", "feeds", "healthz", "jobcast.js", "jobs", "metrics", "openapi.json", "readyz",
        "socket.io",
    }
)  # fmt: skip
SECRET_MIN_LENGTH: Final = 32  # bytes; RFC 7518 requires it of an HS256 key

#: The settings with keys that verify or sign tokens.
TOKEN_KEYS: Final = (
    "jwt_secret", "jwt_secrets", "jwt_public_key", "jwt_public_keys", "jwt_private_key", "jwks_url",
)  # fmt: skip
HMAC_ALGORITHMS: Final = ("HS256", "HS384", "HS512")
KEY_ALGORITHMS: Final = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
)  # fmt: skip

# An entry of a list of secrets that begins with a key id. Base64 padding is not a separator.
_SECRET_WITH_KID: Final = re.compile(r"([A-Za-z0-9._-]{1,128})=(.*[^=].*)", re.DOTALL)
# A PEM block, optionally preceded by a key id.
_PEM_BLOCK: Final = re.compile(
    r"(?:(?P<kid>[A-Za-z0-9._-]{1,128})=)?\s*"
    r"(?P<pem>-----BEGIN (?P<kind>[A-Z ]+)-----.*?-----END (?P=kind)-----)[\s,]*",
    re.DOTALL,
)

# Variables of jobcast that are not settings of a server or a worker.
_OTHERS: Final = ("JOBCAST_TOKEN", "JOBCAST_DEMO", "JOBCAST_DEMO_TOKEN_SECONDS")
_OF_KUBERNETES: Final = re.compile(r"_SERVICE_(HOST|PORT)(_|$)|_PORT_\d+_(TCP|UDP|SCTP)(_|$)")

N = TypeVar("N", int, float)

Defaults = Callable[[], Mapping[str, Any]]

LogLevel = Literal["off", "debug", "info", "warning", "error", "critical"]


class NamedKey(NamedTuple):
    """A secret or a PEM public key, with the ``kid`` of the tokens that it verifies, if any."""

    kid: str | None
    text: str


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
        for name, parse in _PARSERS.items():
            variable = PREFIX + name.upper()
            source, text = _given(environ, variable)
            if not text:
                source, text = _given(conf, variable.lower())
            if not text:
                source, text = _given(defaults, variable)
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
        return tuple(_named_secret(entry) for entry in self.jwt_secrets)

    @property
    def public_keys(self) -> tuple[NamedKey, ...]:
        """The PEM public keys that verify tokens."""
        if self.jwt_public_key is not None:
            return (NamedKey(None, self.jwt_public_key),)
        return _pem_blocks(self.jwt_public_keys or "")

    @property
    def private_key(self) -> NamedKey | None:
        """The PEM private key that signs new tokens, if one is set."""
        return next(iter(_pem_blocks(self.jwt_private_key or "")), None)

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


_defaults: Defaults = dict


def use_defaults(defaults: Defaults) -> None:
    """Complete the settings of this process from another source, such as Django's settings.

    They apply where neither the environment nor Celery's configuration has a value.

    Args:
        defaults: returns a mapping with the ``JOBCAST_*`` variables.

    >>> use_defaults(lambda: {"JOBCAST_PORT": 9000})
    """
    global _defaults
    _defaults = defaults


def application_defaults(
    environ: Mapping[str, str], celery_conf: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Return the values of :func:`use_defaults`.

    Without its keys for tokens if the environment or the Celery configuration has one: the keys of
    two sources would contradict each other.
    """
    defaults = _defaults()
    has_key = any(
        _given(environ, PREFIX + name.upper())[1] or _given(celery_conf, PREFIX.lower() + name)[1]
        for name in TOKEN_KEYS
    )
    if not has_key:
        return defaults
    return {name: value for name, value in defaults.items() if not is_token_key(name)}


def is_token_key(variable: str) -> bool:
    """Return whether a variable, or the file that it names, has a key for tokens."""
    return variable.removeprefix(PREFIX).removesuffix(FILE_SUFFIX).lower() in TOKEN_KEYS


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


def _given(values: Mapping[str, Any], name: str) -> tuple[str, str]:
    """Return the key that provides a setting, and its text; an empty text if it is not set.

    Raises:
        SettingsError: both the key and its ``_FILE`` variant are set, or the file cannot be read.
    """
    file_key = name + (FILE_SUFFIX if name.isupper() else FILE_SUFFIX.lower())
    text, path = text_of(values.get(name)), text_of(values.get(file_key))
    if text and path:
        raise SettingsError(
            name.upper(), f"and {file_key.upper()} are both set: only one of them may be"
        )
    return (file_key, _read(file_key.upper(), path)) if path else (name, text)


def _read(variable: str, path: str) -> str:
    try:
        text = Path(path).read_text("utf-8").strip()
    except OSError as exc:
        raise SettingsError(
            variable, f"names {path}, which cannot be read: {exc.strerror}"
        ) from exc
    except UnicodeDecodeError:
        raise SettingsError(variable, f"names {path}, which should be a text in UTF-8") from None
    if not text:
        raise SettingsError(variable, f"names {path}, which is empty")
    return text


def text_of(raw: object) -> str:
    """Return the value of a setting as text; an empty string if it is not set."""
    if raw is None:
        return ""
    return (",".join(map(str, raw)) if isinstance(raw, list | tuple) else str(raw)).strip()


def _http_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ValueError("should be a URL such as https://auth.example.com/.well-known/jwks.json")
    if "@" in parts.netloc:
        raise ValueError("should have no user and password: they are not sent to the server")
    return text


def _secret(text: str) -> str:
    if text.startswith(("-----BEGIN ", "ssh-", "ecdsa-")):
        # A public key is not secret: anyone who has it could sign tokens with it.
        raise ValueError("should be a secret, not a key: JOBCAST_JWT_PUBLIC_KEY takes a public one")
    if len(text.encode()) < SECRET_MIN_LENGTH:
        raise ValueError(
            f"has a secret that is too short: it needs at least {SECRET_MIN_LENGTH} bytes."
            ' This makes one: python -c "import secrets; print(secrets.token_urlsafe(32))"'
        )
    return text


def _secrets(text: str) -> tuple[str, ...]:
    entries = tuple(re.split(r"[,\s]+", text.strip(", \t\r\n")))
    for entry in entries:
        _secret(_named_secret(entry).text)
    _check_kids(tuple(_named_secret(entry) for entry in entries))
    return entries


def _named_secret(entry: str) -> NamedKey:
    named = _SECRET_WITH_KID.fullmatch(entry)
    return NamedKey(named[1], named[2]) if named else NamedKey(None, entry)


def _check_kids(keys: tuple[NamedKey, ...]) -> None:
    kids = [key.kid for key in keys if key.kid is not None]
    for kid in kids:
        if kids.count(kid) > 1:
            raise ValueError(f"has two keys with the key id {kid!r}: give each an id of its own")


def _public_keys(text: str) -> str:
    text = text.replace("\\n", "\n").strip(", \t\r\n")
    keys = _pem_blocks(text)
    if not keys or _PEM_BLOCK.sub("", text):
        raise ValueError(
            "should be public keys in PEM one after the other, each perhaps with its key id before"
            " it (2026-01=-----BEGIN PUBLIC KEY-----)"
        )
    for key in keys:
        _public_key(key.text)
    _check_kids(keys)
    return text


def _public_key(text: str) -> str:
    # Many process managers cannot set a multi-line variable.
    text = text.replace("\\n", "\n")
    if "PUBLIC KEY" not in text and "CERTIFICATE" not in text:
        raise ValueError("should be a public key in PEM (-----BEGIN PUBLIC KEY-----)")
    return text


def parse_private_key(text: str) -> str:
    """Return a private key in PEM, optionally preceded by ``kid=``, with line breaks.

    Raises:
        ValueError: the text is no such key, or the key is encrypted.
    """
    text = text.replace("\\n", "\n")
    block = _PEM_BLOCK.fullmatch(text)
    if block is None or not block["kind"].endswith("PRIVATE KEY"):
        raise ValueError("should be a private key in PEM (-----BEGIN PRIVATE KEY-----)")
    if block["kind"].startswith("ENCRYPTED"):
        raise ValueError("is encrypted: decrypt it, as with openssl pkey -in key.pem")
    return text


def _pem_blocks(text: str) -> tuple[NamedKey, ...]:
    return tuple(NamedKey(block["kid"], block["pem"]) for block in _PEM_BLOCK.finditer(text))


def _list(text: str) -> tuple[str, ...]:
    return tuple(item for item in (part.strip() for part in text.split(",")) if item)


def _algorithms(text: str) -> tuple[str, ...]:
    items = _list(text)
    for item in items:
        if item not in HMAC_ALGORITHMS + KEY_ALGORITHMS:
            known = ", ".join(HMAC_ALGORITHMS + KEY_ALGORITHMS)
            raise ValueError(f"has {item!r}; allowed: {known}")
    return items


def check_origin(text: str) -> str:
    """Return ``text`` if it is an origin, such as ``https://app.example.com``.

    Raises:
        ValueError: the text is not an origin.
    """
    parts = urlsplit(text)
    if not parts.scheme or not parts.netloc or parts.path or parts.query:
        raise ValueError(
            "an origin is a scheme, a host and perhaps a port, with no slash at the end, as in"
            f" https://app.example.com, not {text!r}"
        )
    return text


def _origins(text: str) -> tuple[str, ...]:
    items = _list(text)
    for item in items:
        if item != "*":
            try:
                check_origin(item)
            except ValueError as exc:
                raise ValueError(f"has {item!r}: {exc}") from None
    return items


def _addresses(text: str) -> tuple[str, ...]:
    items = _list(text)
    for item in items:
        if item == "*":
            raise ValueError(
                "may not be *: every client could choose its own address; list the addresses"
                " or networks of your proxies, as in 10.0.0.5,10.1.0.0/16"
            )
        try:
            ip_network(item)
        except ValueError as exc:
            raise ValueError(
                f"has {item!r}, which is not an IP address or network: {exc}"
            ) from None
    return items


def _bool(text: str) -> bool:
    match text.lower():
        case "1" | "true" | "yes" | "on":
            return True
        case "0" | "false" | "no" | "off":
            return False
    raise ValueError(f"should be true or false, not {text!r}")


def _function(text: str) -> str:
    module, colon, function = text.partition(":")
    if not colon or not module or not function:
        raise ValueError(f"should be package.module:function, not {text!r}")
    return text


def _between(low: int, high: int, unit: str) -> Callable[[str], int]:
    return _number(int, low, high, f"a whole number of {unit}")


def _seconds(low: int, high: int) -> Callable[[str], float]:
    return _number(float, low, high, "a number of seconds")


def _number(convert: type[N], low: int, high: int, noun: str) -> Callable[[str], N]:
    def parse(text: str) -> N:
        problem = f"should be {noun} from {low} to {high}, not {text!r}"
        try:
            number = convert(text)
        except ValueError:
            raise ValueError(problem) from None
        if not low <= number <= high:
            raise ValueError(problem)
        return number

    return parse


def _port(text: str) -> int:
    if text.startswith("tcp://"):
        raise ValueError(
            f"should be a port number, not {text!r}: Kubernetes sets this variable for a Service"
            " that is called jobcast; give the pod enableServiceLinks: false"
        )
    if not text.isdecimal() or not 0 <= int(text) <= 65535:
        raise ValueError(f"should be a port number from 0 to 65535, not {text!r}")
    return int(text)


def path_prefix(text: str) -> str:
    """Return a path prefix with a leading slash and no trailing slash.

    Raises:
        ValueError: the text is not a path.
    """
    path = text.strip("/")
    if not re.fullmatch(r"[A-Za-z0-9._~/-]*", path) or "//" in path:
        raise ValueError(f"should be a path such as /jobs, not {text!r}")
    return f"/{path}" if path else ""


def console_path(text: str) -> str:
    """Return the path of the console; an empty string if it is switched off.

    Raises:
        ValueError: the text is no path, or a path of the server itself.

    >>> console_path("true"), console_path("/ops/jobs/"), console_path("off")
    ('/console', '/ops/jobs', '')
    """
    if not text.startswith("/"):
        try:
            return DEFAULT_CONSOLE if _bool(text) else ""
        except ValueError:
            raise ValueError(f"should be true or a path such as /console, not {text!r}") from None
    path = path_prefix(text)
    first = path.partition("/")[2].partition("/")[0]
    if not first or first in SERVER_PATHS:
        raise ValueError(f"should be a path that the server does not use itself, not {text!r}")
    return path


def _public_url(text: str) -> str:
    if text.startswith("/"):
        return path_prefix(text)
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment:
        raise ValueError(
            "should be a URL such as https://jobs.example.com, or a path such as /jobcast,"
            f" not {text!r}"
        )
    return text.rstrip("/")


def _log_level(text: str) -> str:
    if text.lower() not in ("off", *LEVELS):
        raise ValueError(f"should be one of off, {', '.join(LEVELS)}, not {text!r}")
    return text.lower()


def misspelt(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the unknown ``JOBCAST_*`` variables, each with the most similar setting.

    The result omits variables that Kubernetes sets for a Service called ``jobcast``. The value is
    empty if no setting is similar.
    """
    settings = [PREFIX + name.upper() for name in _PARSERS]
    known = {*settings, *(name + FILE_SUFFIX for name in settings), SERVED_ON, *_OTHERS}
    unknown = sorted(
        name
        for name in environ
        if name.startswith(PREFIX) and name not in known and not _OF_KUBERNETES.search(name)
    )
    return {name: _nearest(name) for name in unknown}


def _nearest(name: str) -> str:
    suffix = FILE_SUFFIX if name.endswith(FILE_SUFFIX) else ""
    stem = name.removeprefix(PREFIX).removesuffix(suffix).lower()
    near = get_close_matches(stem, _PARSERS, n=1)
    return f"{PREFIX}{near[0].upper()}{suffix}" if near else ""


def names() -> Iterator[str]:
    """Return the names of the settings in a Celery configuration."""
    return (f"{PREFIX}{name}".lower() for name in _PARSERS)


_PARSERS: Final[Mapping[str, Callable[[str], Any]]] = {
    "url": str,
    "prefix": check_prefix,
    "jwt_secret": _secret,
    "jwt_secrets": _secrets,
    "jwt_public_key": _public_key,
    "jwt_public_keys": _public_keys,
    "jwt_private_key": parse_private_key,
    "jwks_url": _http_url,
    "jwt_algorithms": _algorithms,
    "jwt_audience": str,
    "jwt_issuer": str,
    "jwt_max_lifetime": _between(1, 10 * 365 * 24 * 3600, "seconds"),
    "authenticate": _function,
    "token_in_query": _bool,
    "cors_origins": _origins,
    "insecure_any_origin": _bool,
    "authorize": _function,
    "authorize_timeout": _seconds(1, 60),
    "reauthorize": _seconds(0, 24 * 3600),
    "http_api": _bool,
    "console": console_path,
    "history_ttl": _between(1, 30 * 24 * 3600, "seconds"),
    "history_size": _between(10, 1_000_000, "events"),
    "feed_size": _between(0, 100_000, "jobs"),
    "summary_ttl": _between(1, 366 * 24 * 3600, "seconds"),
    "result_limit": _between(256, 16 * 1024 * 1024, "bytes"),
    "max_jobs": _between(1, 100_000, "jobs"),
    "host": str,
    "port": _port,
    "path_prefix": path_prefix,
    "public_url": _public_url,
    "workers": _between(1, 256, "processes"),
    "drain_seconds": _between(0, 3600, "seconds"),
    "send_buffer": _between(64 * 1024, 1024**3, "characters"),
    "send_memory": _between(1024 * 1024, 1024**4, "characters"),
    "send_timeout": _between(1, 3600, "seconds"),
    "handshake_timeout": _between(1, 300, "seconds"),
    "max_connections": _between(0, 10_000_000, "connections"),
    "max_unauthenticated": _between(1, 1_000_000, "connections"),
    "max_connections_per_subject": _between(0, 1_000_000, "connections"),
    "max_connections_per_address": _between(0, 1_000_000, "connections"),
    "trusted_proxies": _addresses,
    "message_rate": _between(1, 100_000, "messages a second"),
    "rate_patience": _seconds(1, 600),
    "history_rate": _between(1024, 1024**3, "characters a second"),
    "feed_rate": _between(2, 100_000, "summaries a second"),
    "lease": _between(1, 3600, "seconds"),
    "lease_sidecar": _bool,
    "lost_after": _between(1, 7 * 24 * 3600, "seconds"),
    "enqueue_timeout": _seconds(0, 60),
    "store_progress": _bool,
    "task_events": _bool,
    "metrics": _bool,
    "log_level": _log_level,
    "log_loggers": _list,
}
