"""Settings: read once, from the environment or from a mapping that a caller gives.

>>> Settings.load({"JOBCAST_PORT": "9000"}).port
9000
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Literal
from urllib.parse import urlsplit, urlunsplit

from msgspec import Struct, structs

from jobcast.errors import SettingsError
from jobcast.events import LEVELS
from jobcast.transports import DEFAULT_HISTORY_SIZE, DEFAULT_HISTORY_TTL, check_url
from jobcast.transports.leases import DEFAULT_LEASE, DEFAULT_LOST_AFTER, Terms

PREFIX: Final = "JOBCAST_"
DEFAULT_URL: Final = "redis://localhost:6379/0"
DEFAULT_RESULT_LIMIT: Final = 64 * 1024  # bytes of JSON
DEFAULT_MAX_JOBS: Final = 200  # joins of one connection
DEFAULT_SEND_BUFFER: Final = 1024 * 1024  # characters
DEFAULT_DRAIN_SECONDS: Final = 5
DEFAULT_ENQUEUE_TIMEOUT: Final = 0.25  # seconds
SECRET_MIN_LENGTH: Final = 32  # bytes: what RFC 7518 asks of an HS256 key

HMAC_ALGORITHMS: Final = ("HS256", "HS384", "HS512")
KEY_ALGORITHMS: Final = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
)  # fmt: skip

LogLevel = Literal["off", "debug", "info", "warning", "error", "critical"]


class Settings(Struct, frozen=True, kw_only=True):
    """Everything that can be set. ``docs/settings.md`` says what each is for.

    An instance may be shown and logged: secrets are left out of its ``repr``.
    """

    url: str = DEFAULT_URL
    jwt_secret: str | None = None
    jwt_public_key: str | None = None
    jwks_url: str | None = None
    jwt_algorithms: tuple[str, ...] = ()
    jwt_audience: str | None = None
    jwt_issuer: str | None = None
    cors_origins: tuple[str, ...] = ()  # none: the same origin only
    insecure_any_origin: bool = False
    authorize: str | None = None
    history_ttl: int = DEFAULT_HISTORY_TTL
    history_size: int = DEFAULT_HISTORY_SIZE
    result_limit: int = DEFAULT_RESULT_LIMIT
    max_jobs: int = DEFAULT_MAX_JOBS
    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1  # processes that share the port
    drain_seconds: int = DEFAULT_DRAIN_SECONDS
    send_buffer: int = DEFAULT_SEND_BUFFER  # characters that may wait for one connection
    lease: int = DEFAULT_LEASE  # seconds that a run lives without a word of its worker
    lost_after: int = DEFAULT_LOST_AFTER  # seconds that a job may be stalled
    enqueue_timeout: float = DEFAULT_ENQUEUE_TIMEOUT  # seconds that sending a task may wait
    store_progress: bool = False  # in Celery's result backend too
    metrics: bool = False
    log_level: LogLevel = "info"
    log_loggers: tuple[str, ...] = ()  # beside those of the task; "*" is every logger

    @classmethod
    def load(
        cls,
        environ: Mapping[str, str] | None = None,
        celery_conf: Mapping[str, Any] | None = None,
    ) -> Settings:
        """Read the settings.

        Args:
            environ: where the ``JOBCAST_*`` variables are; the process's environment by default.
                A blank one is not set.
            celery_conf: a Celery configuration, whose ``jobcast_*`` keys apply where the
                environment says nothing.

        Raises:
            SettingsError: a value is wrong; it names the variable and says what it should be.
        """
        environ = os.environ if environ is None else environ
        values: dict[str, Any] = {}
        for name, parse in _PARSERS.items():
            variable = PREFIX + name.upper()
            text = _text(environ.get(variable))
            if not text and celery_conf is not None:
                text = _text(celery_conf.get(variable.lower()))
            if not text:
                continue
            try:
                values[name] = parse(text)
            except ValueError as exc:
                raise SettingsError(variable, str(exc)) from None
        settings = cls(**values)
        settings._check()
        return settings

    def _check(self) -> None:
        if "*" in self.cors_origins and not self.insecure_any_origin:
            raise SettingsError(
                "JOBCAST_CORS_ORIGINS",
                "may not be *: list the origins, as in https://app.example.com"
                " (for a test, JOBCAST_INSECURE_ANY_ORIGIN=true allows it)",
            )
        keys = [self.jwt_secret, self.jwt_public_key, self.jwks_url]
        if sum(key is not None for key in keys) > 1:
            raise SettingsError(
                "JOBCAST_JWT_SECRET",
                "may not be set together with JOBCAST_JWT_PUBLIC_KEY or JOBCAST_JWKS_URL:"
                " tokens are verified by one of them",
            )
        allowed = HMAC_ALGORITHMS if self.jwt_secret is not None else KEY_ALGORITHMS
        if any(keys):
            for algorithm in self.jwt_algorithms:
                if algorithm not in allowed:
                    raise SettingsError(
                        "JOBCAST_JWT_ALGORITHMS",
                        f"has {algorithm}, which does not go with the key that is set;"
                        f" it may have {', '.join(allowed)}",
                    )

    def require_authentication(self) -> None:
        """Check that connections can be authenticated.

        Raises:
            SettingsError: no secret, public key or JWKS URL is set. There is no server without.
        """
        if not (self.jwt_secret or self.jwt_public_key or self.jwks_url):
            raise SettingsError(
                "JOBCAST_JWT_SECRET",
                "is not set, nor are JOBCAST_JWT_PUBLIC_KEY and JOBCAST_JWKS_URL: one of them is"
                " needed to authenticate connections. A secret for development:"
                ' python -c "import secrets; print(secrets.token_urlsafe(32))"',
            )

    @property
    def algorithms(self) -> tuple[str, ...]:
        """The JWT algorithms that are accepted; never taken from a token."""
        if self.jwt_algorithms:
            return self.jwt_algorithms
        return ("HS256",) if self.jwt_secret is not None else ("RS256", "ES256", "EdDSA")

    @property
    def terms(self) -> Terms:
        """How long nothing may be heard of a run."""
        return Terms(lease=self.lease, lost_after=self.lost_after)

    @property
    def masked_url(self) -> str:
        """The transport's URL without its password, for logs."""
        return mask_url(self.url)

    def __repr__(self) -> str:
        shown = structs.asdict(self) | {
            "url": self.masked_url,
            "jwt_secret": None if self.jwt_secret is None else "***",
        }
        return f"Settings({', '.join(f'{k}={v!r}' for k, v in shown.items())})"


