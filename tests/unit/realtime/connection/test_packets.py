"""Validation of clients' Socket.IO packets."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from socketio.packet import Packet

from jobcast.realtime.connection.packets import MAX_NAME, RESERVED, BadPacket, read_header


@pytest.mark.parametrize(
    ("packet", "kind", "namespace", "event"),
    [
        ('0{"token":"x"}', "0", "/", None),
        ("0", "0", "/", None),
        ('0/jobs,{"token":"x"}', "0", "/jobs", None),
        ("1", "1", "/", None),
        ('2["join_job",{"job_id":"42"}]', "2", "/", "join_job"),
        ('217["join_job",{"job_id":"42"}]', "2", "/", "join_job"),
        ('2/jobs,17["join_job"]', "2", "/jobs", "join_job"),
        ('2/jobs?a=b,17["join_job"]', "2", "/jobs", "join_job"),
        ('2[ "leave_job"]', "2", "/", "leave_job"),
        ("31[]", "3", "/", None),
    ],
)
def test_valid_packet_is_read(packet: str, kind: str, namespace: str, event: str | None) -> None:
    header = read_header(packet, binary=False)
    assert (header.type, header.namespace, header.event) == (kind, namespace, event)


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_reserved_name_is_refused_in_any_notation(name: str) -> None:
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in name)
    for written in (json.dumps(name), f'"{escaped}"', f'"\\u{ord(name[0]):04x}{name[1:]}"'):
        for prefix in ("2", "21", "2/jobs,1", "2  "[:1]):
            with pytest.raises(BadPacket, match="reserved"):
                read_header(f"{prefix}[{written},1]", binary=False)


@pytest.mark.parametrize(
    "packet",
    [
        "", "x", "4{}", "7", "2", "2{}", "2[]", "2[1]", '2["a', "2[{}]", '2"a"', b"2", None, 42,
        ["2"], '5["a"]', '51-["a",{"_placeholder":true,"num":0}]', "61-1[]",
        "\u0662[\"disconnect\"]", f'2["{"x" * (MAX_NAME + 1)}"]', '2["\\ud800"]',
    ],
    ids=repr,
)  # fmt: skip
def test_invalid_packet_is_refused(packet: object) -> None:
    with pytest.raises(BadPacket):
        read_header(packet, binary=False)


def test_number_of_attachments_is_limited() -> None:
    assert read_header('52-["a",{}]', binary=True).attachments == 2
    for count in ("65", "459999", "9999999999", "99999999999"):
        with pytest.raises(BadPacket):
            read_header(f'5{count}-["a"]', binary=True)


@given(
    st.sampled_from(["2", "2/a,", "20", "2/a,7"]),
    st.text(max_size=40),
    st.lists(st.integers() | st.text(max_size=5), max_size=3),
)
def test_event_name_matches_python_socketio(prefix: str, name: str, rest: list[object]) -> None:
    packet = f"{prefix}{json.dumps([name, *rest])}"
    try:
        header = read_header(packet, binary=False)
    except BadPacket:
        assert name in RESERVED
        return
    assert header.event == Packet(encoded_packet=packet).data[0] == name
