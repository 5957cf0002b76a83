"""Which transport a URL selects, and how its parts are parsed."""

from __future__ import annotations

from importlib.metadata import EntryPoint, EntryPoints

import pytest

from jobcast.errors import SettingsError
from jobcast.settings import Settings
from jobcast.transports import Transport, check_url, open_manager, open_publisher
from jobcast.transports.memory import MemoryPublisher
from jobcast.transports.redis.servers import Servers

OTHERS = Transport(
    "jobcast.transports.memory:MemoryPublisher",
    "jobcast.transports.memory:MemoryClientManager",
)


@pytest.fixture
def another(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package that provides a transport."""
    entry_point = EntryPoint("nats", f"{__name__}:OTHERS", "jobcast.transports")

    def installed(group: str, name: str) -> EntryPoints:
        return EntryPoints([entry_point]).select(group=group, name=name)

    monkeypatch.setattr("jobcast.transports.entry_points", installed)


def test_package_can_provide_a_transport(another: None) -> None:
    check_url("nats://somewhere")
    assert isinstance(open_publisher("nats://somewhere"), MemoryPublisher)
    open_manager("nats://somewhere")
    with pytest.raises(ValueError, match="begins with one of"):
        check_url("kafka://somewhere")


@pytest.mark.parametrize(
    ("url", "shape", "first", "hosts", "service"),
    [
        ("redis://h:1/2", "one", "redis://h:1/2", (), ""),
        ("valkey://h", "one", "redis://h", (), ""),
        ("valkeys://u:p@h:1/0?a=b", "one", "rediss://u:p@h:1/0?a=b", (), ""),
        ("unix:///run/r.sock?db=1", "one", "unix:///run/r.sock?db=1", (), ""),
        (
            "redis+sentinel://u:p@a,b:2/1/m?sentinel_password=s", "sentinel",
            "redis://u:p@a:26379/1", (("a", 26379), ("b", 2)), "m",
        ),
        ("rediss+cluster://a:1,b", "cluster", "rediss://a:1/", (("a", 1), ("b", 6379)), ""),
        ("valkeys+cluster://[::1]:7/0", "cluster", "rediss://[::1]:7/0", (("::1", 7),), ""),
    ],
)  # fmt: skip
def test_url_selects_shape_hosts_and_service(
    url: str, shape: str, first: str, hosts: tuple[tuple[str, int], ...], service: str
) -> None:
    servers = Servers.at(url)
    assert (servers.shape, servers.url, servers.hosts) == (shape, first, hosts)
    assert servers.service == service
    assert servers.sharded == (shape == "cluster")


def test_sentinels_have_their_own_credentials() -> None:
    servers = Servers.at("redis+sentinel://u:p@a/0/m?sentinel_username=x&sentinel_password=y")
    assert servers.sentinel_options == {"username": "x", "password": "y"}
    assert "sentinel_" not in servers.url


@pytest.mark.parametrize("scheme", ["redis", "rediss", "redis+cluster", "valkey+sentinel"])
@pytest.mark.parametrize(
    "option", ["decode_responses=True", "decode_responses=False", "encoding=utf-16"]
)
def test_option_that_changes_decoding_is_rejected(scheme: str, option: str) -> None:
    path = "0/mymaster" if "sentinel" in scheme else ""
    with pytest.raises(ValueError, match=f"has the option {option.partition('=')[0]}"):
        check_url(f"{scheme}://h:1/{path}?{option}")
    with pytest.raises(SettingsError, match="JOBCAST_URL has the option"):
        Settings.load({"JOBCAST_URL": f"{scheme}://h:1/{path}?{option}"})


async def test_url_options_set_no_timeout_for_subscriptions() -> None:
    servers = Servers.at("redis://h:1/0?socket_timeout=0.5&socket_connect_timeout=7")
    client = servers.async_client()
    (pool,) = await servers.subscriber_pools(client)
    assert pool.connection_kwargs["socket_timeout"] is None
    assert pool.connection_kwargs["host"] == "h"
    await servers.close(client)
    await pool.aclose()
