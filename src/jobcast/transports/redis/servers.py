"""The servers of a Redis or Valkey deployment: one, a group behind Sentinels, or a cluster.

==============================  =================================================================
``redis://host:port/db``        one server; ``rediss://`` with TLS, ``unix:///path?db=0``
``redis+sentinel://h1,h2/0/s``  the master of the Sentinel service ``s``; ``rediss+sentinel://`` too
``redis+cluster://h1,h2``       a cluster, through some of its nodes; ``rediss+cluster://`` too
==============================  =================================================================

The schemes ``valkey`` and ``valkeys`` mean the same as ``redis`` and ``rediss``. A URL accepts
redis-py's options (``?ssl_ca_certs=/etc/ssl/redis.pem``).
"""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from typing import Any, Final, Literal
from urllib.parse import parse_qsl, urlencode, urlsplit

import redis
import redis.asyncio
from msgspec import Struct
from redis.asyncio.cluster import ClusterNode as AsyncClusterNode
from redis.asyncio.cluster import RedisCluster as AsyncRedisCluster
from redis.asyncio.connection import parse_url as async_parse_url
from redis.asyncio.retry import Retry as AsyncRetry
from redis.asyncio.sentinel import Sentinel as AsyncSentinel
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.connection import parse_url
from redis.exceptions import ConnectionError as LostConnection
from redis.exceptions import RedisClusterException, RedisError
from redis.retry import Retry
from redis.sentinel import Sentinel

from jobcast.transports.prefix import DEFAULT_PREFIX

Client = redis.Redis | RedisCluster
AsyncClient = redis.asyncio.Redis | AsyncRedisCluster
Shape = Literal["one", "sentinel", "cluster"]

CONNECT_TIMEOUT: Final = 2.0  # seconds
ANSWER_TIMEOUT: Final = 5.0  # seconds
# The message omits the given port, which may be part of a password whose @ is missing.
UNUSABLE_PORT: Final = "should be a URL with a usable port, a number from 0 to 65535"
DEFAULT_PORTS: Final[Mapping[Shape, int]] = {"one": 6379, "sentinel": 26379, "cluster": 6379}

#: Options of redis-py that change how replies are decoded; jobcast needs its own decoding.
READING_OPTIONS: Final = frozenset(
    {"decode_responses", "encoding", "encoding_errors", "parser_class", "legacy_responses"}
)

#: Exceptions of redis-py when a server is unreachable or refuses a command.
REDIS_ERRORS: Final = (RedisError, RedisClusterException, OSError)
#: The same in an event loop. uvloop raises RuntimeError for a write to a connection that is lost at
#: that moment, and redis-py raises AttributeError if the connection is lost while it is opened.
ASYNC_REDIS_ERRORS: Final = (*REDIS_ERRORS, RuntimeError, AttributeError)


