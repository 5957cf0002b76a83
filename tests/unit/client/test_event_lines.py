from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from jobcast.client.event_lines import StreamMessage, read_messages

STREAM = (
    "retry: 2000\n\n:\n\nevent: job_log\ndata: {\"message\":\"a\u2028b\x85c: d\"}\nid: 9f:1\n\n"
    "event: left\ndata: {}\n\n"
).encode()  # fmt: skip
MESSAGES = [
    StreamMessage("job_log", '{"message":"a\u2028b\x85c: d"}', "9f:1"),
    StreamMessage("left", "{}", ""),
]


@given(cuts=st.lists(st.integers(0, len(STREAM)), max_size=20))
def test_messages_do_not_depend_on_the_chunks(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    chunks = [STREAM[start:end] for start, end in pairwise(edges)]
    assert list(read_messages(chunks)) == MESSAGES


def test_incomplete_message_is_omitted() -> None:
    assert list(read_messages([STREAM[:-1]])) == MESSAGES[:1]
