"""The messages of the RabbitMQ transport."""

from __future__ import annotations

import json
from typing import Any

import pytest

from jobcast.events import JobLog, JobStatus, packet_head
from jobcast.transports import Origin, Outgoing, Run
from jobcast.transports.amqp.codec import (
    LeaseUpdate,
    decode,
    decode_leases,
    encode,
    encode_leases,
)
from jobcast.transports.leases import Lease

RUN = Run(sending="s", attempt=2, delivery="d")
OUTGOING = Outgoing.of(
    JobLog(job_id="j", level="info", message='a "seq": in a line'),
    Origin(owner="alice", run=RUN, after="first 7"),
    3,
)


def message(**changes: Any) -> bytes:
    """Return the message of an event with changed fields."""
    return json.dumps(json.loads(encode(OUTGOING, "p")) | changes).encode()


def test_decoded_event_equals_the_encoded_one() -> None:
    assert decode(encode(OUTGOING, "p")) == (OUTGOING, "p")


def test_stock_server_reads_an_emit_to_the_room_of_the_job() -> None:
    emit = json.loads(encode(OUTGOING, "p"))
    assert (emit["method"], emit["event"], emit["room"]) == ("emit", "job_log", "job_j")
    [payload] = emit["data"]
    assert (payload["job_id"], payload["seq"]) == ("j", 3)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"[" * 100_000, message(event="news"), message(room="a"), message(data=[]),
        message(data=[{}]), message(jobcast=None),
    ],
    ids=["empty", "list", "nested", "event", "room", "no-data", "no-seq", "no-jobcast"],
)  # fmt: skip
def test_other_messages_are_no_events(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"not a job event|substring not found"):
        decode(body)


@pytest.mark.parametrize("seconds", [15.0, None])
def test_decoded_lease_update_equals_the_encoded_one(seconds: float | None) -> None:
    update = LeaseUpdate([Lease("j", RUN)], seconds)
    assert decode_leases(encode_leases(update)) == update


@pytest.mark.parametrize("body", [b"", b"{}", b'{"leases": [1]}'])
def test_other_messages_are_no_lease_updates(body: bytes) -> None:
    with pytest.raises(ValueError, match="not a message about leases"):
        decode_leases(body)


@pytest.mark.parametrize("status", ["started", "pausing"])
def test_server_reads_the_statuses_of_later_workers(status: str) -> None:
    event = JobStatus(job_id="42", status=status)
    outgoing = Outgoing(job_id="42", kind="s", head=packet_head(event), state=status, number=3)
    assert decode(encode(outgoing, "publisher")) == (outgoing, "publisher")
