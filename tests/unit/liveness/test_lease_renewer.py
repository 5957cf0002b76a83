"""The renewal and release of a process's leases."""

from __future__ import annotations

from collections.abc import Sequence, Set

import pytest

from jobcast.events import JobComplete, JobStatus
from jobcast.liveness.renewer import LeaseRenewer
from jobcast.publishing.publisher import Publisher
from jobcast.transports import Origin, Outgoing, Run
from jobcast.transports.base import Required
from jobcast.transports.leases import Lease
from tests.support import wait_for


class Holder:
    """A transport that stores leases, unless it is down."""

    publisher_id = "holder"

    def __init__(self) -> None:
        self.kept: set[Lease] = set()
        self.renewals: list[int] = []
        self.down = False

    def renew(self, leases: Sequence[Lease], seconds: float) -> None:
        if self.down:
            raise OSError("it is gone")
        self.renewals.append(len(leases))
        self.kept |= set(leases)

    def release(self, leases: Sequence[Lease]) -> None:
        if self.down:
            raise OSError("it is gone")
        self.kept -= set(leases)

    def publish(self, batch: Sequence[Outgoing]) -> None: ...
    def emit(self, event: str, data: object, *, room: str | None = None) -> None: ...
    def close(self) -> None: ...


def run_of(number: int) -> Run:
    return Run(sending="s", attempt=1, delivery=f"{number:012}")


def started(number: int) -> Outgoing:
    status = JobStatus(job_id=str(number), status="started")
    return Outgoing.of(status, Origin(run=run_of(number)))


def ended(number: int) -> Outgoing:
    return Outgoing.of(JobComplete(job_id=str(number), result=None), Origin(run=run_of(number)))


def lease_of(number: int) -> Lease:
    return Lease(str(number), run_of(number))


def always_due(holder: Holder) -> LeaseRenewer:
    """Return a renewer with leases so short that they are always due."""
    return LeaseRenewer(holder, seconds=0)


def test_lease_lasts_from_start_to_end_of_a_run() -> None:
    holder = Holder()
    leases = always_due(holder)
    leases.begin([started(1), started(2)])
    leases.renew_and_release()
    assert holder.kept == {lease_of(1), lease_of(2)}
    leases.end([ended(1)])
    leases.renew_and_release()
    assert holder.kept == {lease_of(2)}


RESERVED = Run(sending="s", attempt=0, delivery="d")


def reserved() -> Outgoing:
    return Outgoing.of(JobStatus(job_id="1", status="queued"), Origin(run=RESERVED))


def test_lease_of_a_reservation_lasts_until_its_release() -> None:
    holder = Holder()
    leases = always_due(holder)
    leases.begin([reserved()])
    leases.end([reserved()])  # its event is stored
    leases.renew_and_release()
    assert holder.kept == {Lease("1", RESERVED)}
    leases.release(Lease("1", RESERVED))
    leases.renew_and_release()
    assert holder.kept == set()
    assert leases.due_in is None


def test_reservation_that_is_released_before_its_event_is_sent_keeps_no_lease() -> None:
    holder = Holder()
    leases = always_due(holder)
    leases.release(Lease("1", RESERVED))
    leases.renew_and_release()
    leases.begin([reserved()])
    leases.renew_and_release()
    assert holder.kept == set()
    assert leases.due_in is None


def test_job_that_is_queued_again_releases_the_lease_of_its_run() -> None:
    """Another task replaces the one of the run."""
    holder = Holder()
    leases = always_due(holder)
    leases.begin([started(1)])
    leases.renew_and_release()
    leases.end([Outgoing.of(JobStatus(job_id="1", status="queued"), Origin(run=run_of(1)))])
    leases.renew_and_release()
    assert holder.kept == set()


def test_late_event_of_a_scheduled_run_keeps_the_lease_of_the_run() -> None:
    """The main process may reach the store only when the run of a task with an ETA has begun."""
    holder = Holder()
    leases = always_due(holder)
    leases.hold(lease_of(1))
    leases.renew_and_release()
    queued = JobStatus(job_id="1", status="queued")
    leases.end([Outgoing.of(queued, Origin(run=run_of(1)), requires="pending")])
    leases.renew_and_release()
    assert holder.kept == {lease_of(1)}


def test_run_elsewhere_that_has_ended_is_not_renewed_and_keeps_its_lease() -> None:
    """The ending may be unsent: only the process that publishes it knows when it is stored."""
    holder = Holder()
    leases = always_due(holder)
    running = [lease_of(1), lease_of(2)]
    leases.elsewhere = lambda: running
    for number in range(1, 3):
        leases.hold(lease_of(number))
    leases.renew_and_release()
    assert holder.renewals == [2]
    running.remove(lease_of(1))
    leases.renew_and_release()
    assert holder.renewals == [2, 1]
    assert holder.kept == {lease_of(1), lease_of(2)}


