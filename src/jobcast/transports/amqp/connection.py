"""URLs of RabbitMQ brokers, and connections to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from amqp.exceptions import AMQPError, MessageNacked
from kombu.connection import Connection
from kombu.exceptions import KombuError
from msgspec import Struct

from jobcast.transports.amqp.names import Names
from jobcast.transports.prefix import DEFAULT_PREFIX

CONNECT_TIMEOUT: Final = 2.0  # seconds
ANSWER_TIMEOUT: Final = 5.0  # seconds

BLOCKED: Final = "the broker blocks publishers: its memory or disk alarm is set"

#: Exceptions of Kombu and its driver when a broker is unreachable, or refuses a request or message.
KOMBU_ERRORS: Final = (KombuError, AMQPError, MessageNacked, OSError)


class Address(Struct, frozen=True):
    """The parts of a URL: the broker's URL, and the stock channel that gets the events too."""

    url: str
    channel: str | None

    @classmethod
    def of(cls, url: str) -> Address:
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query))
        channel = query.pop("channel", None)
        return cls(urlunsplit(parts._replace(query=urlencode(query))), channel)


def check_url(url: str, prefix: str = DEFAULT_PREFIX) -> None:
    """Check a URL without connecting.

    Raises:
        ValueError: the URL is invalid.
    """
    parts = urlsplit(url)
    try:
        _ = parts.port
    except ValueError:
        # The message omits the given port, which may be part of a password whose @ is missing.
        raise ValueError("should be a URL with a usable port, from 0 to 65535") from None
    if not parts.hostname:
        raise ValueError("should be a URL with a host, as in amqp://user:password@host:5672//")
    channel = Address.of(url).channel
    if channel in Names(prefix).exchanges:
        raise ValueError(f"should not have ?channel={channel}: that exchange is jobcast's own")
    try:
        connection(Address.of(url).url)
    except (TypeError, ValueError) as exc:
        raise ValueError(f"has an option that kombu does not take ({exc})") from None


def connection(
    url: str, *, on_blocked: Callable[[str], None] | None = None, **options: Any
) -> Connection:
    """Return a connection with timeouts and no automatic retries.

    Args:
        url: the broker's URL.
        on_blocked: called when the broker stops accepting messages from publishers.
        options: further options of Kombu.
    """
    return Connection(
        url,
        connect_timeout=CONNECT_TIMEOUT,
        transport_options={
            "read_timeout": ANSWER_TIMEOUT,
            "write_timeout": ANSWER_TIMEOUT,
            "on_blocked": on_blocked,
        },
        **options,
    )
