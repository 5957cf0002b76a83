"""The leases of runs in Redis: workers renew them, one server process at a time monitors them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any, Final, TypeVar, cast

from jobcast.errors import TransportUnavailable
from jobcast.transports.cancellation import Cancellation
from jobcast.transports.leases import SCAN_LIMIT, Finding, Kind, Lease, LeaseTimeouts
from jobcast.transports.redis.cancellation import parse_cancellation
from jobcast.transports.redis.lua import script
from jobcast.transports.redis.names import Names
from jobcast.transports.redis.servers import ASYNC_REDIS_ERRORS, AsyncClient, Client

LEASES_AT_ONCE: Final = 1000  # leases per command
TAKE_OVER: Final = 3.0  # seconds without a scan until another process monitors the leases

RENEW_SCRIPT: Final = script("renew")
SCAN_SCRIPT: Final = script("leases")
ACKNOWLEDGE_SCRIPT: Final = script("acknowledge")

T = TypeVar("T")

logger = logging.getLogger(__name__)


def renew_leases(
    client: Client, names: Names, leases: Sequence[Lease], seconds: float
) -> list[Cancellation]:
    """Extend the leases so that they expire after ``seconds`` from now.

    Returns:
        The requests to cancel some of their jobs.

    Raises:
        RedisError, OSError: as raised by redis-py's client.
    """
    found: list[bytes] = []
    keys = names.running, names.cancelling
    for some in _batched(leases, LEASES_AT_ONCE):
        arguments = *keys, str(seconds), *map(str, some)
        found += cast("list[bytes]", client.eval(RENEW_SCRIPT, len(keys), *arguments))
    return [*map(parse_cancellation, found)]


def release_leases(client: Client, names: Names, leases: Sequence[Lease]) -> None:
    """Remove the leases of runs that have ended.

    Raises:
        RedisError, OSError: as raised by redis-py's client.
    """
    for some in _batched(leases, LEASES_AT_ONCE):
        pipeline = client.pipeline(transaction=False)
        for key in (names.running, names.stalled):
            pipeline.zrem(key, *map(str, some))
        pipeline.execute()


async def scan_leases(
    client: AsyncClient, names: Names, process: str, terms: LeaseTimeouts
) -> list[Finding]:
    """Return the findings to publish now, or none while another process monitors the leases.

    Args:
        client: the client of this process.
        names: the names of the keys.
        process: the id of this process.
        terms: the timeouts.

    Raises:
        TransportUnavailable: the store cannot be read or written.
    """
    keys = (names.running, names.stalled, names.watch)
    take_over = min(TAKE_OVER, terms.lease / 2)
    arguments = process, terms.lease, take_over, SCAN_LIMIT
    answer = iter(await _eval(client, SCAN_SCRIPT, keys, arguments))
    found = []
    for kind, member in zip(answer, answer, strict=True):
        try:
            lease = Lease.parse(member.decode())
        except ValueError:
            logger.warning("removed an invalid lease: %.200r", member)
            await _forget_lease(client, names, member)
        else:
            found.append(Finding(cast("Kind", kind.decode()), lease))
    return found


async def acknowledge_findings(
    client: AsyncClient, names: Names, findings: Sequence[Finding], terms: LeaseTimeouts
) -> None:
    """Mark findings as published.

    Raises:
        TransportUnavailable: the store cannot be written.
    """
    pairs = chain.from_iterable((finding.kind, str(finding.lease)) for finding in findings)
    keys = (names.running, names.stalled)
    await _eval(client, ACKNOWLEDGE_SCRIPT, keys, (terms.lost_after, *pairs))


async def _forget_lease(client: AsyncClient, names: Names, member: bytes) -> None:
    try:
        for key in (names.running, names.stalled):
            await client.zrem(key, member)
    except ASYNC_REDIS_ERRORS as exc:
        raise _unavailable(exc) from exc


async def _eval(
    client: AsyncClient, text: str, keys: Sequence[str], arguments: Sequence[object]
) -> Any:
    try:
        return await client.eval(text, len(keys), *keys, *map(str, arguments))
    except ASYNC_REDIS_ERRORS as exc:
        raise _unavailable(exc) from exc


def _unavailable(exc: Exception) -> TransportUnavailable:
    return TransportUnavailable(f"could not read or change leases: {exc}")


def _batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield the items in lists of at most ``size``."""
    remaining = iter(items)
    while batch := list(islice(remaining, size)):
        yield batch