def test_ending_of_a_run_elsewhere_that_this_process_publishes_releases_the_lease() -> None:
    holder = Holder()
    leases = always_due(holder)
    running = [lease_of(1)]
    leases.elsewhere = lambda: running
    leases.renew_and_release()
    running.clear()
    leases.end([ended(1)])
    leases.renew_and_release()
    assert holder.kept == set()


def test_run_whose_ending_is_lost_keeps_its_lease_until_it_expires() -> None:
    holder = Holder()
    leases = always_due(holder)
    leases.begin([started(1), started(2)])
    leases.renew_and_release()
    leases.abandon([lease_of(1)])
    leases.renew_and_release()
    assert holder.renewals == [2, 1]
    assert holder.kept == {lease_of(1), lease_of(2)}


def test_run_has_a_lease_until_the_ending_of_the_same_batch_is_stored() -> None:
    """A transport may store a part of a batch, and the process may die then."""
    holder = Holder()
    leases = always_due(holder)
    leases.begin([started(1), ended(1)])
    leases.renew_and_release()
    assert holder.kept == {lease_of(1)}
    leases.end([started(1), ended(1)])
    leases.renew_and_release()
    assert holder.kept == set()


def test_runs_that_end_during_an_outage_are_not_renewed_after_it() -> None:
    holder = Holder()
    leases = always_due(holder)
    leases.elsewhere = lambda: [lease_of(0)]
    holder.down = True
    leases.begin([started(number) for number in range(1, 4)])
    for number in range(1000):
        leases.hold(lease_of(number))
        leases._renew_at = 0
        leases.renew_and_release()
    leases.end([ended(1)])
    holder.down = False
    leases._renew_at = 0
    leases.renew_and_release()
    assert holder.kept == {lease_of(0), lease_of(2), lease_of(3)}
    assert holder.renewals == [3]


def test_run_that_begins_as_an_outage_ends_has_a_lease_before_its_event() -> None:
    """Other leases are renewed after a delay, within which the worker may be lost."""
    holder = Holder()
    leases = LeaseRenewer(holder, seconds=60)
    holder.down = True
    leases.begin([started(1)])
    leases.renew_and_release()
    holder.down = False
    leases.renew_and_release()
    assert holder.kept == {lease_of(1)}
    leases.renew_and_release()
    assert holder.renewals == [1]


def test_run_that_ends_in_the_outage_in_which_it_begins_has_no_lease_after_it() -> None:
    holder = Holder()
    leases = LeaseRenewer(holder, seconds=60)
    holder.down = True
    leases.begin([started(1), started(2)])
    leases.renew_and_release()
    leases.end([ended(1)])
    holder.down = False
    leases.renew_and_release()
    assert holder.kept == {lease_of(2)}


def test_ending_is_released_once_if_a_renewal_fails_after_it() -> None:
    """A transport keeps a lease whose ending it could not store, but only for one call."""

    class Failing(Holder):
        def __init__(self) -> None:
            super().__init__()
            self.released: list[Lease] = []

        def release(self, leases: Sequence[Lease]) -> None:
            self.released += leases
            self.down = True

    holder = Failing()
    leases = always_due(holder)
    leases.begin([started(1), started(2)])
    leases.renew_and_release()
    leases.end([ended(1)])
    for _ in range(2):
        leases._renew_at = 0.0
        leases.renew_and_release()
    assert holder.released == [lease_of(1)]


class RecordingSidecar:
    """A sidecar that records the calls."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def update(self, leases: Set[Lease]) -> None:
        self.lines += sorted(lease.job_id for lease in leases)

    def renewed(self, at: float) -> None:
        self.lines.append("renewed")

    def detach(self) -> None: ...
    def close(self) -> None: ...


def test_sidecar_learns_the_time_of_complete_renewals_only() -> None:
    """Partial renewals must not postpone the sidecar's own renewal of the other leases."""
    holder, sidecar = Holder(), RecordingSidecar()
    leases = LeaseRenewer(holder, seconds=3600, sidecar=sidecar)
    leases.elsewhere = list
    leases.begin([started(1)])
    leases.renew_and_release()
    leases.begin([started(2)])
    leases.renew_and_release()
    assert sidecar.lines == ["1", "renewed", "1", "2"]
    leases._renew_at = 0
    holder.down = True
    leases.renew_and_release()
    assert sidecar.lines[4:] == ["1", "2"]
    leases._renew_at = 0
    holder.down = False
    leases.renew_and_release()
    assert sidecar.lines[6:] == ["1", "2", "renewed"]


