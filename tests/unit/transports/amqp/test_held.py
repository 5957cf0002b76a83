"""Events that wait for another publisher's events, which RabbitMQ delivers in any order."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from jobcast.events import JobComplete, JobEvent, JobLog, JobStatus
from jobcast.transports import Message, Origin, Outgoing
from jobcast.transports.amqp.codec import encode
from jobcast.transports.amqp.held import HELD_TIMEOUT
from jobcast.transports.amqp.source import KombuSource
from jobcast.transports.base import Predecessor
from tests.support import eventually


class Receiver:
    """A server process that follows the job ``j``, and the messages it has received."""

    def __init__(self) -> None:
        self.source = KombuSource("amqp://nowhere")
        self.source._jobs.add("j")
        self.source._on_message = lambda _, message: self.messages.append(message)
        self.messages: list[Message] = []

    def receive(
        self, publisher: str, number: int, event: JobEvent, after: str = "", previous: int = 0
    ) -> None:
        outgoing = Outgoing.of(event, Origin(after=after), number)
        outgoing = structs.replace(outgoing, previous=previous)
        self.source._received(encode(outgoing, publisher))

    @property
    def lines(self) -> list[str]:
        """Return the messages of the received log lines."""
        packets = [message.packet for message in self.messages if message.kind == "l"]
        return [packet.partition('"message":"')[2].partition('"')[0] for packet in packets]


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


def started(attempt: int) -> JobStatus:
    return JobStatus(job_id="j", status="started", attempt=attempt)


def log(line: str) -> JobLog:
    return JobLog(job_id="j", level="info", message=line)


async def test_new_process_does_not_wait_for_another_publisher(receiver: Receiver) -> None:
    """The process was not running when the earlier events were published."""
    receiver.receive("second", 1, started(2), after="first 7")
    receiver.receive("second", 2, JobComplete(job_id="j", result=1))
    assert [message.kind for message in receiver.messages] == ["s", "t"]


async def test_retry_without_a_record_waits_for_the_previous_attempt(receiver: Receiver) -> None:
    """After a broker outage, the retry's worker reconnects before the first attempt's worker."""
    now = int(time.time()) + 1
    receiver.receive("second", 1, started(2), after=str(Predecessor("first", 2, now)))
    receiver.receive("second", 2, log("two"))
    assert receiver.messages == []
    receiver.receive("first", 1, log("zero"))
    assert receiver.lines == ["zero"]
    receiver.receive("first", 2, log("one"))
    assert receiver.lines == ["zero", "one", "two"]


async def test_event_does_not_wait_for_one_from_before_the_process_listened(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiver.source._held, "_listening_since", time.time() - HELD_TIMEOUT)
    before = int(time.time() - 2 * HELD_TIMEOUT)
    receiver.receive("second", 1, started(2), after=str(Predecessor("first", 2, before)))
    receiver.receive("second", 2, log("two"))
    assert receiver.lines == ["two"]


async def test_released_event_releases_further_events(receiver: Receiver) -> None:
    receiver.receive("first", 1, log("zero"))
    receiver.receive("fourth", 1, started(4), after="third 2")
    receiver.receive("fourth", 2, log("four"))
    receiver.receive("third", 1, started(3), after="second 2")
    receiver.receive("third", 2, log("three"))
    receiver.receive("second", 1, started(2), after="first 2")
    receiver.receive("second", 2, log("two"))
    assert receiver.lines == ["zero"]
    receiver.receive("first", 2, log("one"))
    assert receiver.lines == ["zero", "one", "two", "three", "four"]
    assert len(receiver.source._held) == 0


async def test_publisher_can_wait_twice(receiver: Receiver) -> None:
    """A later attempt runs on a worker that ran an earlier attempt too."""
    receiver.receive("first", 1, log("one"))
    receiver.receive("second", 1, started(2), after="first 2")
    receiver.receive("second", 2, log("three"))
    receiver.receive("second", 3, started(4), after="third 1")
    receiver.receive("second", 4, log("five"))
    receiver.receive("first", 2, log("two"))
    assert receiver.lines == ["one", "two", "three"]
    receiver.receive("third", 1, log("four"))
    assert receiver.lines == ["one", "two", "three", "four", "five"]
    assert len(receiver.source._held) == 0


async def test_wait_for_another_publisher_is_bounded(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobcast.transports.amqp.held.HELD_TIMEOUT", 0.05)
    receiver.receive("first", 1, log("zero"))
    receiver.receive("third", 1, started(3), after="second 2")
    receiver.receive("third", 2, log("two"))
    receiver.receive("second", 1, started(2), after="first 9")
    receiver.receive("second", 2, log("one"))
    await eventually(lambda: len(receiver.lines) == 3, "lines of both publishers")
    assert sorted(receiver.lines) == ["one", "two", "zero"]
    assert len(receiver.source._held) == 0


async def test_end_of_a_batch_waits_for_the_repeated_beginning(
    receiver: Receiver,
) -> None:
    """The queue was bound while the batch was published for the first time."""
    receiver.receive("first", 3, log("before"))
    receiver.receive("first", 9, log("three"), previous=8)
    assert receiver.lines == ["before"]
    receiver.receive("first", 7, log("one"), previous=3)
    receiver.receive("first", 8, log("two"), previous=7)
    receiver.receive("first", 9, log("three"), previous=8)
    assert receiver.lines == ["before", "one", "two", "three"]
    assert len(receiver.source._held) == 0


@given(st.lists(st.integers(1, 8), max_size=5))
async def test_batch_is_complete_after_its_last_repetition(
    beginnings: list[int],
) -> None:
    receiver = Receiver()
    receiver.receive("first", 1, log("1"))
    for beginning in [*beginnings, 1]:
        for number in range(beginning + 1, 10):
            receiver.receive("first", number, log(str(number)), previous=number - 1)
    assert receiver.lines == [str(number) for number in range(1, 10)]
    assert len(receiver.source._held) == 0


async def test_wait_for_a_lost_event_is_bounded(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobcast.transports.amqp.held.HELD_TIMEOUT", 0.05)
    receiver.receive("first", 1, log("one"))
    receiver.receive("first", 4, log("four"), previous=3)
    receiver.receive("first", 5, log("five"), previous=4)
    await eventually(lambda: len(receiver.lines) == 3, "received lines")
    assert receiver.lines == ["one", "four", "five"]
    assert len(receiver.source._held) == 0


async def test_new_process_does_not_wait_for_an_earlier_event(
    receiver: Receiver,
) -> None:
    receiver.receive("first", 4, log("four"), previous=3)
    assert receiver.lines == ["four"]
