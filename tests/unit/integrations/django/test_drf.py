"""Views and serializers of Django REST framework."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import jwt
import pytest
from django.test import override_settings
from rest_framework.test import APIRequestFactory, force_authenticate

from jobcast.integrations.drf import SubmissionSerializer, TokenView
from jobcast.submission import Submission


def ask(user: Any) -> Any:
    request = APIRequestFactory().post("/token")
    if user is not None:
        force_authenticate(request, user=user)
    return TokenView.as_view()(request)


@pytest.mark.usefixtures("database")
@override_settings(JOBCAST={"PUBLIC_URL": "/jobs"})
def test_user_of_the_api_gets_a_token() -> None:
    answer = ask(SimpleNamespace(pk=7, is_authenticated=True, is_active=True))
    assert answer.status_code == 200
    assert jwt.decode(answer.data["token"], options={"verify_signature": False})["sub"] == "7"
    assert answer.data["url"] == "/jobs"


@pytest.mark.usefixtures("database")
def test_request_without_a_user_is_refused() -> None:
    assert ask(None).status_code in (401, 403)


def test_submission_becomes_an_answer() -> None:
    submission = Submission(job_id="42", token="t", urls={"state": "/jobs/42"})
    assert SubmissionSerializer(submission).data == {
        "job_id": "42", "token": "t", "urls": {"state": "/jobs/42"},
    }  # fmt: skip
