"""The canary: how it tells a silent server from a process that receives nothing."""

from __future__ import annotations

import asyncio

import pytest

from jobcast.errors import TransportUnavailable
from jobcast.transports import canary as module
from jobcast.transports.canary import SILENCE, UNANSWERED, Canary, NotReceiving


class Subscriber:
    """A route that can deliver or lose canary notes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "INTERVAL", 0.0)
        self.now = 100.0
        self.online = True
        self.passes = True
        self.routed = True
        self.error: Exception | None = None
        self.sent = 0
        self.canary = Canary(self.send, lambda: self.online, lambda: self.now)
        self.canary.watch(["a way"])

    async def send(self, way: str) -> bool:
        self.sent += 1
        if self.error is not None:
            raise self.error
        if self.passes:
            self.canary.message_arrived(way)
        return self.routed

    async def turn(self, seconds: float) -> None:
        """Advance the clock, and let the canary send a note."""
        self.now += seconds
        await self.canary._send_where_silent()


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> Subscriber:
    return Subscriber(monkeypatch)


async def test_notes_that_arrive_prove_that_the_process_hears(line: Subscriber) -> None:
    for _ in range(100):
        await line.turn(1)
    assert line.canary.problem == ""
    assert line.canary.age == 0.0


async def test_no_note_is_sent_while_other_messages_arrive(
    line: Subscriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "INTERVAL", 2.0)
    for _ in range(10):
        line.now += 2
        line.canary.message_arrived("a way")
        await line.turn(0.5)
    assert line.sent == 0
    await line.turn(2)
    assert line.sent == 1


async def test_notes_that_are_lost_make_a_process_deaf(line: Subscriber) -> None:
    line.passes = False
    for _ in range(UNANSWERED):
        await line.turn(1)
    with pytest.raises(NotReceiving, match="a way"):
        await line.turn(1)


async def test_a_note_that_reaches_nobody_makes_a_process_deaf_at_once(line: Subscriber) -> None:
    line.passes = line.routed = False
    with pytest.raises(NotReceiving):
        await line.turn(1)


async def test_connecting_again_and_again_does_not_make_a_deaf_process_ready(
    line: Subscriber,
) -> None:
    line.passes = line.routed = False
    for _ in range(20):
        with pytest.raises(NotReceiving):
            await line.turn(1)
        line.canary.watch(["a way"])
    assert "has arrived for" in line.canary.problem
    line.passes = line.routed = True
    await line.turn(1)
    assert line.canary.problem == ""


async def test_a_process_that_had_no_time_is_not_deaf(line: Subscriber) -> None:
    for _ in range(10):
        # The process was suspended for a minute; the note arrives when it resumes.
        await line.turn(60)
        assert line.canary.problem == ""


async def test_a_way_on_which_nothing_can_be_sent_is_silent(line: Subscriber) -> None:
    line.error = TransportUnavailable("the broker blocks")
    for _ in range(3):
        await line.turn(SILENCE / 2)
    assert "the broker blocks" in line.canary.problem
    line.error = None
    await line.turn(1)
    assert line.canary.problem == ""


async def test_silence_and_its_end_are_logged_once(
    line: Subscriber, caplog: pytest.LogCaptureFixture
) -> None:
    line.error = TransportUnavailable("the broker blocks")
    task = asyncio.create_task(line.canary.run())
    for _ in range(20):
        line.now += SILENCE
        await asyncio.sleep(0)
    assert caplog.text.count("is not ready") == 1
    line.error = None
    for _ in range(20):
        await asyncio.sleep(0)
    assert caplog.text.count("arrive again") == 1
    task.cancel()


async def test_nothing_is_sent_without_a_connection(line: Subscriber) -> None:
    line.online = False
    task = asyncio.create_task(line.canary.run())
    for _ in range(20):
        await asyncio.sleep(0)
    assert line.sent == 0
    task.cancel()
