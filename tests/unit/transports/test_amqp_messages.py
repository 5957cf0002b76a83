"""The messages of RabbitMQ's transport."""

from __future__ import annotations

import pytest

from jobcast.events import JobStatus, packet_head
from jobcast.transports.amqp.publisher import decode, encode
from jobcast.transports.base import Outgoing


@pytest.mark.parametrize("status", ["started", "cancelling"])
def test_server_reads_the_statuses_of_later_workers(status: str) -> None:
    event = JobStatus(job_id="42", status=status)
    outgoing = Outgoing(job_id="42", kind="s", head=packet_head(event), state=status, number=3)
    assert decode(encode(outgoing, "publisher")) == (outgoing, "publisher")
