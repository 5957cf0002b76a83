"""The views, the template tag and the sessions of the Django application."""

from __future__ import annotations

import copy
import html
import logging
import re
import threading
import time
from typing import Any

import django
import jwt
import pytest
from django.conf import settings
from django.contrib.auth import get_user_model
from django.template import engines
from django.test import Client, RequestFactory, override_settings
from django.utils.functional import SimpleLazyObject, empty
from starlette.requests import HTTPConnection

from jobcast.errors import PublishFailed
from jobcast.integrations.django import authenticate, conf
from jobcast.integrations.django.sessions import ID_IN_SESSION
from jobcast.issuing import default_settings
from jobcast.settings import Settings
from jobcast.tokens import TokenVerifier
from tests.support import TIMEOUT, free_port

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture
def user() -> Any:
    return get_user_model().objects.create_user("alice", password="secret")


@pytest.fixture
def client(user: Any) -> Client:
    """Return a browser in which alice is signed in."""
    client = Client()
    client.force_login(user)
    return client


def claims_of(token: str) -> dict[str, Any]:
    claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return claims


def session_cookie(client: Client) -> HTTPConnection:
    """Return the request with which a page of the browser connects to the server."""
    cookie = f"sessionid={client.cookies['sessionid'].value}"
    return HTTPConnection({"type": "http", "headers": [(b"cookie", cookie.encode())]})


async def verify(token: str) -> str:
    return (await TokenVerifier(default_settings()).verify(token)).sub


@override_settings(JOBCAST={"PUBLIC_URL": "https://jobs.example.com", "TOKEN_TTL": 60})
def test_signed_in_user_gets_a_token_for_the_primary_key(client: Client, user: Any) -> None:
    response = client.post("/jobcast/token")
    answer = response.json()
    claims = claims_of(answer["token"])
    assert response["Cache-Control"] == "no-store"
    assert claims["sub"] == str(user.pk)
    assert claims["exp"] - int(claims["iat"]) == 60
    assert answer["url"] == "https://jobs.example.com"
    assert answer["expires_at"].endswith("Z")


def test_tokens_of_a_session_have_its_id(client: Client) -> None:
    first, second = (client.post("/jobcast/token").json()["token"] for _ in range(2))
    assert claims_of(first)["jti"] == claims_of(second)["jti"] == client.session[ID_IN_SESSION]


@pytest.mark.parametrize("path", ["token", "jobs/42", "jobs/42/events"])
def test_signed_out_client_gets_401(path: str) -> None:
    response = (Client().post if path == "token" else Client().get)(f"/jobcast/{path}")
    assert response.status_code == 401
    assert response.json()["code"] == "signed_out"


def test_token_needs_djangos_csrf_token(user: Any) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(user)
    assert client.post("/jobcast/token").status_code == 403
    assert client.get("/jobcast/token").status_code == 405


def test_cancel_needs_djangos_csrf_token_and_json(user: Any) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(user)
    path = "/jobcast/jobs/a/b/cancel"
    assert client.post(path, {}, content_type="application/json").status_code == 403
    assert client.get(path).status_code == 405
    client = Client()
    assert client.post(path, {}, content_type="application/json").status_code == 401
    client.force_login(user)
    assert client.post(path, "x", content_type="text/plain").status_code == 415
    with override_settings(JOBCAST={"INTERNAL_URL": f"http://127.0.0.1:{free_port()}"}):
        response = client.post(path, {"message": "wrong file"}, content_type="application/json")
    assert (response.status_code, response.json()["code"]) == (502, "unavailable")


@override_settings(JOBCAST={"PUBLIC_URL": "https://jobs.example.com"})
def test_events_are_redirected_to_the_server(client: Client) -> None:
    response = client.get("/jobcast/jobs/a/b+c/events?after=x.1")
    assert response.status_code == 307
    assert response["Location"] == "https://jobs.example.com/jobs/a%2Fb%2Bc/events?after=x.1"


@pytest.mark.parametrize("path", ["jobs/%00", "jobs/%00/events"])
def test_invalid_job_id_is_not_found(client: Client, path: str) -> None:
    assert client.get(f"/jobcast/{path}").status_code == 404


def test_snapshot_without_a_server_is_a_bad_gateway(client: Client) -> None:
    with override_settings(JOBCAST={"INTERNAL_URL": f"http://127.0.0.1:{free_port()}"}):
        response = client.get("/jobcast/jobs/42")
    assert (response.status_code, response.json()["code"]) == (502, "unavailable")


