"""The channels with which a server process verifies that each of its connections receives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from redis.asyncio.cluster import RedisCluster
from redis.exceptions import SlotNotCoveredError

from jobcast.errors import TransportUnavailable
from jobcast.transports.redis.refusals import describe_error
from jobcast.transports.redis.servers import ASYNC_REDIS_ERRORS, AsyncClient

CANARY_TRIES: Final = 4096  # channel names to try until each master of a cluster has one


def canary_channels(client: AsyncClient, own: str, subscribers: Sequence[str]) -> dict[str, str]:
    """Return this process's own channel for each subscriber, with the subscriber's name.

    Args:
        client: the client of the process.
        own: the beginning of the channels' names.
        subscribers: the names of the subscribers.
    """
    if not isinstance(client, RedisCluster):
        return {own: subscribers[0]}
    missing = {*subscribers}
    found: dict[str, str] = {}
    for number in range(CANARY_TRIES):
        if not missing:
            break
        channel = f"{own}:{{{number}}}"
        name = node_name(client, channel)
        if name in missing:
            missing.discard(name)
            found[channel] = name
    return found


async def send_canary(client: AsyncClient, channel: str) -> bool:
    """Publish a canary, and return whether a process receives it.

    Without a receiver, commands and subscriptions use different servers, as after a failover.

    Raises:
        TransportUnavailable: the canary could not be published.
    """
    try:
        if isinstance(client, RedisCluster):
            node = client.get_node_from_key(channel)
            receivers = await client.execute_command("SPUBLISH", channel, b"", target_nodes=node)
        else:
            receivers = await client.execute_command("PUBLISH", channel, b"")
    except ASYNC_REDIS_ERRORS as exc:
        raise TransportUnavailable(f"could not publish: {describe_error(exc)}") from exc
    return bool(receivers)


def node_name(client: RedisCluster, channel: str) -> str:
    """Return the name of the subscriber for a channel's node, or "" if no node serves it."""
    try:
        node = client.get_node_from_key(channel)
    except SlotNotCoveredError:
        node = None
    return "" if node is None else f"{node.host}:{node.port}"
