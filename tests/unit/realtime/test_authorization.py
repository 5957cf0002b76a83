"""The rule that ``JOBCAST_AUTHORIZE`` names, and the rights that it gives."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

from jobcast import FeedTarget, JobTarget
from jobcast.errors import SettingsError, TransportUnavailable
from jobcast.events import NO_INFO, JobInfo
from jobcast.realtime.authorization import EVERY_RECORD, Authorizer, Grant
from jobcast.settings import Settings
from jobcast.targets import Target
from jobcast.tokens import Subject

ALICE = Subject(sub="alice")
INFO = JobInfo(
    owner="bob", tags=("project:7",), task="tasks.convert", title="March", parent="p", queue="q"
)
TARGET = JobTarget(
    id="42", owner="bob", tags=("project:7",), task="tasks.convert", title="March", parent="p"
)


class Store:
    """A source that only knows the description of one job."""

    def __init__(self, info: JobInfo = INFO) -> None:
        self.stored = info
        self.reads = 0
        self.unreadable = False

    async def info(self, job_id: str) -> JobInfo:
        self.reads += 1
        if self.unreadable:
            raise TransportUnavailable("not now")
        return self.stored


@contextmanager
def authorizing(rule: str | None, store: Store) -> Iterator[Authorizer]:
    source: Any = store
    authorize = None if rule is None else f"{__name__}:{rule}"
    with closing(Authorizer(Settings(authorize=authorize), source)) as authorizer:
        yield authorizer


asked: list[tuple[Subject, str, Target]] = []


def record(subject: Subject, action: str, target: Target) -> bool:
    asked.append((subject, action, target))
    return True


async def record_async(subject: Subject, action: str, target: Target) -> bool:
    return record(subject, action, target)


class Recording:
    """A rule that is an object, with further parameters that have defaults."""

    def __call__(self, subject: Subject, action: str, target: Target, log: bool = False) -> bool:
        return record(subject, action, target)


recording = Recording()


@pytest.mark.parametrize("rule", ["record", "record_async", "recording"])
async def test_rule_gets_the_subject_the_action_and_the_described_job(rule: str) -> None:
    asked.clear()
    with authorizing(rule, Store()) as authorizer:
        assert await authorizer.grant(ALICE, "42") == Grant(TARGET)
        assert await authorizer.allows(ALICE, "list", FeedTarget(name="tag:project:7"))
    assert asked == [
        (ALICE, "follow", TARGET),
        (ALICE, "list", FeedTarget(name="tag:project:7")),
    ]


def members(subject: Subject, action: str, target: Target) -> bool:
    return isinstance(target, JobTarget) and "project:7" in target.tags


async def test_rule_may_decide_by_tags() -> None:
    store = Store()
    with authorizing("members", store) as authorizer:
        assert await authorizer.grant(ALICE, "42") == Grant(TARGET)
        store.stored = JobInfo(owner="bob", tags=("project:8",))
        assert await authorizer.grant(ALICE, "42") is None


async def test_default_rule_reads_no_record_for_a_listed_job() -> None:
    store = Store()
    with authorizing(None, store) as authorizer:
        assert (
            await authorizer.grant(Subject(sub="a", claims={"jobs": ["42"]}), "42") is EVERY_RECORD
        )
        assert store.reads == 0
        assert await authorizer.grant(Subject(sub="bob"), "42") == Grant(TARGET)
        assert await authorizer.grant(ALICE, "42") is None
        assert store.reads == 2


async def test_right_to_cancel_a_job_depends_on_its_record_unless_the_token_has_both() -> None:
    store, actions = Store(), ("follow", "cancel")
    with authorizing(None, store) as authorizer:
        follower = Subject(sub="a", claims={"jobs": ["42"]})
        assert await authorizer.grant(follower, "42", actions) is None
        canceller = Subject(sub="a", claims={"jobs": ["42"], "can": ["cancel"]})
        assert await authorizer.grant(canceller, "42", actions) is EVERY_RECORD
        assert await authorizer.grant(Subject(sub="bob"), "42", actions) == Grant(TARGET)


@pytest.mark.parametrize(
    ("changed", "covered"),
    [
        ({}, True),
        ({"title": "April"}, True),
        ({"owner": "carol"}, False),
        ({"owner": None}, False),
        ({"tags": ("project:8",)}, False),
        ({"task": "tasks.other"}, False),
        ({"parent": "another"}, False),
    ],
)
def test_grant_covers_the_job_until_its_description_changes(
    changed: dict[str, Any], covered: bool
) -> None:
    now = JobTarget(
        **{
            **{name: getattr(TARGET, name) for name in JobTarget.__struct_fields__},
            **changed,
        }
    )
    assert Grant(TARGET).covers(now) is covered
    assert EVERY_RECORD.covers(now)


async def test_current_description_is_read_for_rules_only() -> None:
    known = JobTarget(id="42", owner="bob")
    store = Store()
    with authorizing(None, store) as authorizer:
        assert await authorizer.current(known) is known
        assert store.reads == 0
    with authorizing("record", store) as authorizer:
        assert await authorizer.current(known) == TARGET


async def test_former_description_stands_in_for_an_expired_or_unreadable_record() -> None:
    known = JobTarget(id="42", owner="bob")
    store = Store(NO_INFO)
    with authorizing("record", store) as authorizer:
        assert await authorizer.current(known) is known
        store.unreadable = True
        assert await authorizer.current(known) is known


def former(subject: Subject, job_id: str, owner: str | None) -> bool:
    return owner == subject.sub


def former_without_owner(subject: Subject, job_id: str, _: object = None) -> bool:
    return job_id in subject.jobs


def two_parameters(subject: Subject, target: Target) -> bool:
    return True


async def keyword_only(subject: Subject, action: str, *, target: Target) -> bool:
    return True


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("former", r"takes \(subject, job_id, owner\); a rule takes \(subject, action, target\)"),
        ("former_without_owner", r"takes \(subject, job_id, _\); a rule takes \(subject, action,"),
        ("two_parameters", r"takes \(subject, target\); it should take \(subject, action, target"),
        ("keyword_only", r"it should take \(subject, action, target\)"),
        ("ALICE", "which is not callable"),
        ("missing", "which cannot be imported"),
    ],
)
def test_function_that_is_no_rule_is_refused_at_the_start(rule: str, message: str) -> None:
    with (
        pytest.raises(
            SettingsError, match=f"JOBCAST_AUTHORIZE names {__name__}:{rule}, .*{message}"
        ),
        authorizing(rule, Store()),
    ):
        pass


def test_authentication_without_a_parameter_is_refused_at_the_start() -> None:
    from jobcast.realtime.authentication import Authenticator

    settings = Settings(authenticate=f"{__name__}:{without_parameters.__name__}")
    with pytest.raises(
        SettingsError, match=r"without_parameters, which takes \(\); it should take \(conn"
    ):
        Authenticator(settings)


def without_parameters() -> None:
    """Identify no client."""
