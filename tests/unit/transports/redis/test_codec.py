"""The events in the channels and streams of Redis."""

from __future__ import annotations

import pytest

from jobcast.transports import Message
from jobcast.transports.redis.codec import parse_event, parse_line, parse_messages, seq_before


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


def test_stream_entry_has_its_seq_in_the_id_and_the_distance_to_the_line_before() -> None:
    entry = [b"7-0", [b"d", b"3", b"p", b"42[]"]]
    assert parse_line("epoch", entry) == Message("epoch", 7, "l", "42[]")
    assert seq_before(entry) == 4


def test_stored_event_has_its_seq_and_kind_before_the_packet() -> None:
    assert parse_event("epoch", b'9 p 42["job_progress",{"percentage":1}]') == Message(
        "epoch", 9, "p", '42["job_progress",{"percentage":1}]'
    )
