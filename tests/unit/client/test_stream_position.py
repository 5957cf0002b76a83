from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from jobcast.client.event_lines import StreamMessage
from jobcast.client.http import Unavailable
from jobcast.client.stream_position import StreamPosition
from jobcast.errors import JoinRefused
from jobcast.events import JobGap

TIME = "2026-01-15T09:30:00Z"


def receive(position: StreamPosition, name: str, cursor: str = "", **payload: Any) -> Any:
    data = json.dumps({"job_id": "42", **payload})
    return position.receive(StreamMessage(name, data, cursor))


def log(position: StreamPosition, seq: int, epoch: str = "9f") -> Any:
    line = {"level": "info", "message": "x", "timestamp": TIME, "seq": seq}
    return receive(position, "job_log", f"{epoch}:{seq}", **line)


def joined(position: StreamPosition, epoch: str = "9f", seq: int = 9) -> Any:
    return receive(position, "joined", epoch=epoch, seq=seq, status="started")


def test_event_is_passed_once() -> None:
    position = StreamPosition("42", None)
    assert joined(position) is None
    assert log(position, 1).seq == 1
    joined(position)
    assert log(position, 1) is None
    assert log(position, 2).seq == 2
    assert position.cursor == "9f:2"


def test_new_record_begins_at_its_first_event() -> None:
    position = StreamPosition("42", "9f:7")
    joined(position)
    assert log(position, 7) is None
    joined(position, "a0")
    assert log(position, 1, "a0").seq == 1


@pytest.mark.parametrize(("epoch", "cursor"), [("a0", "a0:0"), ("", None)])
def test_next_stream_resumes_at_the_start_of_a_new_record(epoch: str, cursor: str | None) -> None:
    position = StreamPosition("42", "9f:7")
    joined(position)
    assert position.cursor == "9f:7"
    joined(position, epoch)
    assert position.cursor == cursor


def test_gap_is_reported_once() -> None:
    position = StreamPosition("42", None)
    joined(position)
    assert receive(position, "job_gap", after=0, before=5) == JobGap(job_id="42", after=0, before=5)
    joined(position)
    assert receive(position, "job_gap", after=0, before=5) is None
    assert log(position, 5).seq == 5
    joined(position)
    assert receive(position, "job_gap", after=0, before=9) == JobGap(job_id="42", after=5, before=9)


def test_terminal_event_ends_the_job() -> None:
    position = StreamPosition("42", None)
    joined(position)
    event = receive(position, "job_complete", "9f:1", result=7, seq=1, timestamp=TIME)
    assert event.result == 7
    assert position.has_ended


@pytest.mark.parametrize(
    ("code", "error"), [("forbidden", JoinRefused), ("unavailable", Unavailable)]
)
def test_left_ends_the_stream(code: str, error: type[Exception]) -> None:
    with pytest.raises(error, match="a reason"):
        receive(StreamPosition("42", None), "left", code=code, message="a reason")


@pytest.mark.parametrize("data", ["{", '{"job_id":"42"}'])
def test_message_that_violates_the_protocol_is_logged(
    data: str, caplog: pytest.LogCaptureFixture
) -> None:
    position = StreamPosition("42", None)
    with caplog.at_level(logging.WARNING):
        assert position.receive(StreamMessage("job_log", data, "9f:1")) is None
    assert "job 42: ignored a message that violates the protocol" in caplog.text
    assert position.cursor == "9f:1"


def test_message_about_the_connection_is_no_event() -> None:
    assert receive(StreamPosition("42", None), "draining", closes_in=5) is None


@pytest.mark.parametrize("cursor", ["", "9f", ":7", "9f:x", "9f:-1", "9f:²"])
def test_invalid_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(ValueError, match="the cursor of a state"):
        StreamPosition("42", cursor)
