"""The revoked tokens in Redis."""

from __future__ import annotations

import logging
import time
from typing import cast

from jobcast.errors import TransportUnavailable
from jobcast.transports.redis.names import Names
from jobcast.transports.redis.servers import ASYNC_REDIS_ERRORS, AsyncClient
from jobcast.transports.revocations import Revocation

logger = logging.getLogger(__name__)


async def read_revocations(client: AsyncClient, names: Names) -> list[Revocation]:
    """Return the revocations that are in force, and remove the others.

    Raises:
        TransportUnavailable: the store cannot be read.
    """
    key, now = names.revoked, time.time()
    try:
        members = await client.zrangebyscore(key, now, "+inf")
    except ASYNC_REDIS_ERRORS as exc:
        raise TransportUnavailable(f"could not read {key}: {exc}") from exc
    try:
        await client.zremrangebyscore(key, "-inf", f"({now}")
    except ASYNC_REDIS_ERRORS as exc:
        # A server that refuses writes can still return the revocations.
        logger.debug("could not remove expired entries from %s: %s", key, exc)
    found = (parse_revocation(key, cast("bytes", member)) for member in members)
    return [revocation for revocation in found if revocation is not None]


def parse_revocation(place: str, data: bytes) -> Revocation | None:
    """Parse a revocation. Log an invalid one with its key or channel, and return None."""
    try:
        return Revocation.decode(data)
    except ValueError as exc:
        logger.warning("ignored an entry of %s that is not jobcast's: %s", place, exc)
        return None
