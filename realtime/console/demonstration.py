"""The site of ``jobcast demo``, and the checks that it runs nowhere else."""

import ipaddress
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from jobcast.errors import SettingsError
from jobcast.settings import SERVED_ON, Settings
from realtime.console.site import TOKEN_SECONDS, Site

MARK = "demo.json"  # the file that `jobcast demo` writes into its directory


def demonstration(
    settings: Settings,
    environ: Mapping[str, str] = os.environ,
) -> Site | None:
    """Return the site of the demo that started this process; None without a demo.

    The login of the site has no password, so only the demo's own machine may reach it.

    Raises:
        SettingsError: ``JOBCAST_DEMO`` is set, but the process does not belong to a demo or
            listens on an address that other machines can reach.
    """
    directory = environ.get("JOBCAST_DEMO")
    if not directory:
        return None
    mark = _mark(Path(directory))
    # Only `jobcast serve` reports its listening address.
    listening = environ.get(SERVED_ON)
    for where, host in (("JOBCAST_HOST", settings.host), ("the server's address", listening)):
        if not is_loopback(host):
            raise SettingsError(
                "JOBCAST_DEMO",
                f"may not be set where others can connect ({where} is {host or 'not known'}): it"
                " turns on a login that asks for no password. Only `jobcast demo` sets it",
            )
    return Site(
        settings=settings,
        directory=Path(directory),
        samples=Path(directory, "samples"),
        queue=str(mark["queue"]),
        token_seconds=_token_seconds(environ),
        is_demonstration=True,
    )


def is_loopback(host: str | None) -> bool:
    """Return whether a host is ``localhost`` or a loopback address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def _mark(directory: Path) -> dict[str, str]:
    """Return the content of the mark file, from a directory that only this user can access.

    Raises:
        SettingsError: the directory was not created by a demo of this user.
    """
    try:
        status = directory.stat()
        mark: dict[str, str] = json.loads((directory / MARK).read_text(encoding="utf-8"))
        mine = status.st_uid == os.geteuid() and stat.S_IMODE(status.st_mode) == 0o700
        if mine and "queue" in mark:
            return mark
    except (OSError, ValueError):
        pass  # reported below
    raise SettingsError(
        "JOBCAST_DEMO",
        "should not be set: it turns on a login that asks for no password, and only `jobcast demo`"
        f" sets it, to a directory of its own, which {directory} is not",
    )


def _token_seconds(environ: Mapping[str, str]) -> int:
    """Return the lifetime of the page's tokens, in seconds. Tests shorten it.

    Raises:
        SettingsError: the variable is not a whole number from 1 to 86,400.
    """
    text = environ.get("JOBCAST_DEMO_TOKEN_SECONDS") or str(TOKEN_SECONDS)
    if not text.isdecimal() or not 1 <= int(text) <= 24 * 3600:
        raise SettingsError(
            "JOBCAST_DEMO_TOKEN_SECONDS", f"should be a whole number of seconds, not {text!r}"
        )
    return int(text)
