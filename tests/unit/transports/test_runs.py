"""Which run of a job is current, and when leases expire."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from jobcast.celery.headers import SENDING_HEADER, origin_of_delivery
from jobcast.transports.leases import InMemoryLeases, Lease, LeaseTimeouts
from jobcast.transports.runs import REMEMBERED, UNKNOWN_RUN, Run, Runs, draw

names = st.sampled_from(["", "a1", "b2", "c3"])
runs = st.builds(Run, names, st.integers(0, 3), names, st.booleans())


@given(runs)
def test_run_and_lease_survive_a_round_trip_as_text(run: Run) -> None:
    assert Run.parse(str(run)) == run
    assert Lease.parse(str(Lease("a/b:c", run))) == Lease("a/b:c", run)


deliveries = st.builds(
    lambda sending, attempt, index, redelivered: Run(
        sending, attempt, f"{sending or 'z'}{attempt}{index}", redelivered
    ),
    names, st.integers(1, 3), st.integers(1, 3), st.booleans(),
)  # fmt: skip


@given(st.lists(deliveries, min_size=1, max_size=20))
def test_past_run_does_not_become_current_again(history: list[Run]) -> None:
    job, followed = Runs(), set[Run]()
    for run in history:
        standing = job.standing(run)
        assert not (standing == "newer" and run in followed)
        if standing == "newer":
            if job.current is not None:
                followed.add(job.current)
            job.adopt(run)
            assert job.standing(run) == "same"
    assert job.standing(UNKNOWN_RUN) == "same"


def test_number_of_remembered_past_runs_is_bounded() -> None:
    job = Runs()
    for _ in range(10 * REMEMBERED):
        job.adopt(Run("aa", 1, draw(), redelivered=True))
    assert len(job._past_ids) == REMEMBERED


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


LEASE = Lease("42", Run("aa", 1, "d1"))
TERMS = LeaseTimeouts(lease=15, lost_after=120)


def scanned_leases() -> tuple[Clock, InMemoryLeases]:
    """Return leases that have been scanned for longer than the duration of a lease."""
    clock = Clock()
    leases = InMemoryLeases(clock)
    for _ in range(20):
        assert leases.scan(TERMS) == []
        clock.now += 1
    return clock, leases


def found(leases: InMemoryLeases) -> list[str]:
    findings = leases.scan(TERMS)
    leases.acknowledge(findings, TERMS)
    return [finding.kind for finding in findings]


def watch(clock: Clock, leases: InMemoryLeases, seconds: int) -> list[tuple[int, str]]:
    """Scan every second, and return each finding with the second it was found in."""
    seen = []
    for second in range(1, seconds + 1):
        clock.now += 1
        seen += [(second, kind) for kind in found(leases)]
    return seen


def test_expired_lease_stalls_and_then_loses_the_run() -> None:
    clock, leases = scanned_leases()
    leases.renew([LEASE], 15)
    assert watch(clock, leases, 300) == [(15, "stalled"), (135, "lost")]


def test_renewal_revives_a_stalled_run_at_any_time() -> None:
    clock, leases = scanned_leases()
    leases.renew([LEASE], 15)
    assert watch(clock, leases, 100) == [(15, "stalled")]
    leases.renew([LEASE], 15)
    assert watch(clock, leases, 3) == [(1, "revived")]
    leases.release([LEASE])
    assert watch(clock, leases, 300) == []


def test_interrupted_scan_gives_workers_time_to_renew() -> None:
    """While the machine sleeps or the store is away, leases expire that cannot be renewed."""
    clock, leases = scanned_leases()
    leases.renew([LEASE], 15)
    clock.now += 3600
    assert found(leases) == []
    assert watch(clock, leases, 5) == []
    leases.renew([LEASE], 15)
    assert watch(clock, leases, 14) == []
    assert watch(clock, leases, 3) == [(1, "stalled")]


def test_renewal_between_scan_and_acknowledgement_is_kept() -> None:
    clock, leases = scanned_leases()
    leases.renew([LEASE], 15)
    clock.now += 5
    leases.scan(TERMS)
    clock.now += 5
    leases.scan(TERMS)
    clock.now += 5
    findings = leases.scan(TERMS)
    leases.renew([LEASE], 15)
    leases.acknowledge(findings, TERMS)
    assert watch(clock, leases, 2) == [(1, "revived")]


def test_delivery_to_a_worker_without_the_task_is_a_new_run() -> None:
    """Otherwise the outcome of its retry would be dropped as one of a past run."""
    headers = {SENDING_HEADER: draw(), "retries": 1}
    runs = Runs()
    runs.adopt(origin_of_delivery(headers, 0, {"redelivered": False}).run)
    again = origin_of_delivery(headers, 1, {"redelivered": True}).run
    assert (again.attempt, again.redelivered) == (2, True)
    assert runs.standing(again) == "newer"
