"""Two deployments with different prefixes share a server and stay isolated."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from jobcast.testing import log
from jobcast.transports import ClientManager, Outgoing, open_manager, open_publisher
from tests.conftest import Valkey
from tests.support import TIMEOUT, eventually, new_id
from tests.support.rabbitmq import RabbitMQ


@pytest.fixture(params=["one database", "two databases", "rabbitmq"])
def urls(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Return the URLs of two deployments on one server."""
    if request.param == "rabbitmq":
        rabbitmq: RabbitMQ = request.getfixturevalue("rabbitmq")
        return rabbitmq.url, rabbitmq.url
    valkey: Valkey = request.getfixturevalue("valkey")
    other = "/3" if request.param == "two databases" else "/0"
    return valkey.url, valkey.url.removesuffix("/0") + other


@asynccontextmanager
async def receiving(url: str, prefix: str) -> AsyncIterator[ClientManager]:
    async def resumed() -> None:
        raise AssertionError("nothing was interrupted")

    manager = open_manager(url, prefix=prefix)
    manager.source.start(lambda *_: None, resumed)
    try:
        await eventually(lambda: manager.source.ready, "source that is ready")
        yield manager
    finally:
        await manager.aclose()


async def next_emit(manager: ClientManager) -> Any:
    """Return the data of the next emit that python-socketio broadcasts."""
    bus: asyncio.Queue[bytes] = manager.source.bus  # type: ignore[attr-defined]
    return msgspec.json.decode(await asyncio.wait_for(bus.get(), TIMEOUT))["data"]


async def test_emit_to_a_room_stays_in_its_deployment(urls: tuple[str, str]) -> None:
    prefixes = f"shop.{new_id()}", f"shop.{new_id()}:staging"
    publishers = [
        open_publisher(url, prefix=name) for url, name in zip(urls, prefixes, strict=True)
    ]
    async with (
        receiving(urls[0], prefixes[0]) as first,
        receiving(urls[1], prefixes[1]) as second,
    ):
        for data, publisher in zip(("first", "second"), publishers, strict=True):
            await asyncio.to_thread(publisher.emit, "news", data, room="lobby")
        assert await next_emit(first) == ["first"]
        assert await next_emit(second) == ["second"]
        # The server processes of a deployment also emit to each other.
        await second.emit("news", "from the second", room="lobby")  # type: ignore[attr-defined]
        await asyncio.to_thread(publishers[0].emit, "news", "from the first", room="lobby")
        assert await next_emit(first) == ["from the first"]
        assert await next_emit(second) == ["from the second"]
    for publisher in publishers:
        publisher.close()


async def test_every_key_begins_with_the_prefix(valkey: Valkey, job_id: str) -> None:
    prefix = f"shop-{new_id()}"
    publisher = open_publisher(valkey.url, prefix=prefix)
    await asyncio.to_thread(publisher.publish, [Outgoing.of(log(job_id))])
    keys = {key.decode() for key in valkey.command("KEYS", f"*{job_id}*")}
    assert keys == {f"{prefix}:{{{job_id}}}:state", f"{prefix}:{{{job_id}}}:lines"}
    publisher.close()


async def test_exchanges_and_queues_begin_with_the_prefix(rabbitmq: RabbitMQ) -> None:
    prefix = f"shop-{new_id()}"
    async with receiving(rabbitmq.url, prefix):
        exchanges = await asyncio.to_thread(rabbitmq.control, "list_exchanges", "name")
        bindings = await asyncio.to_thread(
            rabbitmq.control, "list_bindings", "source_name", "destination_name"
        )
    bound = {tuple(line.split("\t")) for line in bindings if line.startswith(prefix)}
    sources = {source for source, _ in bound}
    names = ("events", "events.servers", "leases", "revocations")
    assert sources == {prefix, *(f"{prefix}.{name}" for name in names)}
    assert sources == {name for name in exchanges if prefix in name}
    assert all(destination.startswith(prefix) for _, destination in bound)
