"""Jobs that are sent at the end of a transaction."""

from __future__ import annotations

import gc
import os
import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.contrib.django.task import DjangoTask
from django import test
from django.db import OperationalError as OperationalErrorOfDatabase
from django.db import connections, transaction
from django.db.transaction import TransactionManagementError
from django.test import Client
from kombu.exceptions import OperationalError

import jobcast
from jobcast.celery.enqueue import reserve
from jobcast.celery.headers import SENDING_HEADER, origin_of
from jobcast.integrations.django import ProgressTask
from jobcast.publishing import runtime
from jobcast.publishing.job import current_job, use_job
from jobcast.transports.leases import LeaseTimeouts
from jobcast.transports.memory import MemoryBroker
from tests.support import new_id, wait_for

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture
def build(app: Celery) -> Any:
    @app.task(base=ProgressTask, bind=True, shared=False, name="reports.build")
    def build(self: ProgressTask, *pages: int, **_: Any) -> int:
        return len(pages)

    return build


class Store:
    """The records and leases of one test."""

    def __init__(self, broker: MemoryBroker) -> None:
        self.broker = broker

    def state(self, job_id: str) -> str:
        return self.broker.snapshot(job_id, None).state

    def owner(self, job_id: str) -> str | None:
        return self.broker.snapshot(job_id, None).owner

    def packets(self, job_id: str) -> list[str]:
        return [message.packet for message in self.broker.snapshot(job_id, None).events]

    def leases(self) -> set[str]:
        """Return the jobs with a lease."""
        return {lease.job_id for lease in [*self.broker.leases._running]}

    def wait_state(self, job_id: str, state: str) -> None:
        wait_for(lambda: self.state(job_id) == state, f"state {state} of {job_id}")


@pytest.fixture
def store(broker: MemoryBroker) -> Store:
    runtime.close()
    return Store(broker)


def test_task_keeps_celerys_methods_for_django(build: Any) -> None:
    assert isinstance(build, DjangoTask)
    assert isinstance(build, jobcast.ProgressTask)


def test_job_is_queued_before_the_commit_and_sent_after_it(
    build: Any, store: Store, sent: list[dict[str, Any]]
) -> None:
    with transaction.atomic():
        job = build.owned_by("alice").delay_on_commit(1, 2)
        assert (store.state(job.id), store.owner(job.id)) == ("queued", "alice")
        assert sent == []
    assert [message["id"] for message in sent] == [job.id]
    assert sent[0]["argsrepr"] == "(1, 2)"
    assert origin_of(sent[0]).owner == "alice"


def test_followers_receive_queued_once(build: Any, store: Store) -> None:
    with transaction.atomic():
        job = build.delay_on_commit()
    (packet,) = store.packets(job.id)
    assert '"status":"queued"' in packet
    assert "reports.build" in packet


def test_options_of_the_call_are_kept(build: Any, store: Store, sent: list[dict[str, Any]]) -> None:
    task_id = new_id()
    with transaction.atomic():
        job = build.owned_by(7).apply_async_on_commit(
            (1,), {"color": "red"}, task_id=task_id, headers={"x": 1}, expires=3600
        )
        plain = build.apply_async_on_commit((2,), {"color": "blue"})
    assert job.id == task_id
    assert store.owner(task_id) == "7"
    assert (sent[0]["x"], sent[0]["kwargsrepr"]) == (1, "{'color': 'red'}")
    assert sent[0]["expires"]
    assert (sent[1]["id"], sent[1]["kwargsrepr"]) == (plain.id, "{'color': 'blue'}")


def test_signature_with_arguments_adds_those_of_the_call(
    build: Any, store: Store, sent: list[dict[str, Any]]
) -> None:
    signature = build.owned_by("alice")
    signature.kwargs["color"] = "red"
    with transaction.atomic():
        signature.delay_on_commit(3, size=4)
    assert sent[0]["argsrepr"] == "(3,)"
    assert sent[0]["kwargsrepr"] == "{'color': 'red', 'size': 4}"


def test_worker_continues_the_sending_of_the_reservation(
    build: Any, store: Store, sent: list[dict[str, Any]]
) -> None:
    with transaction.atomic():
        job = build.delay_on_commit()
        (lease,) = store.broker.leases._running
    assert sent[0][SENDING_HEADER] == lease.run.sending
    build.apply(task_id=job.id, headers={SENDING_HEADER: sent[0][SENDING_HEADER]})
    store.wait_state(job.id, "complete")


def test_rollback_ends_the_job(build: Any, store: Store, sent: list[dict[str, Any]]) -> None:
    ids = []
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        ids.append(build.owned_by("alice").delay_on_commit().id)
        raise ZeroDivisionError
    store.wait_state(ids[0], "error")
    end = store.packets(ids[0])[-1]
    assert '"error":"RolledBack"' in end
    assert '"reason":"rejected"' in end
    assert "The request that was to start this job failed" in end
    wait_for(lambda: not store.leases(), "released lease")
    assert sent == []