@override_settings(JOBCAST={"PUBLIC_URL": "https://jobs.example.com"})
def test_template_tag_draws_the_element_with_a_csrf_token(client: Client) -> None:
    page = client.get("/page", {"job": '"><script>'}).content.decode()
    assert '<script type="module" src="https://jobs.example.com/jobcast.js"></script>' in page
    assert f'job-id="{html.escape(chr(34) + "><script>")}"' in page
    assert 'token-url="/jobcast/token"' in page
    assert 'base-url="https://jobs.example.com"' in page
    assert 'label="The &lt;b&gt;report&lt;/b&gt;" log></jobcast-job>' in page
    assert 'csrf-token="' in page
    assert "csrftoken" in client.cookies


@pytest.mark.parametrize("job", ["", None], ids=repr)
def test_template_tag_draws_nothing_without_a_job(client: Client, job: str | None) -> None:
    page = client.get("/page", {} if job is None else {"job": job}).content.decode()
    assert page.strip() == ""


@override_settings(CSRF_HEADER_NAME="HTTP_X_XSRF_TOKEN")
def test_template_tag_names_the_header_of_the_csrf_token(client: Client) -> None:
    assert 'csrf-header="X-Xsrf-Token"' in client.get("/page", {"job": "42"}).content.decode()


class UngeneratedNonce(SimpleLazyObject):
    """A nonce as Django and django-csp have it: false until a page uses it."""

    def __init__(self) -> None:
        super().__init__(lambda: "r4nd0m")

    def __bool__(self) -> bool:
        return self._wrapped is not empty


@pytest.mark.parametrize("place", ["context", "request"])
def test_script_has_the_nonce_of_the_content_security_policy(place: str) -> None:
    request, context = RequestFactory().get("/"), {"job": "42"}
    if place == "context":
        context["csp_nonce"] = UngeneratedNonce()
    else:
        request.csp_nonce = UngeneratedNonce()
    template = engines["django"].from_string("{% load jobcast %}{% jobcast_progress job %}")
    assert 'nonce="r4nd0m"' in template.render(context, request)


@pytest.mark.skipif(django.VERSION < (6,), reason="Django 6 has content security policies")
def test_nonce_of_the_page_is_in_djangos_policy(client: Client) -> None:
    templates = copy.deepcopy(settings.TEMPLATES)
    processors = templates[0]["OPTIONS"]["context_processors"]
    processors.append("django.template.context_processors.csp")
    with override_settings(
        MIDDLEWARE=[*settings.MIDDLEWARE, "django.middleware.csp.ContentSecurityPolicyMiddleware"],
        SECURE_CSP={"script-src": ["<CSP_NONCE_SENTINEL>"]},
        TEMPLATES=templates,
    ):
        response = client.get("/page", {"job": "42"})
    (nonce,) = re.findall(r'nonce="([^"]+)"', response.content.decode())
    assert response["Content-Security-Policy"] == f"script-src 'nonce-{nonce}'"


@pytest.mark.parametrize("path", ["token", "jobs/42", "jobs/42/events"])
def test_middleware_that_requires_a_login_keeps_the_401(path: str) -> None:
    required = "django.contrib.auth.middleware.LoginRequiredMiddleware"
    with override_settings(MIDDLEWARE=[*settings.MIDDLEWARE, required]):
        response = (Client().post if path == "token" else Client().get)(f"/jobcast/{path}")
    assert response.status_code == 401


async def test_token_is_signed_with_a_key_of_djangos_secret() -> None:
    token = conf.endpoint().token("7").body.decode().split('"')[3]
    assert await verify(token) == "7"
    with override_settings(SECRET_KEY="another", SECRET_KEY_FALLBACKS=[settings.SECRET_KEY]):
        assert await verify(token) == "7"


def test_explicit_key_replaces_that_of_djangos_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBCAST_JWT_SECRET", "e" * 32)
    assert [key.text for key in default_settings().secrets] == ["e" * 32]
    monkeypatch.delenv("JOBCAST_JWT_SECRET")
    with override_settings(JOBCAST={"JWT_SECRET": "d" * 32}):
        assert [key.text for key in default_settings().secrets] == ["d" * 32]
    conf = {"jobcast_jwt_secret": "c" * 32}
    assert [key.text for key in Settings.load(celery_conf=conf).secrets] == ["c" * 32]


