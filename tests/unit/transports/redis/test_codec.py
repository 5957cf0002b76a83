"""The events in the channels and streams of Redis."""

from __future__ import annotations

import pytest

from jobcast.transports import Message
from jobcast.transports.redis.codec import parse_entry, parse_messages, parse_progress


def test_message_has_the_epoch_and_one_event_per_line() -> None:
    data = b'epoch\n7 l 42["job_log",{"message":"a b"}]\n8 t 42["job_complete",{}]'
    assert parse_messages(data) == [
        Message("epoch", 7, "l", '42["job_log",{"message":"a b"}]'),
        Message("epoch", 8, "t", '42["job_complete",{}]'),
    ]


@pytest.mark.parametrize(
    "data", [b"", b"epoch", b"epoch\n", b"epoch\n7 l", b"epoch\nx l 42[]", b"epoch\n\xff"]
)
def test_other_messages_are_invalid(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"unpack|literal|no event|decode"):
        parse_messages(data)


def test_stream_entry_has_its_seq_in_the_id() -> None:
    entry = [b"7-0", [b"k", b"l", b"p", b"42[]"]]
    assert parse_entry("epoch", entry) == Message("epoch", 7, "l", "42[]")


def test_progress_of_a_record_begins_with_its_seq() -> None:
    assert parse_progress("epoch", b'9 42["job_progress",{"percentage":1}]') == Message(
        "epoch", 9, "p", '42["job_progress",{"percentage":1}]'
    )