def mask_url(url: str) -> str:
    """``url`` with its password replaced by ``***``."""
    parts = urlsplit(url)
    userinfo, at, hosts = parts.netloc.rpartition("@")
    if not at:
        return url
    user, colon, _ = userinfo.partition(":")
    return urlunsplit(parts._replace(netloc=f"{user}{colon and ':***'}@{hosts}"))


def _text(raw: object) -> str:
    """A value as text; an empty one where it is not set."""
    if raw is None:
        return ""
    return (",".join(map(str, raw)) if isinstance(raw, list | tuple) else str(raw)).strip()


def _url(text: str) -> str:
    check_url(text)
    return text


def _http_url(text: str) -> str:
    if urlsplit(text).scheme not in ("http", "https") or not urlsplit(text).netloc:
        raise ValueError("should be a URL such as https://auth.example.com/.well-known/jwks.json")
    return text


def _secret(text: str) -> str:
    if text.startswith(("-----BEGIN ", "ssh-", "ecdsa-")):
        # Anybody may have it: whoever does could sign tokens.
        raise ValueError("should be a secret, not a key: JOBCAST_JWT_PUBLIC_KEY takes a public one")
    if len(text.encode()) < SECRET_MIN_LENGTH:
        raise ValueError(
            f"should have at least {SECRET_MIN_LENGTH} bytes; this makes one:"
            ' python -c "import secrets; print(secrets.token_urlsafe(32))"'
        )
    return text


def _public_key(text: str) -> str:
    # Many process managers can't set a variable of several lines.
    text = text.replace("\\n", "\n")
    if "PUBLIC KEY" not in text and "CERTIFICATE" not in text:
        raise ValueError("should be a public key in PEM (-----BEGIN PUBLIC KEY-----)")
    return text


def _list(text: str) -> tuple[str, ...]:
    return tuple(item for item in (part.strip() for part in text.split(",")) if item)


def _algorithms(text: str) -> tuple[str, ...]:
    items = _list(text)
    for item in items:
        if item not in HMAC_ALGORITHMS + KEY_ALGORITHMS:
            known = ", ".join(HMAC_ALGORITHMS + KEY_ALGORITHMS)
            raise ValueError(f"has {item!r}; it may have {known}")
    return items


def _origins(text: str) -> tuple[str, ...]:
    items = _list(text)
    for item in items:
        parts = urlsplit(item)
        if item != "*" and (not parts.scheme or not parts.netloc or parts.path or parts.query):
            raise ValueError(
                f"has {item!r}; an origin is a scheme, a host and perhaps a port,"
                " as in https://app.example.com"
            )
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
    def parse(text: str) -> int:
        problem = f"should be a whole number of {unit} from {low} to {high}, not {text!r}"
        try:
            number = int(text)
        except ValueError:
            raise ValueError(problem) from None
        if not low <= number <= high:
            raise ValueError(problem)
        return number

    return parse


def _seconds(low: int, high: int) -> Callable[[str], float]:
    def parse(text: str) -> float:
        problem = f"should be a number of seconds from {low} to {high}, not {text!r}"
        try:
            number = float(text)
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


def _log_level(text: str) -> str:
    if text.lower() not in ("off", *LEVELS):
        raise ValueError(f"should be one of off, {', '.join(LEVELS)}, not {text!r}")
    return text.lower()


def names() -> Iterator[str]:
    """The names that settings have in a Celery configuration."""
    return (f"{PREFIX}{name}".lower() for name in _PARSERS)


_PARSERS: Final[Mapping[str, Callable[[str], Any]]] = {
    "url": _url,
    "jwt_secret": _secret,
    "jwt_public_key": _public_key,
    "jwks_url": _http_url,
    "jwt_algorithms": _algorithms,
    "jwt_audience": str,
    "jwt_issuer": str,
    "cors_origins": _origins,
    "insecure_any_origin": _bool,
    "authorize": _function,
    "history_ttl": _between(1, 30 * 24 * 3600, "seconds"),
    "history_size": _between(10, 1_000_000, "events"),
    "result_limit": _between(256, 16 * 1024 * 1024, "bytes"),
    "max_jobs": _between(1, 100_000, "jobs"),
    "host": str,
    "port": _port,
    "workers": _between(1, 256, "processes"),
    "drain_seconds": _between(0, 3600, "seconds"),
    "send_buffer": _between(64 * 1024, 1024**3, "characters"),
    "lease": _between(1, 3600, "seconds"),
    "lost_after": _between(1, 7 * 24 * 3600, "seconds"),
    "enqueue_timeout": _seconds(0, 60),
    "store_progress": _bool,
    "metrics": _bool,
    "log_level": _log_level,
    "log_loggers": _list,
}