def test_environment_takes_precedence_over_djangos_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with override_settings(JOBCAST={"PORT": 9000, "CORS_ORIGINS": ["https://a.example"]}):
        assert default_settings().port == 9000
        assert default_settings().cors_origins == ("https://a.example",)
        monkeypatch.setenv("JOBCAST_PORT", "9001")
        assert default_settings().port == 9001


def test_server_recognises_the_user_by_the_session(client: Client, user: Any) -> None:
    subject = authenticate(session_cookie(client))
    assert subject is not None
    assert subject.sub == str(user.pk)
    assert subject.expires_at > time.time()
    assert subject.token_id == claims_of(client.post("/jobcast/token").json()["token"])["jti"]


def test_server_leaves_the_session_alone_during_a_rotation_of_the_secret_key(
    client: Client, user: Any
) -> None:
    """Django gives such a session another key, which only its own answer tells the browser."""
    with override_settings(SECRET_KEY="another" * 8, SECRET_KEY_FALLBACKS=[settings.SECRET_KEY]):
        subject = authenticate(session_cookie(client))
        assert subject is not None
        assert subject.sub == str(user.pk)
        assert client.post("/jobcast/token").status_code == 200


def test_server_refuses_a_session_of_another_password(client: Client, user: Any) -> None:
    user.set_password("another")
    user.save()
    assert authenticate(session_cookie(client)) is None


@override_settings(JOBCAST={"TOKEN_TTL": 60})
def test_server_looks_at_the_session_again_after_the_lifetime_of_a_token(client: Client) -> None:
    """Until then it does not notice that the session was deleted, or the password changed."""
    subject = authenticate(session_cookie(client))
    assert subject is not None
    assert subject.expires_at <= time.time() + 60


def test_server_refuses_a_session_that_has_ended(client: Client) -> None:
    request = session_cookie(client)
    client.logout()
    assert authenticate(request) is None
    assert authenticate(HTTPConnection({"type": "http", "headers": []})) is None


@pytest.fixture
def revoked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Return the list of all revocations."""
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(
        "jobcast.integrations.django.sessions.revoke", lambda **options: calls.append(options)
    )
    return calls


def test_signing_out_revokes_the_tokens_of_the_session(
    client: Client, revoked: list[dict[str, Any]]
) -> None:
    token = client.post("/jobcast/token").json()["token"]
    client.logout()
    assert [call["jti"] for call in revoked] == [claims_of(token)["jti"]]


@pytest.mark.parametrize(("setting", "kept"), [(60, 900), (3600, 3600)])
def test_revocation_outlives_the_tokens_of_pages_and_of_submitted_jobs(
    client: Client, revoked: list[dict[str, Any]], setting: float, kept: float
) -> None:
    with override_settings(JOBCAST={"TOKEN_TTL": setting}):
        client.logout()
    assert [call["ttl"] for call in revoked] == [kept]


def test_signing_out_without_signing_in_revokes_nothing(revoked: list[dict[str, Any]]) -> None:
    Client().logout()
    assert revoked == []


def test_concurrent_requests_of_a_new_session_get_the_same_id(client: Client) -> None:
    """Signing in has named the session: each of them would otherwise store an id of its own."""
    assert ID_IN_SESSION in client.session


def test_user_can_sign_out_while_the_transport_is_down(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(**_: Any) -> None:
        raise PublishFailed("the store is away", ())

    monkeypatch.setattr("jobcast.integrations.django.sessions.revoke", fail)
    client.post("/jobcast/token")
    with caplog.at_level(logging.WARNING):
        client.logout()
    assert "sessionid" not in {name for name, cookie in client.cookies.items() if cookie.value}
    assert "the store is away" in caplog.text
    assert "900 s" in caplog.text


def test_user_can_sign_out_while_the_transport_does_not_answer(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients of a store that hangs time out late; the request would occupy a worker."""
    answer, ended = threading.Event(), threading.Event()

    def hang(**_: Any) -> None:
        assert answer.wait(TIMEOUT)
        ended.set()

    monkeypatch.setattr("jobcast.integrations.django.sessions.revoke", hang)
    release = threading.Timer(TIMEOUT / 2, answer.set)
    release.daemon = True
    release.start()
    client.post("/jobcast/token")
    client.logout()
    assert not ended.is_set()
    release.cancel()
    answer.set()
    assert ended.wait(TIMEOUT)
