"""The canary distinguishes a silent server from a process that receives nothing."""

from __future__ import annotations

import asyncio

import pytest

from jobcast.errors import TransportUnavailable
from jobcast.transports import canary as module
from jobcast.transports.canary import SILENCE, UNANSWERED, Canary, NotReceiving


class Route:
    """A route that can deliver or lose canaries."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "INTERVAL", 0.0)
        self.now = 100.0
        self.online = True
        self.passes = True
        self.routed = True
        self.error: Exception | None = None
        self.sent = 0
        self.canary = Canary(self.send, lambda: self.online, lambda: self.now)
        self.canary.watch(["a route"])

    async def send(self, route: str) -> bool:
        self.sent += 1
        if self.error is not None:
            raise self.error
        if self.passes:
            self.canary.message_arrived(route)
        return self.routed

    async def turn(self, seconds: float) -> None:
        """Advance the clock, and let a canary be sent."""
        self.now += seconds
        await self.canary._send_where_silent()


@pytest.fixture
def route(monkeypatch: pytest.MonkeyPatch) -> Route:
    return Route(monkeypatch)


async def test_arriving_canaries_keep_the_process_ready(route: Route) -> None:
    for _ in range(100):
        await route.turn(1)
    assert route.canary.problem == ""
    assert route.canary.age == 0.0


async def test_no_canary_is_sent_while_other_messages_arrive(
    route: Route, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "INTERVAL", 2.0)
    for _ in range(10):
        route.now += 2
        route.canary.message_arrived("a route")
        await route.turn(0.5)
    assert route.sent == 0
    await route.turn(2)
    assert route.sent == 1


async def test_lost_canaries_raise_not_receiving(route: Route) -> None:
    route.passes = False
    for _ in range(UNANSWERED):
        await route.turn(1)
    with pytest.raises(NotReceiving, match="a route"):
        await route.turn(1)


async def test_unroutable_canary_raises_not_receiving_at_once(route: Route) -> None:
    route.passes = route.routed = False
    with pytest.raises(NotReceiving):
        await route.turn(1)


async def test_reconnecting_does_not_hide_a_broken_route(
    route: Route,
) -> None:
    route.passes = route.routed = False
    for _ in range(20):
        with pytest.raises(NotReceiving):
            await route.turn(1)
        route.canary.watch(["a route"])
    assert "has arrived for" in route.canary.problem
    route.passes = route.routed = True
    await route.turn(1)
    assert route.canary.problem == ""


async def test_suspended_process_has_no_broken_route(route: Route) -> None:
    for _ in range(10):
        # The process was suspended for a minute; the canary arrives when it resumes.
        await route.turn(60)
        assert route.canary.problem == ""


async def test_failing_sends_make_the_route_silent(route: Route) -> None:
    route.error = TransportUnavailable("the broker blocks")
    for _ in range(3):
        await route.turn(SILENCE / 2)
    assert "the broker blocks" in route.canary.problem
    route.error = None
    await route.turn(1)
    assert route.canary.problem == ""


async def test_silence_and_recovery_are_logged_once(
    route: Route, caplog: pytest.LogCaptureFixture
) -> None:
    route.error = TransportUnavailable("the broker blocks")
    task = asyncio.create_task(route.canary.run())
    for _ in range(20):
        route.now += SILENCE
        await asyncio.sleep(0)
    assert caplog.text.count("is not ready") == 1
    route.error = None
    for _ in range(20):
        await asyncio.sleep(0)
    assert caplog.text.count("arrive again") == 1
    task.cancel()


async def test_offline_process_sends_no_canaries(route: Route) -> None:
    route.online = False
    task = asyncio.create_task(route.canary.run())
    for _ in range(20):
        await asyncio.sleep(0)
    assert route.sent == 0
    task.cancel()
