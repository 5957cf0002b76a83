"""The system checks and the management command."""

from __future__ import annotations

import os
from typing import Any

import pytest
from celery import Celery
from django.core.checks import CheckMessage, run_checks
from django.core.management import call_command
from django.test import override_settings

import jobcast
from jobcast.integrations.django import ProgressTask, conf


def found(**settings: Any) -> dict[str, CheckMessage]:
    """Return the findings with these settings, by their ids.

    Tasks of other tests may still exist.
    """
    with override_settings(**settings):
        messages = {str(message.id): message for message in run_checks(tags=["jobcast"])}
    messages.pop("jobcast.W003", None)
    return messages


def test_site_without_settings_passes() -> None:
    assert found() == {}


def test_setting_of_another_type_is_an_error() -> None:
    assert "not list" in found(JOBCAST=["URL"])["jobcast.E001"].msg


def test_unknown_key_is_an_error_with_the_similar_one() -> None:
    message = found(JOBCAST={"CORS_ORIGIN": []})["jobcast.E002"]
    assert "'CORS_ORIGIN'" in message.msg
    assert message.hint == "Did you mean 'CORS_ORIGINS'?"


def test_own_keys_are_known() -> None:
    assert found(JOBCAST={"TOKEN_TTL": 60, "INTERNAL_URL": "http://jobs:8000"}) == {}


def test_unknown_key_without_a_similar_one_names_the_known_keys() -> None:
    hint = found(JOBCAST={"XYZZY": 1})["jobcast.E002"].hint
    assert hint is not None
    assert "TOKEN_TTL" in hint


@pytest.mark.parametrize(
    "wrong", [{"TOKEN_TTL": "15m"}, {"TOKEN_TTL": 0}, {"INTERNAL_URL": "jobs:8000"}], ids=str
)
def test_wrong_value_of_an_own_key_is_an_error(wrong: dict[str, Any]) -> None:
    ((key, value),) = wrong.items()
    message = found(JOBCAST=wrong)["jobcast.E004"]
    assert key in message.msg
    assert repr(value) in message.msg
    assert message.hint is not None
    assert key in message.hint


def test_wrong_value_is_an_error() -> None:
    message = found(JOBCAST={"PORT": "many"})["jobcast.E003"]
    assert "JOBCAST_PORT should be a port number" in message.msg
    assert message.hint == "Correct the value of 'PORT' in JOBCAST."


def test_wrong_value_in_the_environment_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBCAST_PORT", "many")
    hint = found(JOBCAST={"PORT": 8000})["jobcast.E003"].hint
    assert hint == "Correct JOBCAST_PORT in the environment or in Celery's configuration."


def test_server_of_another_origin_without_origins_is_a_warning() -> None:
    url = {"PUBLIC_URL": "https://jobs.example.com"}
    assert "https://jobs.example.com" in found(JOBCAST=url)["jobcast.W001"].msg
    assert found(JOBCAST={**url, "CORS_ORIGINS": ["https://www.example.com"]}) == {}
    assert found(JOBCAST={"PUBLIC_URL": "/jobs"}) == {}


def test_site_without_users_is_a_warning() -> None:
    assert list(found(MIDDLEWARE=[])) == ["jobcast.W002"]


def test_task_without_delay_on_commit_is_a_warning(app: Celery) -> None:
    def work() -> None: ...

    app.task(base=jobcast.ProgressTask, shared=False, name="reports.old")(work)
    app.task(base=ProgressTask, shared=False, name="reports.new")(work)
    warned = [
        message.msg
        for message in run_checks(tags=["jobcast"])
        if message.id == "jobcast.W003" and "reports." in message.msg
    ]
    assert warned == ["The task reports.old has no delay_on_commit."]


@pytest.fixture
def environ(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restore the environment after the test."""
    monkeypatch.setattr(os, "environ", os.environ.copy())


@pytest.mark.usefixtures("environ")
def test_command_exports_djangos_settings(capsys: pytest.CaptureFixture[str]) -> None:
    with override_settings(JOBCAST={"CORS_ORIGINS": ["https://a.example", "https://b.example"]}):
        call_command("jobcast", "token", "--sub", "7")
    assert os.environ["JOBCAST_CORS_ORIGINS"] == "https://a.example,https://b.example"
    assert os.environ["JOBCAST_AUTHENTICATE"] == "jobcast.integrations.django:authenticate"
    assert capsys.readouterr().out.count(".") == 2


@pytest.mark.usefixtures("environ")
def test_environment_is_not_overwritten() -> None:
    os.environ["JOBCAST_PORT"] = "9001"
    os.environ["JOBCAST_AUTHENTICATE"] = "mine:user_of"
    with override_settings(JOBCAST={"PORT": 9000}):
        conf.export()
    assert os.environ["JOBCAST_PORT"] == "9001"
    assert os.environ["JOBCAST_AUTHENTICATE"] == "mine:user_of"
