"""jobcast's WebSocket frames, decoded by the websockets library."""

from __future__ import annotations

import json
import re

import pytest
from engineio.packet import MESSAGE, PING, Packet
from hypothesis import example, given
from hypothesis import strategies as st
from socketio.packet import EVENT
from socketio.packet import Packet as SocketIOPacket
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN
from websockets.uri import parse_uri

from jobcast.events import LOG, PROGRESS
from jobcast.realtime.connection.frames import ROOT, FrameBatch, event_lines, frame, notice
from jobcast.transports.base import Message

SIZES = (0, 1, 125, 126, 127, 65535, 65536, 1_000_000)  # around the sizes where the header grows
PACKETS = ['42["a",{"n":1}]', '42["b",{"text":"grüße \\u0000 🎉"}]', '42["c",{}]']
MESSAGES = [Message("e", seq, LOG, packet) for seq, packet in enumerate(PACKETS, 1)]


def read(data: bytes, piece: int | None = None) -> list[str | bytes]:
    """Return the messages that a client decodes from data in chunks of ``piece`` bytes."""
    client = ClientProtocol(parse_uri("ws://test/"), state=OPEN, max_size=None)
    step = piece or max(1, len(data))
    messages: list[str | bytes] = []
    for start in range(0, len(data), step):
        client.receive_data(data[start : start + step])
        assert client.parser_exc is None
        for event in client.events_received():
            assert isinstance(event, Frame)
            assert event.fin
            content = bytes(event.data)
            assert event.opcode in (Opcode.TEXT, Opcode.BINARY)
            messages.append(content.decode() if event.opcode is Opcode.TEXT else content)
    # No data is left over: the client decodes exactly one more frame.
    client.receive_data(b"\x81\x03end")
    [event] = client.events_received()
    assert isinstance(event, Frame)
    assert bytes(event.data) == b"end"
    return messages


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("letter", ["x", b"\xff"])
def test_frame_of_any_length_decodes_to_one_message(size: int, letter: str | bytes) -> None:
    message = letter * size
    assert read(frame(message)) == [message]


@pytest.mark.parametrize(
    ("size", "header"), [(0, 2), (125, 2), (126, 4), (65535, 4), (65536, 10)]
)  # fmt: skip
def test_header_has_the_minimal_length(size: int, header: int) -> None:
    # Strict clients reject a length that is encoded in more bytes than needed (RFC 6455, 5.2).
    assert len(frame("x" * size)) == header + size


@pytest.mark.parametrize("count", [41, 42, 43, 62, 63, 21845, 21846])
def test_frame_length_counts_bytes_not_characters(count: int) -> None:
    assert read(frame("€" * count)) == ["€" * count]  # three bytes each


messages = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=200),
    st.binary(max_size=200),
    st.builds(lambda size: "x" * size, st.integers(100, 140)),
    st.builds(lambda size: b"x" * size, st.integers(65500, 65560)),
)


@given(st.lists(messages, max_size=3), st.integers(1, 70_000))
@example([""], 1)
@example(["", b"", "1", b"1"], 1)
def test_consecutive_frames_decode_in_order_for_any_chunk_size(
    sent: list[str | bytes], piece: int
) -> None:
    assert read(b"".join(frame(message) for message in sent), piece) == sent


def test_batch_frames_decode_to_its_packets_in_order() -> None:
    batch = FrameBatch(MESSAGES)
    assert len(batch) == 3
    assert list(batch.texts) == PACKETS
    assert read(batch.frames) == PACKETS
    assert batch.frames is batch.frames  # encoded once for all followers


def test_empty_batch_has_no_bytes() -> None:
    batch = FrameBatch([])
    assert (len(batch), batch.frames, batch.packets, list(batch.values)) == (0, b"", [], [])


@pytest.mark.parametrize("namespace", ["/", "/jobs", "/a/b-c"])
def test_frames_and_packets_carry_the_namespace(namespace: str) -> None:
    batch = FrameBatch(MESSAGES, namespace=namespace)
    framed = read(batch.frames)
    assert framed == [packet.encode() for packet in batch.packets]
    assert len(framed) == len(PACKETS)
    for text, plain in zip(framed, PACKETS, strict=True):
        # python-socketio parses packets without the Engine.IO type.
        assert isinstance(text, str)
        found = SocketIOPacket(encoded_packet=text[1:])
        expected = SocketIOPacket(encoded_packet=plain[1:])
        assert found.packet_type == EVENT
        assert (found.namespace or ROOT) == namespace
        assert found.data == expected.data
        assert found.id is None


def test_packets_encode_to_the_same_engine_io_messages() -> None:
    batch = FrameBatch(MESSAGES)
    assert [packet.packet_type for packet in batch.packets] == [MESSAGE] * 3
    assert [packet.encode() for packet in batch.packets] == PACKETS
    again = [Packet(encoded_packet=text) for text in read(batch.frames)]
    assert [(p.packet_type, p.data) for p in again] == [
        (p.packet_type, p.data) for p in batch.packets
    ]


@pytest.mark.parametrize(
    "packet", [Packet(PING), Packet(MESSAGE, "2[]"), Packet(MESSAGE, b"\x00\xff")]
)
def test_engine_io_control_packets_keep_their_encoding(packet: Packet) -> None:
    assert read(frame(packet.encode())) == [packet.encode()]


def test_progress_of_a_job_replaces_older_progress_of_the_same_job() -> None:
    batch = FrameBatch(
        [Message("e", 1, LOG, PACKETS[0]), Message("e", 2, PROGRESS, PACKETS[1])], "42"
    )
    assert list(batch.values) == [None, "42"]
    assert len(list(zip(batch.packets, batch.values, strict=True))) == 2


def test_event_stream_has_the_name_and_the_data_of_each_packet() -> None:
    batch = FrameBatch([notice('42["left",{"job_id":"42"}]'), *MESSAGES[:2]], "42")
    assert [read_event(text) for text in batch.events] == [
        ("left", {"job_id": "42"}),
        ("a", {"n": 1}),
        ("b", {"text": "grüße \x00 🎉"}),
    ]
    assert batch.events is batch.events  # encoded once for all followers


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda values: (
        st.lists(values)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), values)
    ),
    max_leaves=10,
)


@given(
    st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), json_values),
    st.sampled_from([None, 1]),
)
@example({"a": "x\r\ny\u2028z"}, None)
@example({"result": [1, 2]}, 1)
def test_any_payload_stays_on_one_line_of_the_event_stream(
    payload: dict[str, object], indent: int | None
) -> None:
    text = json.dumps(payload, ensure_ascii=False, indent=indent).replace("\n", "\r\n")
    lines = event_lines(f'42["job_complete",{text}]')
    assert len(re.split(rb"\r\n|\r|\n", lines)) == 3
    assert read_event(lines) == ("job_complete", payload)


def read_event(lines: bytes) -> tuple[str, object]:
    """Return the name and the payload of an event of a stream."""
    name, data, end = lines.decode().split("\n")
    assert name.startswith("event: ")
    assert data.startswith("data: ")
    assert end == ""
    return name[len("event: ") :], json.loads(data[len("data: ") :])
