"""Events that wait for another publisher's events, which RabbitMQ delivers in any order."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from jobcast.events import JobComplete, JobEvent, JobLog, JobStatus
from jobcast.transports import Message, Origin, Outgoing
from jobcast.transports.amqp.publisher import encode
from jobcast.transports.amqp.source import HELD_TIMEOUT, KombuSource
from jobcast.transports.base import Predecessor
from tests.support import eventually


class Hearer:
    """A server process that follows the job ``j``, and the messages it has received."""

    def __init__(self) -> None:
        self.source = KombuSource("amqp://nowhere")
        self.source._jobs.add("j")
        self.source._on_message = lambda _, message: self.messages.append(message)
        self.messages: list[Message] = []

    def hear(
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
def hearer() -> Hearer:
    return Hearer()


def started(attempt: int) -> JobStatus:
    return JobStatus(job_id="j", status="started", attempt=attempt)


def log(line: str) -> JobLog:
    return JobLog(job_id="j", level="info", message=line)


async def test_a_process_that_was_just_started_waits_for_nobody(hearer: Hearer) -> None:
    """The process was not running when the earlier events were published."""
    hearer.hear("second", 1, started(2), after="first 7")
    hearer.hear("second", 2, JobComplete(job_id="j", result=1))
    assert [message.kind for message in hearer.messages] == ["s", "t"]


async def test_a_retry_waits_for_the_attempt_before_also_without_a_record(hearer: Hearer) -> None:
    """After a broker outage, the retry's worker reconnects before the first attempt's worker."""
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
    """A later attempt runs on a worker that ran an earlier attempt too."""
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


async def test_the_end_of_a_batch_waits_for_its_beginning_which_comes_again(
    hearer: Hearer,
) -> None:
    """The queue was bound while the batch was published for the first time."""
    hearer.hear("first", 3, log("before"))
    hearer.hear("first", 9, log("three"), previous=8)
    assert hearer.lines == ["before"]
    hearer.hear("first", 7, log("one"), previous=3)
    hearer.hear("first", 8, log("two"), previous=7)
    hearer.hear("first", 9, log("three"), previous=8)
    assert hearer.lines == ["before", "one", "two", "three"]
    assert hearer.source._held == {}


@given(st.lists(st.integers(1, 8), max_size=5))
async def test_a_batch_of_which_each_try_delivers_the_end_is_whole_after_the_last(
    beginnings: list[int],
) -> None:
    hearer = Hearer()
    hearer.hear("first", 1, log("1"))
    for beginning in [*beginnings, 1]:
        for number in range(beginning + 1, 10):
            hearer.hear("first", number, log(str(number)), previous=number - 1)
    assert hearer.lines == [str(number) for number in range(1, 10)]
    assert hearer.source._held == {}


async def test_an_event_that_was_lost_is_not_waited_for_for_ever(
    hearer: Hearer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobcast.transports.amqp.source.HELD_TIMEOUT", 0.05)
    hearer.hear("first", 1, log("one"))
    hearer.hear("first", 4, log("four"), previous=3)
    hearer.hear("first", 5, log("five"), previous=4)
    await eventually(lambda: len(hearer.lines) == 3, "the lines that came")
    assert hearer.lines == ["one", "four", "five"]
    assert hearer.source._held == {}


async def test_a_process_that_was_just_started_does_not_wait_for_what_its_publisher_published(
    hearer: Hearer,
) -> None:
    hearer.hear("first", 4, log("four"), previous=3)
    assert hearer.lines == ["four"]