def test_sidecar_drops_leases_of_ended_runs() -> None:
    """The main process of a worker also gets the leases of its own runs from Celery."""
    sidecar = RecordingSidecar()
    leases = LeaseRenewer(Holder(), seconds=3600, sidecar=sidecar)
    leases.elsewhere = list
    leases._renew_at = float("inf")
    leases.begin([started(1), started(2)])
    leases.hold(lease_of(1))
    leases.renew_and_release()
    leases.end([ended(1)])
    leases.renew_and_release()
    leases.renew_and_release()
    assert sidecar.lines == ["1", "2", "2", "2"]


class RecordingHolder(Holder):
    """A transport that records the order of calls."""

    def __init__(self) -> None:
        super().__init__()
        self.order: list[str] = []

    def renew(self, leases: Sequence[Lease], seconds: float) -> None:
        super().renew(leases, seconds)
        self.order.append("renewed")

    def release(self, leases: Sequence[Lease]) -> None:
        super().release(leases)
        self.order.append("released")

    def publish(self, batch: Sequence[Outgoing]) -> None:
        self.order += [outgoing.state or "" for outgoing in batch]


class Reporter:
    """A run that publishes events."""

    dirty = False
    requires: Required = ""
    job_id = "a"
    origin = Origin(run=run_of(1))
    slot = None

    def take_progress(self, slot: None) -> None: ...
    def drop_progress(self, slot: None) -> None: ...


def test_lease_exists_from_before_started_until_final_event_is_stored() -> None:
    """Otherwise the loss of a worker in between would never be detected."""
    holder = RecordingHolder()
    publisher = Publisher(holder, lease=60)
    run = Reporter()
    for event in (
        JobStatus(job_id="1", status="started"), JobComplete(job_id="1", result=None),
    ):  # fmt: skip
        publisher.add(run, event)
        assert publisher.flush()
    publisher.close()
    assert holder.order == ["renewed", "started", "complete", "released"]


class MissedRequests:
    """A poll that may have missed a request to cancel a job."""

    due_in = 0.01

    def read(self) -> bool:
        return True


def test_a_poll_that_may_have_missed_requests_renews_the_leases() -> None:
    """The answers to the renewals say which jobs are to be cancelled."""
    holder = Holder()
    publisher = Publisher(holder, lease=3600)
    publisher.add(Reporter(), JobStatus(job_id="1", status="started"))
    assert publisher.flush()
    publisher.poll = MissedRequests()
    before = len(holder.renewals)
    publisher.hurry()
    wait_for(lambda: len(holder.renewals) > before, "renewal")
    publisher.close()


def test_calls_between_two_failed_renewals_do_not_delay_the_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    holder = Holder()
    leases = LeaseRenewer(holder, 0.2)
    leases.begin([started(1)])
    leases.renew_and_release()
    holder.down = True
    for _ in range(2):
        leases.renew_soon()
        leases.renew_and_release()
        leases.renew_and_release()  # no lease is due
        assert leases._failing_since is not None
        leases._failing_since -= 0.2
    assert "could not renew the leases of 1 running jobs" in caplog.text


def test_a_repeated_release_that_succeeds_ends_the_outage(
    caplog: pytest.LogCaptureFixture,
) -> None:
    holder = Holder()
    leases = LeaseRenewer(holder, 3600)
    leases.begin([started(1)])
    leases.renew_and_release()
    leases.end([ended(1)])
    holder.down = True
    leases.renew_and_release()
    holder.down = False
    leases.renew_and_release()
    assert leases._failing_since is None
    assert not caplog.text


def test_releases_that_succeed_do_not_delay_the_warning(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder = Holder()
    monkeypatch.setattr(holder, "release", lambda _: None)
    leases = LeaseRenewer(holder, 0.2)
    leases.begin([started(n) for n in range(3)])
    leases.renew_and_release()
    holder.down = True
    for number in range(2):
        leases.renew_soon()
        leases.renew_and_release()
        leases.end([ended(number)])
        leases.renew_and_release()
        assert leases._failing_since is not None
        leases._failing_since -= 0.2
    assert "could not renew the leases of" in caplog.text


def test_an_outage_ends_with_the_last_run(caplog: pytest.LogCaptureFixture) -> None:
    holder = Holder()
    leases = LeaseRenewer(holder, 3600)
    elsewhere = {lease_of(1)}
    leases.elsewhere = lambda: elsewhere
    holder.down = True
    leases.renew_and_release()
    elsewhere.clear()
    leases.renew_soon()
    leases.renew_and_release()
    assert leases._failing_since is None
    assert not caplog.text


def test_failing_renewals_are_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    holder = Holder()
    leases = always_due(holder)
    leases.begin([started(1)])
    holder.down = True
    for _ in range(3):
        leases._renew_at = 0.0
        leases.renew_and_release()
    assert caplog.text.count("could not renew the leases of 1 running jobs") == 1
    holder.down = False
    leases._renew_at = 0.0
    leases.renew_and_release()
    assert holder.kept == {lease_of(1)}