class Servers(Struct, frozen=True, kw_only=True):
    """The deployment that a URL describes."""

    shape: Shape
    url: str  # of the only server, or of the first host
    hosts: tuple[tuple[str, int], ...] = ()
    service: str = ""  # the Sentinels' name for the master
    sentinel_options: dict[str, str] = {}
    options: dict[str, Any] = {}  # redis-py options that override jobcast's own

    @classmethod
    def at(cls, url: str, options: Mapping[str, Any] | None = None) -> Servers:
        """Parse a URL.

        Raises:
            ValueError: the URL is invalid; the message says why.
        """
        parts = urlsplit(url)
        scheme = parts.scheme.replace("valkeys", "rediss").replace("valkey", "redis")
        base, _, suffix = scheme.partition("+")
        given = dict(options or {})
        if not suffix:
            try:
                _ = parts.port
            except ValueError:
                raise ValueError(UNUSABLE_PORT) from None
            database = "" if base == "unix" else parts.path.strip("/")
            if database and not _is_number(database):
                raise ValueError(f"should end with the number of a database, not {database!r}")
            return cls(shape="one", url=base + url.removeprefix(parts.scheme), options=given)
        shape: Shape = "sentinel" if suffix == "sentinel" else "cluster"
        userinfo, at, listed = parts.netloc.rpartition("@")
        hosts = tuple(_host(text, DEFAULT_PORTS[shape]) for text in listed.split(","))
        database, _, service = parts.path.strip("/").partition("/")
        if shape == "sentinel" and not service:
            raise ValueError(
                "should end with a database and the name of the service, as in"
                " redis+sentinel://host1,host2,host3/0/mymaster"
            )
        if shape == "sentinel" and database and not _is_number(database):
            raise ValueError(f"should have the number of a database, not {database!r}")
        if shape == "cluster" and database not in ("", "0"):
            raise ValueError("should name no database: a cluster has one")
        query = dict(parse_qsl(parts.query))
        sentinel_options = {
            key.removeprefix("sentinel_"): query.pop(key)
            for key in ("sentinel_username", "sentinel_password")
            if key in query
        }
        host, port = hosts[0]
        host = f"[{host}]" if ":" in host else host
        return cls(
            shape=shape,
            url=f"{base}://{userinfo}{at}{host}:{port}/{database}"
            + (f"?{urlencode(query)}" if query else ""),
            hosts=hosts,
            service=service,
            sentinel_options=sentinel_options,
            options=given,
        )

    @property
    def sharded(self) -> bool:
        """Whether each channel belongs to one of several servers."""
        return self.shape == "cluster"

    def client(self) -> Client:
        """Return a client for commands.

        Raises:
            RedisClusterException: no node of the cluster is reachable.
        """
        if self.shape == "one":
            return redis.Redis.from_url(self.url, **self._bounds)
        ssl, kwargs = self._parsed()
        if self.shape == "sentinel":
            sentinels = Sentinel(
                self.hosts, sentinel_kwargs=self._to_sentinels(ssl, kwargs), ssl=ssl, **kwargs
            )
            master: redis.Redis = sentinels.master_for(self.service)
            return master
        nodes = [ClusterNode(host, port) for host, port in self.hosts]
        return RedisCluster(startup_nodes=nodes, ssl=ssl, **kwargs)

    def async_client(self) -> AsyncClient:
        """Return a client for commands that may be run twice; call this in a running loop.

        This method does not connect. If an idle connection was cut, the next command fails on it
        and is sent once more on another connection. A command that times out is not repeated.
        """
        again = {
            "retry": AsyncRetry(NoBackoff(), 1, supported_errors=(LostConnection,)),
            **self.options,
        }
        if self.shape == "one":
            return redis.asyncio.Redis.from_url(self.url, **{**self._bounds, **again})
        ssl, kwargs = self._parsed()
        if self.shape == "sentinel":
            sentinels = self._async_sentinels(ssl, {**kwargs, **again})
            master: redis.asyncio.Redis = sentinels.master_for(self.service)
            return master
        nodes = [AsyncClusterNode(host, port) for host, port in self.hosts]
        return AsyncRedisCluster(startup_nodes=nodes, ssl=ssl, **kwargs)

    async def close(self, client: AsyncClient) -> None:
        """Close the connections of a client, and those to its Sentinels."""
        await client.aclose()
        if isinstance(client, redis.asyncio.Redis):
            pool = client.connection_pool
            if isinstance(pool, SentinelConnectionPool):
                for sentinel in pool.sentinel_manager.sentinels:
                    await sentinel.aclose()

    async def subscriber_pools(self, client: AsyncClient) -> list[redis.asyncio.ConnectionPool]:
        """Look up the masters, and return a connection pool for subscriptions to each of them.

        Reads on these connections have no timeout: the caller has to detect a dead connection.

        Raises:
            RedisError, RedisClusterException, OSError: no Sentinel or cluster node is reachable.
        """
        lasting = {**self._bounds, "socket_timeout": None, "protocol": 2}
        if self.shape == "one":
            # With `from_url`, an option of the URL could give the reads a timeout.
            return [redis.asyncio.ConnectionPool(**{**async_parse_url(self.url), **lasting})]
        if isinstance(client, AsyncRedisCluster):
            await client.initialize()
            await client.nodes_manager.initialize()
            addresses = [(node.host, int(node.port)) for node in client.get_primaries()]
        else:
            addresses = [await self._discover_master()]
        parsed = {**async_parse_url(self.url), **lasting}
        return [
            redis.asyncio.ConnectionPool(**{**parsed, "host": host, "port": port})
            for host, port in addresses
        ]

    async def _discover_master(self) -> tuple[str, int]:
        sentinels = self._async_sentinels(*self._parsed())
        try:
            host, port = await sentinels.discover_master(self.service)
        finally:
            for sentinel in sentinels.sentinels:
                await sentinel.aclose()
        return host, port

    def _async_sentinels(self, ssl: bool, kwargs: Mapping[str, Any]) -> AsyncSentinel:
        return AsyncSentinel(
            self.hosts, sentinel_kwargs=self._to_sentinels(ssl, kwargs), ssl=ssl, **kwargs
        )

    @property
    def _bounds(self) -> dict[str, Any]:
        """Timeouts, and no retries by redis-py: jobcast repeats the whole operation."""
        return {
            "socket_connect_timeout": CONNECT_TIMEOUT,
            "socket_timeout": ANSWER_TIMEOUT,
            "retry": Retry(NoBackoff(), 0),
            **self.options,
        }

    def _parsed(self) -> tuple[bool, dict[str, Any]]:
        """Return whether the URL uses TLS, and redis-py's options without the address."""
        kwargs: dict[str, Any] = {**parse_url(self.url), **self._bounds}
        ssl = kwargs.pop("connection_class", None) is not None
        del kwargs["host"], kwargs["port"]
        if self.shape == "cluster":
            # A cluster client needs its own retries to follow a moved slot.
            for key in {"db", "retry"} - set(self.options):
                kwargs.pop(key, None)
        return ssl, kwargs

    def _to_sentinels(self, ssl: bool, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "socket_connect_timeout": CONNECT_TIMEOUT,
            "socket_timeout": CONNECT_TIMEOUT,
            "ssl": ssl,
            **{key: value for key, value in kwargs.items() if key.startswith("ssl_")},
            **self.sentinel_options,
        }


