"""The nodes of a cluster, for the blocking client; one server counts as one node."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar

import redis
from redis.cluster import RedisCluster

from jobcast.transports.redis.servers import REDIS_ERRORS, Client

ONLY_NODE: Final = ""  # the name of the node, if there is no cluster

T = TypeVar("T")

logger = logging.getLogger(__name__)


def group_by_node(
    client: Client, items: Iterable[T], key_of: Callable[[T], str]
) -> dict[str, tuple[redis.Redis, list[T]]]:
    """Return the items by the name of the node that has their keys, with a client of the node.

    Raises:
        RedisError, RedisClusterException, OSError: no node is reachable, or none has a key.
    """
    if not isinstance(client, RedisCluster):
        return {ONLY_NODE: (client, list(items))}
    grouped: dict[str, tuple[redis.Redis, list[T]]] = {}
    for item in items:
        node = client.get_node_from_key(key_of(item))
        if node.name not in grouped:
            grouped[node.name] = client.get_redis_connection(node), []
        grouped[node.name][1].append(item)
    return grouped


def subscribed(client: Client, channels: Iterable[str], *, sharded: bool) -> set[str]:
    """Return the channels that have subscribers.

    Raises:
        RedisError, RedisClusterException, OSError: a node is not reachable, or refuses to answer.
    """
    found: set[str] = set()
    for node, some in group_by_node(client, channels, lambda channel: channel).values():
        count = node.pubsub_shardnumsub if sharded else node.pubsub_numsub
        answer: Any = count(*some)
        found |= {channel.decode() for channel, subscribers in answer if subscribers}
    return found


def reload_slots(client: Client) -> None:
    """Reload the slots of a cluster, after an error that may come from outdated ones."""
    if isinstance(client, RedisCluster):
        try:
            client.nodes_manager.initialize()
        except REDIS_ERRORS as exc:
            logger.debug("could not reload the slots of the cluster: %s", exc)
