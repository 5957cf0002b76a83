"""The contract of transports that keep revoked tokens."""

from __future__ import annotations

import asyncio
import time

from jobcast.testing.contracts import TransportContract
from jobcast.testing.ends import (
    Ends,
    both_ends,
    eventually,
    on_both_ends,
    other_deployment,
    until,
)
from jobcast.transports import (
    DEFAULT_PREFIX,
)
from jobcast.transports.revocations import Revocation, SupportsRevocations, SupportsRevoking


class RevocationContract(TransportContract):
    """The tests for transports with revocations."""

    @on_both_ends
    async def test_a_revocation_reaches_every_server_process(self, ends: Ends, job_id: str) -> None:
        by_id = Revocation(jti=job_id, until=time.time() + 600)
        by_sub = Revocation(sub=f"{job_id} é", before=time.time(), until=time.time() + 600)
        received: list[Revocation] = []
        self._source(ends).watch_revocations(received.append)
        async with both_ends(ends.url, ends.worker_url, DEFAULT_PREFIX) as other:
            others: list[Revocation] = []
            self._source(other).watch_revocations(others.append)
            for revocation in (by_id, by_sub):
                await self._revoke(ends, revocation)
            for came in (received, others):
                await eventually(lambda came=came: {by_id, by_sub} <= {*came}, "revocation")  # type: ignore[misc]

    @on_both_ends
    async def test_late_server_process_reads_revocations_in_force(
        self, ends: Ends, job_id: str
    ) -> None:
        revoked = {Revocation(jti=f"{job_id}-{n}", until=time.time() + 600) for n in range(20)}
        for revocation in [*revoked, *revoked]:
            await self._revoke(ends, revocation)
        async with both_ends(ends.url, ends.worker_url, DEFAULT_PREFIX) as later:
            assert revoked <= {*await self._source(later).revocations()}
            # Reading changes nothing, and several processes may read at once.
            reads = (self._source(some).revocations() for some in (ends, later, ends, later))
            assert all(revoked <= {*read} for read in await asyncio.gather(*reads))

    @on_both_ends
    async def test_revocation_is_removed_when_the_token_has_expired(
        self, ends: Ends, job_id: str
    ) -> None:
        short = Revocation(jti=f"{job_id}-short", until=time.time() + 0.5)
        long = Revocation(jti=f"{job_id}-long", until=time.time() + 100 * 24 * 3600)
        for revocation in (short, long):
            await self._revoke(ends, revocation)

        async def is_forgotten() -> bool:
            kept = await self._source(ends).revocations()
            assert long in kept
            return short not in kept

        await until(is_forgotten)

    @on_both_ends
    async def test_prefixes_separate_revocations(self, ends: Ends, job_id: str) -> None:
        revocation = Revocation(jti=job_id, until=time.time() + 600)
        async with other_deployment(ends) as other:
            received: list[Revocation] = []
            self._source(ends).watch_revocations(received.append)
            await self._revoke(other, revocation)
            last = Revocation(jti=f"{job_id}-last", until=time.time() + 600)
            await self._revoke(ends, last)
            await eventually(lambda: last in received, "revocation")
            assert revocation not in received
            assert revocation not in await self._source(ends).revocations()
            assert revocation in await self._source(other).revocations()

    def _source(self, ends: Ends) -> SupportsRevocations:
        assert isinstance(ends.source, SupportsRevocations)
        return ends.source

    async def _revoke(self, ends: Ends, revocation: Revocation) -> None:
        assert isinstance(ends.publisher, SupportsRevoking)
        await asyncio.to_thread(ends.publisher.revoke, revocation)
