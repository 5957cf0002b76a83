"""The contract of transports that keep leases."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from jobcast.events import JobComplete, JobStatus, RunStatus
from jobcast.testing.contracts import TransportContract
from jobcast.testing.ends import (
    Ends,
    new_job_id,
    on_both_ends,
    other_deployment,
    retrying,
    started,
    until,
)
from jobcast.transports import Origin, Outgoing, Run
from jobcast.transports.base import Required
from jobcast.transports.leases import (
    Finding,
    Lease,
    LeaseTimeouts,
    SupportsLeaseMonitoring,
    SupportsLeaseRenewal,
)


class LeaseContract(TransportContract):
    """The tests for transports with leases."""

    TERMS: ClassVar[LeaseTimeouts] = LeaseTimeouts(lease=0.6, lost_after=0.6)

    @on_both_ends
    async def test_unrenewed_lease_expires(self, ends: Ends, job_id: str) -> None:
        living, dead = Lease(job_id, Run("aa", 1, "d1")), Lease(job_id, Run("aa", 2, "d2", True))
        seen: list[Finding] = []

        async def living_goes_on() -> bool:
            await self._renew(ends, living)
            seen.extend(await self._scan(ends))
            return {f.kind for f in seen} == {"stalled", "lost"}

        await self._renew(ends, living, dead)
        await until(living_goes_on)
        assert {finding.lease for finding in seen} == {dead}
        assert [finding.kind for finding in seen] == ["stalled", "lost"]
        await asyncio.to_thread(self._publisher(ends).release, [living])

    @on_both_ends
    async def test_late_renewal_revives_a_stalled_run(self, ends: Ends, job_id: str) -> None:
        lease = Lease(job_id, Run("aa", 1, "d1"))
        seen: list[str] = []

        async def found(kind: str) -> bool:
            seen.extend(finding.kind for finding in await self._scan(ends))
            return kind in seen

        await self._renew(ends, lease)
        await until(lambda: found("stalled"))
        await self._renew(ends, lease, seconds=60)
        await until(lambda: found("revived"))
        for _ in range(3):
            assert not await self._scan(ends)
        assert seen == ["stalled", "revived"]
        await asyncio.to_thread(self._publisher(ends).release, [lease])

    @on_both_ends
    async def test_released_lease_does_not_expire(self, ends: Ends, job_id: str) -> None:
        released, other = (Lease(job_id, Run("aa", n, f"d{n}")) for n in (1, 2))
        seen: list[Lease] = []

        async def other_is_lost() -> bool:
            found = await self._scan(ends)
            seen.extend(finding.lease for finding in found)
            return any(finding.kind == "lost" for finding in found)

        await self._renew(ends, released, other)
        await asyncio.to_thread(self._publisher(ends).release, [released])
        await until(other_is_lost)
        assert set(seen) == {other}

    @on_both_ends
    async def test_prefixes_separate_leases(self, ends: Ends, job_id: str) -> None:
        mine, other = (Lease(job_id, Run("aa", n, f"d{n}")) for n in (1, 2))
        seen: list[Lease] = []

        async def mine_is_lost() -> bool:
            found = await self._scan(ends)
            seen.extend(finding.lease for finding in found)
            return any(finding.kind == "lost" for finding in found)

        async with other_deployment(ends) as deployment:
            await self._renew(deployment, other)
            await self._renew(ends, mine)
            await until(mine_is_lost)
        assert set(seen) == {mine}

    @on_both_ends
    async def test_finding_is_published_only_while_it_applies(
        self, ends: Ends, job_id: str
    ) -> None:
        """A lease may expire after the end of its run, and in another run of its job."""
        former, latter = Origin(run=Run("aa", 1, "d1")), Origin(run=Run("aa", 2, "d2"))
        unknown = new_job_id()

        async def publish(job_id: str, status: RunStatus, origin: Origin, state: Required) -> bool:
            assert isinstance(ends.source, SupportsLeaseMonitoring)
            event = JobStatus(job_id=job_id, status=status)
            outgoing = Outgoing.of(event, origin, requires=state)
            return await ends.source.publish([outgoing]) == [outgoing]

        await ends.publish(started(job_id), retrying(job_id, 2), origin=former)
        await ends.wait_stored(job_id, 2)
        assert not await publish(job_id, "stalled", former, "started")
        await ends.publish(started(job_id, 2), origin=latter)
        await ends.wait_stored(job_id, 3)
        assert not await publish(job_id, "stalled", former, "started")
        assert await publish(job_id, "stalled", latter, "started")
        assert not await publish(job_id, "stalled", latter, "started")
        assert await publish(job_id, "started", latter, "stalled")
        await ends.publish(JobComplete(job_id=job_id, result=1), origin=latter)
        await ends.wait_stored(job_id, 6)
        assert not await publish(job_id, "stalled", latter, "started")
        assert not await publish(unknown, "stalled", former, "stalled")
        assert (await ends.source.snapshot(job_id)).seq == 6

    def _publisher(self, ends: Ends) -> SupportsLeaseRenewal:
        assert isinstance(ends.publisher, SupportsLeaseRenewal)
        return ends.publisher

    async def _renew(self, ends: Ends, *leases: Lease, seconds: float = 0.6) -> None:
        await asyncio.to_thread(self._publisher(ends).renew, leases, seconds)

    async def _scan(self, ends: Ends) -> list[Finding]:
        assert isinstance(ends.source, SupportsLeaseMonitoring)
        await asyncio.sleep(0.05)  # the interval of a process that scans periodically
        found = await ends.source.scan(self.TERMS)
        await ends.source.acknowledge(found, self.TERMS)
        return found