def test_rollback_to_a_savepoint_ends_only_its_jobs(
    build: Any, store: Store, sent: list[dict[str, Any]]
) -> None:
    with transaction.atomic():
        outer = build.delay_on_commit()
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            inner = build.delay_on_commit()
            raise ZeroDivisionError
        store.wait_state(inner.id, "error")
        assert store.state(outer.id) == "queued"
    assert [message["id"] for message in sent] == [outer.id]


@pytest.fixture
def atomic_requests(database: Any) -> Iterator[None]:
    database.settings_dict["ATOMIC_REQUESTS"] = True
    yield
    database.settings_dict["ATOMIC_REQUESTS"] = False


@pytest.mark.usefixtures("atomic_requests")
def test_task_of_an_atomic_request_is_sent_after_the_view(
    build: Any, store: Store, sent: list[dict[str, Any]]
) -> None:
    job_id = new_id()
    Client().post("/start", {"task": build.name, "id": job_id})
    assert [message["id"] for message in sent] == [job_id]
    assert (store.state(job_id), store.owner(job_id)) == ("queued", "alice")


@pytest.mark.usefixtures("atomic_requests")
def test_job_of_an_atomic_request_that_fails_ends(
    build: Any, store: Store, sent: list[dict[str, Any]]
) -> None:
    job_id = new_id()
    Client(raise_request_exception=False).post(
        "/start", {"task": build.name, "id": job_id, "fail": ""}
    )
    store.wait_state(job_id, "error")
    assert sent == []


def test_job_ends_although_the_error_of_the_transaction_is_kept(build: Any, store: Store) -> None:
    """The error's traceback refers to frames of the transaction, as in an error reporter."""
    ids, errors = [], []
    try:
        with transaction.atomic():
            ids.append(build.delay_on_commit().id)
            raise ZeroDivisionError
    except ZeroDivisionError as exc:
        errors.append(exc)
    store.wait_state(ids[0], "error")
    assert errors[0].__traceback__ is not None


def test_connection_that_closes_in_a_transaction_ends_the_job(
    build: Any, store: Store, tmp_path: Path
) -> None:
    options = {**connections["default"].settings_dict, "NAME": str(tmp_path / "other.sqlite3")}
    connections.settings["other"] = options
    try:
        with pytest.raises(OperationalErrorOfDatabase), transaction.atomic(using="other"):
            job = build.apply_async_on_commit(using="other")
            connections["other"].close()
            raise OperationalErrorOfDatabase("the connection is lost")
        store.wait_state(job.id, "error")
    finally:
        del connections["other"], connections.settings["other"]


def test_djangos_test_case_sends_captured_callbacks(
    build: Any, store: Store, sent: list[dict[str, Any]]
) -> None:
    jobs, callbacks = [], []

    class SiteTest(test.TestCase):
        """A user's own test, whose transaction is always rolled back."""

        def test_jobs(self) -> None:
            with self.captureOnCommitCallbacks(execute=True):
                jobs.append(build.delay_on_commit().id)
            with self.captureOnCommitCallbacks() as found:
                jobs.append(build.delay_on_commit().id)
            callbacks.append(len(found))

    result = unittest.TestResult()
    unittest.TestSuite([SiteTest("test_jobs")]).run(result)
    assert result.wasSuccessful(), result
    assert callbacks == [1]
    assert [message["id"] for message in sent] == jobs[:1]
    assert store.state(jobs[0]) == "queued"
    store.wait_state(jobs[1], "error")


def test_class_of_all_tasks_of_an_application_has_the_methods(
    store: Store, sent: list[dict[str, Any]]
) -> None:
    with Celery(
        "all", broker="memory://", set_as_current=False,
        task_cls="jobcast.integrations.django:ProgressTask",
    ) as app:  # fmt: skip

        @app.task(shared=False, name="all.work")
        def work() -> None: ...

        with transaction.atomic():
            job = work.owned_by("alice").delay_on_commit()
            assert store.state(job.id) == "queued"
            assert sent == []
        assert [message["id"] for message in sent] == [job.id]


def test_callback_that_fails_earlier_ends_the_jobs_that_are_not_sent(
    build: Any, store: Store, sent: list[dict[str, Any]]
) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), transaction.atomic():
        transaction.on_commit(fail)
        job = build.delay_on_commit()
    gc.collect()
    store.wait_state(job.id, "error")
    assert sent == []


def test_lease_lasts_until_the_task_is_sent(build: Any, store: Store) -> None:
    with transaction.atomic():
        job = build.delay_on_commit()
        assert store.leases() == {job.id}
    wait_for(lambda: not store.leases(), "released lease")
    assert store.state(job.id) == "queued"


