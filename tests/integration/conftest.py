"""A publisher to the session's transport, and a client of the session's server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from jobcast.events import JobEvent
from jobcast.transports import Origin, Outgoing, Retention, TransportPublisher, open_publisher
from tests.conftest import Valkey
from tests.support import Server
from tests.support.http_server import Publish, Token
from tests.support.owner import Owner
from tests.support.sse import http_client


@pytest.fixture(autouse=True)
def patient_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a busy RabbitMQ take its time to accept a connection."""
    monkeypatch.setattr("jobcast.transports.amqp.connection.CONNECT_TIMEOUT", 15.0)


@pytest.fixture
def publisher(valkey: Valkey) -> Iterator[TransportPublisher]:
    # A slow reader resumes from the history, which has to keep everything that it missed.
    publisher = open_publisher(valkey.url, Retention(ttl=600, size=100_000))
    yield publisher
    publisher.close()


@pytest.fixture
def publish(publisher: TransportPublisher) -> Publish:
    """Publish events: ``publish(event, event, owner="alice")``."""

    def publish(*events: JobEvent, owner: str = "alice") -> None:
        publisher.publish([Outgoing.of(event, Origin(owner=owner)) for event in events])

    return publish


@pytest.fixture
async def client(server: Server, token: Token) -> AsyncIterator[httpx.AsyncClient]:
    async with http_client(server.url, token()) as client:
        yield client


@pytest.fixture
def owner(valkey: Valkey) -> Iterator[Owner]:
    owner = Owner(valkey.url)
    yield owner
    owner.close()
