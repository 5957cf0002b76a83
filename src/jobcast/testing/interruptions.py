"""The contract of transports whose connections can break."""

from __future__ import annotations

import asyncio
from abc import abstractmethod

from jobcast.events import Cursor
from jobcast.testing.contracts import TransportContract
from jobcast.testing.ends import (
    Ends,
    eventually,
    line_of,
    log,
    on_both_ends,
    started,
)


class InterruptionContract(TransportContract):
    """The tests for transports whose connections can break."""

    @abstractmethod
    def interrupt(self) -> None:
        """Cut every connection to the server, or restart it without losing its data."""

    @on_both_ends
    async def test_interruption_loses_no_events(self, ends: Ends, job_id: str) -> None:
        await ends.source.subscribe(job_id)
        await ends.publish(started(job_id), log(job_id, 2), first=1)
        [first, _] = await ends.wait_received(2)
        await asyncio.to_thread(self.interrupt)
        for number in range(3, 23):
            await ends.publish_until_stored(log(job_id, number), first=number)
        snapshot = await ends.wait_stored(job_id, 22, Cursor(epoch=first.epoch, seq=2))
        await eventually(lambda: ends.source.ready, "source that is ready again")
        assert snapshot.recovered
        assert [line_of(message) for message in snapshot.events] == [str(n) for n in range(3, 23)]
        await ends.publish_until_stored(log(job_id, "after"), first=23)
        await eventually(
            lambda: line_of(ends.received[-1][1]) == "after", "event after the interruption"
        )
        # Live events may be missing: the history has them after the source has resumed.
        seqs = [message.seq for _, message in ends.received]
        assert seqs == sorted(set(seqs))
        assert ends.resumed or len(seqs) == 23