def test_lost_lease_ends_the_job(build: Any, store: Store) -> None:
    leases = store.broker.leases
    timeouts = LeaseTimeouts(lease=0.05, lost_after=0.05)
    with transaction.atomic():
        build.delay_on_commit()
        (lease,) = leases._running
        leases._running[lease] = 0.0  # as if the process did not renew it
        wait_for(
            lambda: [finding.kind for finding in leases.scan(timeouts)] == ["stalled"],
            "expired lease",
        )


def test_broker_that_fails_at_the_commit_ends_the_job(
    build: Any, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OperationalError("the broker is down")

    monkeypatch.setattr("kombu.messaging.Producer.publish", fail)
    with pytest.raises(OperationalError), transaction.atomic():
        job = build.delay_on_commit()
    store.wait_state(job.id, "error")
    assert '"error":"NotSent"' in store.packets(job.id)[-1]
    assert len(store.packets(job.id)) == 2


def test_error_after_the_message_is_sent_does_not_end_the_job(
    build: Any, store: Store, sent: list[dict[str, Any]]
) -> None:
    job_id = new_id()
    reservation = reserve(build.app, build.name, job_id, {})
    assert reservation is not None
    with pytest.raises(KeyboardInterrupt), reservation.sending():
        build.apply_async(task_id=job_id)
        raise KeyboardInterrupt
    wait_for(lambda: not store.leases(), "released lease")
    assert store.state(job_id) == "queued"
    assert len(sent) == 1


def test_task_that_its_sender_runs_itself_completes_at_the_commit(build: Any, store: Store) -> None:
    build.app.conf.task_always_eager = True
    with transaction.atomic():
        job = build.owned_by("alice").delay_on_commit(1, 2)
        assert store.state(job.id) == "queued"
    store.wait_state(job.id, "complete")
    wait_for(lambda: not store.leases(), "released lease")


def test_task_that_its_sender_runs_itself_fails_once_at_the_commit(
    app: Celery, store: Store
) -> None:
    app.conf.update(task_always_eager=True, task_eager_propagates=True)

    @app.task(base=ProgressTask, shared=False, name="reports.fail")
    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), transaction.atomic():
        job = fail.delay_on_commit()
    runtime.close()
    ends = [packet for packet in store.packets(job.id) if "job_error" in packet]
    assert len(ends) == 1
    assert '"error":"ZeroDivisionError"' in ends[0]
    assert store.leases() == set()


def test_arguments_that_cannot_be_sent_end_the_job(build: Any, store: Store) -> None:
    with pytest.raises(TypeError), transaction.atomic():
        job = build.apply_async_on_commit(5)
    store.wait_state(job.id, "error")
    assert '"error":"NotSent"' in store.packets(job.id)[-1]


def test_task_is_sent_at_once_without_a_transaction(
    build: Any, store: Store, sent: list[dict[str, Any]]
) -> None:
    job = build.owned_by("alice").delay_on_commit()
    assert [message["id"] for message in sent] == [job.id]
    assert store.state(job.id) == "queued"
    assert store.leases() == set()


def test_connection_without_autocommit_is_refused_as_by_celery(build: Any, store: Store) -> None:
    transaction.set_autocommit(False)
    try:
        with pytest.raises(TransactionManagementError):
            build.delay_on_commit()
    finally:
        transaction.set_autocommit(True)


def test_job_sent_inside_a_job_belongs_to_its_owner(build: Any, store: Store) -> None:
    with jobcast.open_job(new_id(), owner="alice") as job, use_job(job), transaction.atomic():
        assert current_job() is job
        sub_job = build.delay_on_commit()
        wait_for(lambda: store.owner(sub_job.id) == "alice", "owner")


def test_forked_child_leaves_the_job_of_its_parent_alone(
    build: Any, store: Store, sent: list[dict[str, Any]]
) -> None:
    with transaction.atomic():
        job = build.delay_on_commit()
        child = os.fork()
        if not child:
            transaction.get_connection().run_on_commit = []
            gc.collect()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert store.state(job.id) == "queued"
    assert [message["id"] for message in sent] == [job.id]


class NoLeases:
    """A transport without leases."""

    publisher_id = "none"

    def __init__(self, *_: Any, **__: Any) -> None:
        self.published: list[Any] = []

    def publish(self, batch: Any) -> None:
        self.published += batch

    def emit(self, event: str, data: object, *, room: str | None = None) -> None: ...
    def close(self) -> None: ...


def test_without_leases_the_job_is_queued_at_the_commit(
    build: Any, store: Store, monkeypatch: pytest.MonkeyPatch, sent: list[dict[str, Any]]
) -> None:
    transport = NoLeases()
    monkeypatch.setattr("jobcast.publishing.runtime.open_publisher", lambda *_, **__: transport)
    runtime.close()
    with transaction.atomic():
        job = build.delay_on_commit()
        assert transport.published == []
    assert [event.state for event in transport.published] == ["queued"]
    assert [message["id"] for message in sent] == [job.id]
