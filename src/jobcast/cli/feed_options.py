"""The options of the commands that list jobs."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

import click
from msgspec import Struct, structs

from jobcast.feeds import ALL, MAX_FEED_LIMIT, MINE, check_feed

DEFAULT_SERVER: Final = "http://127.0.0.1:8000"

LS_LIMIT: Final = 100  # jobs
TOP_LIMIT: Final = 1000  # jobs

F = TypeVar("F", bound=Callable[..., Any])

_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_AGO: Final = re.compile(r"([0-9]{1,6})([smhdw])")


class FeedOptions(Struct, frozen=True):
    """The jobs that a command shows: the arguments of ``JobClient.feed``."""

    name: str
    status: tuple[str, ...] | None
    tag: str | None
    task: str | None
    owner: str | None
    since: datetime | None
    limit: int

    @property
    def arguments(self) -> dict[str, Any]:
        return structs.asdict(self)


def _since(_: click.Context, __: click.Parameter, value: str | None) -> datetime | None:
    """Return a time from so long ago (``30m``), or from a date with or without a time of day."""
    if value is None:
        return None
    try:
        if (ago := _AGO.fullmatch(value)) is not None:
            return datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        return datetime.fromisoformat(value).astimezone()
    except (ValueError, OverflowError):
        raise click.BadParameter(
            "give 30m, 2h or 7d for so long ago, or a date such as 2026-11-27 or 2026-11-27T09:00,"
            f" not {value!r}"
        ) from None


def _check_feed(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    try:
        return None if value is None else check_feed(value)
    except ValueError as exc:
        raise click.BadParameter(str(exc)) from None


def _split(_: click.Context, __: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...] | None:
    states = tuple(state for text in value for state in text.split(",") if state)
    return states or None


_OPTIONS: Final = (
    click.option(
        "--feed",
        metavar="NAME",
        callback=_check_feed,
        help="The list: `mine`, `all`, owner:SUBJECT or tag:TAG. The default is `mine`, the jobs of"
        " the token's subject, or `all` without a token.",
    ),
    click.option(
        "--status",
        multiple=True,
        metavar="STATE",
        callback=_split,
        help="Only jobs in this state; also `running` and `failed`. May be repeated.",
    ),
    click.option("--tag", metavar="TAG", help="Only jobs with this tag."),
    click.option("--task", metavar="NAME", help="Only jobs of this Celery task."),
    click.option("--owner", metavar="SUBJECT", help="Only jobs of this owner."),
    click.option(
        "--since",
        metavar="TIME",
        callback=_since,
        help="Only jobs that were created then or later: 30m, 2h or 7d ago, or a date.",
    ),
    click.option("--url", default=DEFAULT_SERVER, show_default=True, help="The server's URL."),
    click.option(
        "--token",
        envvar="JOBCAST_TOKEN",
        help="The token to connect with  [JOBCAST_TOKEN]. The default is a new token for the list,"
        " signed with JOBCAST_JWT_SECRET or JOBCAST_JWT_SECRETS.",
    ),
    click.option(
        "--namespace",
        default="/",
        show_default=True,
        help="The Socket.IO namespace that the server attaches jobcast to.",
    ),
)


def feed_options(limit: int) -> Callable[[F], F]:
    """Return a decorator that adds the options to a command, with this default of ``--limit``."""
    limit_option = click.option(
        "--limit",
        type=click.IntRange(1, MAX_FEED_LIMIT),
        default=limit,
        show_default=True,
        help="The number of jobs, the newest ones.",
    )

    def decorate(command: F) -> F:
        for option in reversed((*_OPTIONS, limit_option)):
            command = option(command)
        return command

    return decorate


def feed_name(name: str | None, *, has_token: bool) -> str:
    """Return the name of the feed: by default `mine` with a token, and `all` without one.

    Raises:
        click.BadParameter: the feed is `mine`, and there is no token that names a subject.
    """
    if name == MINE and not has_token:
        raise click.BadParameter(
            "`mine` needs a token, whose subject owns the jobs; owner:SUBJECT does not",
            param_hint="--feed",
        )
    return name or (MINE if has_token else ALL)
