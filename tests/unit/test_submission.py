"""Sending a task for a user: its job, its token and its URLs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import pytest
from celery import Celery, chain, shared_task
from celery.canvas import Signature
from kombu.exceptions import OperationalError

from jobcast import ProgressTask, owner_headers, submit
from jobcast.errors import SettingsError
from jobcast.realtime.revocations import DenyList
from jobcast.settings import Settings
from jobcast.tokens import TokenVerifier
from jobcast.transports.memory import MemoryBroker
from jobcast.transports.revocations import Revocation
from tests.support import eventually, new_id, wait_for

SECRET = "s" * 32


@pytest.fixture
def app(broker: MemoryBroker) -> Iterator[Celery]:
    with Celery(
        "submission", broker="memory://", backend="cache+memory://", set_as_current=False
    ) as app:
        app.conf.update(jobcast_jwt_secret=SECRET, task_default_queue=new_id("queue"))
        yield app


@pytest.fixture
def task(app: Celery) -> Any:
    @app.task(base=ProgressTask, shared=False, name="submission.build")
    def build(*_: Any, **__: Any) -> None: ...

    return build


def sent(app: Celery) -> Any:
    """Return the next message of the queue; None if it is empty."""
    with app.connection_for_read() as connection:
        queue = app.conf.task_default_queue
        return connection.default_channel.basic_get(queue, no_ack=True)


def state(broker: MemoryBroker, job_id: str) -> tuple[str | None, str]:
    """Return the owner and the state of a job."""
    snapshot = broker.snapshot(job_id, None)
    return snapshot.owner, snapshot.state


async def test_owner_may_follow_a_submitted_job(
    app: Celery, task: Any, broker: MemoryBroker
) -> None:
    submission = submit(task, 100, owner=7, pages=[1])
    message = sent(app)
    assert message.headers["id"] == submission.job_id
    assert message.payload[:2] == [[100], {"pages": [1]}]
    await eventually(lambda: state(broker, submission.job_id) == ("7", "queued"), "queued job")
    subject = await TokenVerifier(Settings(jwt_secret=SECRET)).verify(submission.token)
    assert (subject.sub, subject.jobs) == ("7", frozenset({submission.job_id}))


async def test_token_of_a_submitted_job_can_be_revoked_by_its_id(app: Celery, task: Any) -> None:
    verifier = TokenVerifier(Settings(jwt_secret=SECRET))
    submission = submit(task.s(jti="of the task"), owner="alice", jti="5f0c")
    subject = await verifier.verify(submission.token)
    assert subject.token_id == "5f0c"
    assert sent(app).payload[1] == {"jti": "of the task"}
    deny_list = DenyList()
    deny_list.add([Revocation(jti="5f0c", until=time.time() + 60)])
    assert deny_list.denies(subject)
    assert not deny_list.denies(await verifier.verify(submit(task, owner="alice").token))


def test_urls_are_paths_of_the_server_by_default(app: Celery, task: Any) -> None:
    job_id = "a/b"
    submission = submit(task.s().set(task_id=job_id), owner="alice")
    assert asdict(submission) == {
        "job_id": job_id,
        "token": submission.token,
        "urls": {"server": "", "state": "/jobs/a%2Fb", "events": "/jobs/a%2Fb/events"},
    }
    app.conf.jobcast_path_prefix = "/live"
    assert submit(task, owner="alice").urls["server"] == "/live"


@pytest.mark.parametrize("url", ["https://jobs.example.com/live", "/jobcast"])
def test_public_url_begins_the_urls(app: Celery, task: Any, url: str) -> None:
    app.conf.jobcast_public_url = f"{url}/"
    submission = submit(task, owner="alice")
    assert submission.urls == {
        "server": url,
        "state": f"{url}/jobs/{submission.job_id}",
        "events": f"{url}/jobs/{submission.job_id}/events",
    }


def test_representation_omits_the_token(task: Any) -> None:
    submission = submit(task, owner="alice")
    assert submission.job_id in repr(submission)
    assert submission.token not in repr(submission)


def test_options_of_a_signature_stay(app: Celery, task: Any) -> None:
    submission = submit(task.s(owner="bob").set(task_id="42", priority=3), 1, owner="alice")
    message = sent(app)
    assert submission.job_id == message.headers["id"] == "42"
    assert message.payload[:2] == [[1], {"owner": "bob"}]
    assert message.headers["jobcast_owner"] == "alice"
    assert message.properties["priority"] == 3


def test_signature_is_not_changed(task: Any) -> None:
    signature: Signature = task.s(1)
    first, second = (submit(signature, owner="alice").job_id for _ in range(2))
    assert first != second
    assert "task_id" not in signature.options


def test_shared_task_is_submitted(app: Celery) -> None:
    @shared_task(base=ProgressTask, name="submission.shared")
    def shared() -> None: ...

    app.set_current()
    assert submit(shared, owner="alice").job_id == sent(app).headers["id"]


def test_no_task_is_sent_without_a_signing_key(app: Celery, task: Any) -> None:
    app.conf.jobcast_jwt_secret = None
    with pytest.raises(SettingsError, match="needed to sign a token"):
        submit(task, owner="alice")
    assert sent(app) is None


def test_plain_task_is_refused(app: Celery) -> None:
    @app.task(shared=False, name="submission.plain")
    def plain() -> None: ...

    for task in (plain, app.signature("submission.unknown")):
        with pytest.raises(TypeError, match=r"submission\.\w+ is none: send a task of another"):
            submit(task, owner="alice")


def test_name_is_refused() -> None:
    with pytest.raises(TypeError, match="not a value of type str: send a task of another"):
        submit("submission.build", owner="alice")


def test_canvas_is_refused(task: Any) -> None:
    with pytest.raises(TypeError, match="one task, not a chain"):
        submit(chain(task.si(), task.si()), owner="alice")


def test_job_fails_if_the_broker_refuses_the_message(
    app: Celery, task: Any, broker: MemoryBroker
) -> None:
    app.conf.update(broker_url="redis://127.0.0.1:1", broker_transport_options={"max_retries": 0})
    signature = task.s().set(task_id="42", retry=False)
    with pytest.raises(OperationalError):
        submit(signature, owner="alice")
    wait_for(lambda: state(broker, "42") == ("alice", "error"), "failed job")


def test_task_sent_by_name_has_its_owner(app: Celery, broker: MemoryBroker) -> None:
    app.send_task("elsewhere.build", task_id="42", headers=owner_headers(7))
    wait_for(lambda: state(broker, "42") == ("7", "queued"), "queued job")
