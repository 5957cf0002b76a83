"""What waits for another publisher in a Socket.IO process, where RabbitMQ mixes what they say."""

from __future__ import annotations

import time

import pytest

from jobcast.events import JobComplete, JobEvent, JobLog, JobStatus
from jobcast.transports import Message, Origin, Outgoing
from jobcast.transports.amqp.publisher import encode
from jobcast.transports.amqp.source import HELD_TIMEOUT, KombuSource
from jobcast.transports.base import Predecessor
from tests.support import eventually


class Hearer:
    """A process that follows the job ``j``, and to which the broker delivers what it is told to."""

    def __init__(self) -> None:
        self.source = KombuSource("amqp://nowhere")
        self.source._jobs.add("j")
        self.source._on_message = lambda _, message: self.messages.append(message)
        self.messages: list[Message] = []

    def hear(self, publisher: str, number: int, event: JobEvent, after: str = "") -> None:
        outgoing = Outgoing.of(event, Origin(after=after), number)
        self.source._received(encode(outgoing, publisher))

    @property
    def lines(self) -> list[str]:
        """The messages of the logs that came."""
        packets = [message.packet for message in self.messages if message.kind == "l"]
        return [packet.partition('"message":"')[2].partition('"')[0] for packet in packets]


@pytest.fixture
def hearer() -> Hearer:
    return Hearer()


def started(attempt: int) -> JobStatus:
    return JobStatus(job_id="j", status="started", attempt=attempt)


def log(line: str) -> JobLog:
    return JobLog(job_id="j", level="info", message=line)


async def test_a_process_that_was_just_started_waits_for_nobody(hearer: Hearer) -> None:
    """It has not heard what was said before, and will not."""
    hearer.hear("second", 1, started(2), after="first 7")
    hearer.hear("second", 2, JobComplete(job_id="j", result=1))
    assert [message.kind for message in hearer.messages] == ["s", "t"]


async def test_a_retry_waits_for_the_attempt_before_also_without_a_record(hearer: Hearer) -> None:
    """The broker was away while the first attempt ran, and the retry's worker is back first."""
    now = int(time.time()) + 1
    hearer.hear("second", 1, started(2), after=str(Predecessor("first", 2, now)))
    hearer.hear("second", 2, log("two"))
    assert hearer.messages == []
    hearer.hear("first", 1, log("zero"))
    assert hearer.lines == ["zero"]
    hearer.hear("first", 2, log("one"))
    assert hearer.lines == ["zero", "one", "two"]


async def test_what_was_published_before_a_process_listened_is_not_waited_for(
    hearer: Hearer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hearer.source, "_listening_since", time.time() - HELD_TIMEOUT)
    before = int(time.time() - 2 * HELD_TIMEOUT)
    hearer.hear("second", 1, started(2), after=str(Predecessor("first", 2, before)))
    hearer.hear("second", 2, log("two"))
    assert hearer.lines == ["two"]


async def test_what_is_released_may_release_another(hearer: Hearer) -> None:
    hearer.hear("first", 1, log("zero"))
    hearer.hear("fourth", 1, started(4), after="third 2")
    hearer.hear("fourth", 2, log("four"))
    hearer.hear("third", 1, started(3), after="second 2")
    hearer.hear("third", 2, log("three"))
    hearer.hear("second", 1, started(2), after="first 2")
    hearer.hear("second", 2, log("two"))
    assert hearer.lines == ["zero"]
    hearer.hear("first", 2, log("one"))
    assert hearer.lines == ["zero", "one", "two", "three", "four"]
    assert hearer.source._held == {}


async def test_a_publisher_may_wait_twice(hearer: Hearer) -> None:
    """The task came back to the worker that had tried it before."""
    hearer.hear("first", 1, log("one"))
    hearer.hear("second", 1, started(2), after="first 2")
    hearer.hear("second", 2, log("three"))
    hearer.hear("second", 3, started(4), after="third 1")
    hearer.hear("second", 4, log("five"))
    hearer.hear("first", 2, log("two"))
    assert hearer.lines == ["one", "two", "three"]
    hearer.hear("third", 1, log("four"))
    assert hearer.lines == ["one", "two", "three", "four", "five"]
    assert hearer.source._held == {}


async def test_nobody_is_waited_for_for_ever(
    hearer: Hearer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobcast.transports.amqp.source.HELD_TIMEOUT", 0.05)
    hearer.hear("first", 1, log("zero"))
    hearer.hear("third", 1, started(3), after="second 2")
    hearer.hear("third", 2, log("two"))
    hearer.hear("second", 1, started(2), after="first 9")
    hearer.hear("second", 2, log("one"))
    await eventually(lambda: len(hearer.lines) == 3, "the lines of both")
    assert sorted(hearer.lines) == ["one", "two", "zero"]
    assert hearer.source._held == {}
