"""Rules that query Django's database."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from django.contrib.auth import get_user_model

from jobcast import JobTarget
from jobcast.integrations.django import rule
from jobcast.targets import Target
from jobcast.tokens import Subject


@rule
def staff(subject: Subject, action: str, target: Target) -> bool:
    found: bool = get_user_model().objects.filter(pk=subject.sub, is_staff=True).exists()
    return found


def test_rule_queries_the_database_after_a_failed_connection(database: Any) -> None:
    users = get_user_model().objects
    member, other = users.create_user("member", is_staff=True), users.create_user("other")
    database.errors_occurred = True  # as after a restart of the database
    assert staff(Subject(sub=str(member.pk)), "follow", JobTarget(id="42"))
    assert not database.errors_occurred  # Django has checked the connection
    assert not staff(Subject(sub=str(other.pk)), "follow", JobTarget(id="42"))


def test_decorated_rule_keeps_its_signature() -> None:
    assert list(inspect.signature(staff).parameters) == ["subject", "action", "target"]


def test_asynchronous_rule_is_refused() -> None:
    async def allow(subject: Subject, action: str, target: Target) -> bool:
        return True

    decorate: Any = rule
    with pytest.raises(TypeError, match="decorates a plain function"):
        decorate(allow)