def check_url(url: str, _prefix: str = DEFAULT_PREFIX) -> None:
    """Check a URL and its options without connecting.

    Raises:
        ValueError: the URL is invalid.
    """
    servers = Servers.at(url)
    database = parse_url(servers.url).get("db", 0)
    if database < 0:
        raise ValueError(f"should have the number of a database, not {database}")
    if servers.shape == "cluster" and database:
        raise ValueError("should name no database: a cluster has one")
    base, _, query = servers.url.partition("?")
    # Options of the cluster client are not options of a connection.
    of_cluster = signature(RedisCluster).parameters if servers.shape == "cluster" else {}
    options = [(name, value) for name, value in parse_qsl(query) if name not in of_cluster]
    for name, _ in parse_qsl(query):
        if name in READING_OPTIONS:
            raise ValueError(
                f"has the option {name}, which changes how answers are read: leave it out"
            )
    try:
        for pool in (redis.ConnectionPool, redis.asyncio.ConnectionPool):
            pool.from_url(f"{base}?{urlencode(options)}").make_connection()
    except (TypeError, *REDIS_ERRORS) as exc:
        raise ValueError(f"has an option that redis-py does not take ({exc})") from None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def _host(text: str, default_port: int) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, str(default_port)
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"should list hosts as host:port, separated by commas, not {text!r}")
    return host.strip("[]"), int(port)
