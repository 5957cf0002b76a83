"""The table of all settings, each with the parser of its value."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any, Final

from jobcast.settings.sources import FILE_SUFFIX, PREFIX
from jobcast.settings.token_keys import (
    algorithms,
    parse_private_key,
    public_key,
    public_keys,
    secret,
    secrets,
)
from jobcast.settings.values import (
    addresses,
    boolean,
    comma_separated,
    console_path,
    function_name,
    http_url,
    log_level,
    origins,
    path_prefix,
    port_number,
    public_url,
    seconds,
    whole_number,
)
from jobcast.transports.prefix import check_prefix

SERVED_ON: Final = "JOBCAST_SERVED_ON"  # the listening address, which `jobcast serve` sets

# Variables of jobcast that are not settings of a server or a worker.
_OTHERS: Final = ("JOBCAST_TOKEN", "JOBCAST_DEMO", "JOBCAST_DEMO_TOKEN_SECONDS")
_OF_KUBERNETES: Final = re.compile(r"_SERVICE_(HOST|PORT)(_|$)|_PORT_\d+_(TCP|UDP|SCTP)(_|$)")


PARSERS: Final[Mapping[str, Callable[[str], Any]]] = {
    "url": str,
    "prefix": check_prefix,
    "jwt_secret": secret,
    "jwt_secrets": secrets,
    "jwt_public_key": public_key,
    "jwt_public_keys": public_keys,
    "jwt_private_key": parse_private_key,
    "jwks_url": http_url,
    "jwt_algorithms": algorithms,
    "jwt_audience": str,
    "jwt_issuer": str,
    "jwt_max_lifetime": whole_number(1, 10 * 365 * 24 * 3600, "seconds"),
    "authenticate": function_name,
    "token_in_query": boolean,
    "cors_origins": origins,
    "insecure_any_origin": boolean,
    "authorize": function_name,
    "authorize_timeout": seconds(1, 60),
    "reauthorize": seconds(0, 24 * 3600),
    "http_api": boolean,
    "console": console_path,
    "history_ttl": whole_number(1, 30 * 24 * 3600, "seconds"),
    "history_size": whole_number(10, 1_000_000, "events"),
    "feed_size": whole_number(0, 100_000, "jobs"),
    "summary_ttl": whole_number(1, 366 * 24 * 3600, "seconds"),
    "result_limit": whole_number(256, 16 * 1024 * 1024, "bytes"),
    "max_jobs": whole_number(1, 100_000, "jobs"),
    "host": str,
    "port": port_number,
    "path_prefix": path_prefix,
    "public_url": public_url,
    "workers": whole_number(1, 256, "processes"),
    "drain_seconds": whole_number(0, 3600, "seconds"),
    "send_buffer": whole_number(64 * 1024, 1024**3, "characters"),
    "send_memory": whole_number(1024 * 1024, 1024**4, "characters"),
    "send_timeout": whole_number(1, 3600, "seconds"),
    "handshake_timeout": whole_number(1, 300, "seconds"),
    "max_connections": whole_number(0, 10_000_000, "connections"),
    "max_unauthenticated": whole_number(1, 1_000_000, "connections"),
    "max_connections_per_subject": whole_number(0, 1_000_000, "connections"),
    "max_connections_per_address": whole_number(0, 1_000_000, "connections"),
    "trusted_proxies": addresses,
    "message_rate": whole_number(1, 100_000, "messages a second"),
    "rate_patience": seconds(1, 600),
    "history_rate": whole_number(1024, 1024**3, "characters a second"),
    "feed_rate": whole_number(2, 100_000, "summaries a second"),
    "lease": whole_number(1, 3600, "seconds"),
    "lease_sidecar": boolean,
    "lost_after": whole_number(1, 7 * 24 * 3600, "seconds"),
    "enqueue_timeout": seconds(0, 60),
    "store_progress": boolean,
    "task_events": boolean,
    "metrics": boolean,
    "log_level": log_level,
    "log_loggers": comma_separated,
}


def misspelt(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the unknown ``JOBCAST_*`` variables, each with the most similar setting.

    The result omits variables that Kubernetes sets for a Service called ``jobcast``. The value is
    empty if no setting is similar.
    """
    settings = [PREFIX + name.upper() for name in PARSERS]
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
    near = get_close_matches(stem, PARSERS, n=1)
    return f"{PREFIX}{near[0].upper()}{suffix}" if near else ""


def names() -> Iterator[str]:
    """Return the names of the settings in a Celery configuration."""
    return (f"{PREFIX}{name}".lower() for name in PARSERS)
