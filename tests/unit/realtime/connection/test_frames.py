"""jobcast's WebSocket frames, decoded by the websockets library."""

from __future__ import annotations

from collections.abc import Sequence

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

from jobcast.realtime.connection.frames import ROOT, FrameBatch, frame

SIZES = (0, 1, 125, 126, 127, 65535, 65536, 1_000_000)  # around the sizes where the header grows
PACKETS = ['42["a",{"n":1}]', '42["b",{"text":"grüße \\u0000 🎉"}]', '42["c"]']


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
    batch = FrameBatch(PACKETS)
    assert len(batch) == 3
    assert list(batch.texts) == PACKETS
    assert read(batch.frames) == PACKETS
    assert batch.frames is batch.frames  # encoded once for all followers


def test_empty_batch_has_no_bytes() -> None:
    batch = FrameBatch([])
    assert (len(batch), batch.frames, batch.packets, list(batch.values)) == (0, b"", [], [])


@pytest.mark.parametrize("namespace", ["/", "/jobs", "/a/b-c"])
def test_frames_and_packets_carry_the_namespace(namespace: str) -> None:
    batch = FrameBatch(PACKETS, namespace=namespace)
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
    batch = FrameBatch(PACKETS)
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


@pytest.mark.parametrize(
    ("values", "expected"),
    [((), [None, None, None]), (("a", None, "b"), ["a", None, "b"])],
)
def test_batch_has_one_value_per_packet(
    values: Sequence[str | None], expected: list[str | None]
) -> None:
    batch = FrameBatch(PACKETS, values)
    assert list(batch.values) == expected
    assert len(list(zip(batch.packets, batch.values, strict=True))) == 3
