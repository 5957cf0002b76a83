"""Tokens that an application issues to its users."""

from __future__ import annotations

import sys
from typing import Any
from uuid import UUID

import jwt
import pytest
from celery import Celery
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from jobcast import issue_token
from jobcast.errors import InvalidJobId, SettingsError
from jobcast.settings import Settings
from jobcast.tokens import Subject, TokenVerifier
from tests.support.key_server import pems

SECRET = "s" * 32
UUID_4 = UUID("0b4ff1a7-6a3e-4a53-9a0c-3a3f0d1f1c55")


async def accepted(token: str, settings: Settings) -> Subject:
    return await TokenVerifier(settings).verify(token)


async def test_secret_of_the_environment_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBCAST_JWT_SECRET", SECRET)
    monkeypatch.setenv("JOBCAST_JWT_AUDIENCE", "jobs")
    subject = await accepted(issue_token("alice", jobs=["42"]), Settings.load())
    assert (subject.sub, subject.jobs) == ("alice", frozenset({"42"}))
    assert subject.issued_at is not None
    assert subject.expires_at - int(subject.issued_at) == 900


async def test_settings_of_a_celery_application_sign() -> None:
    with Celery("issuing", set_as_current=False) as app:
        app.conf.jobcast_jwt_secret = SECRET
        token = issue_token("alice")
    assert (await accepted(token, Settings(jwt_secret=SECRET))).sub == "alice"


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (rsa.generate_private_key(65537, 2048), "RS256"),
        (ec.generate_private_key(ec.SECP256R1()), "ES256"),
        (ed25519.Ed25519PrivateKey.generate(), "EdDSA"),
    ],
    ids=["RSA", "EC", "Ed25519"],
)
async def test_private_key_signs(key: Any, algorithm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    private, public = pems(key)
    monkeypatch.setenv("JOBCAST_JWT_PRIVATE_KEY", private.replace("\n", "\\n"))
    token = issue_token("alice")
    assert jwt.get_unverified_header(token)["alg"] == algorithm
    assert (await accepted(token, Settings(jwt_public_key=public))).sub == "alice"


async def test_private_key_in_a_file_has_a_key_id(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    private, public = pems(ed25519.Ed25519PrivateKey.generate())
    path = tmp_path / "key"
    path.write_text(f"2026-02={private}")
    monkeypatch.setenv("JOBCAST_JWT_PRIVATE_KEY_FILE", str(path))
    token = issue_token("alice")
    assert jwt.get_unverified_header(token)["kid"] == "2026-02"
    settings = Settings.load({"JOBCAST_JWT_PUBLIC_KEYS": f"2026-02={public}"})
    assert (await accepted(token, settings)).sub == "alice"


async def test_private_key_argument_precedes_the_secret() -> None:
    private, public = pems(ec.generate_private_key(ec.SECP256R1()))
    token = issue_token("alice", settings=Settings(jwt_secret=SECRET), private_key=private)
    assert (await accepted(token, Settings(jwt_public_key=public))).sub == "alice"


async def test_allowed_algorithm_decides_how_a_key_signs() -> None:
    private, public = pems(ec.generate_private_key(ec.SECP384R1()))
    with pytest.raises(SettingsError, match="JOBCAST_JWT_PRIVATE_KEY is not a key for the allowed"):
        issue_token("alice", settings=Settings(jwt_private_key=private))
    settings = Settings(jwt_private_key=private, jwt_algorithms=("ES384",))
    token = issue_token("alice", settings=settings)
    verifying = Settings(jwt_public_key=public, jwt_algorithms=("ES384",))
    assert (await accepted(token, verifying)).sub == "alice"


@pytest.mark.parametrize(("sub", "expected"), [(7, "7"), (UUID_4, str(UUID_4)), ("alice", "alice")])
async def test_subject_is_the_owner_that_owned_by_names(sub: Any, expected: str) -> None:
    settings = Settings(jwt_secret=SECRET)
    token = issue_token(sub, jobs=[UUID_4], settings=settings)
    subject = await accepted(token, settings)
    assert (subject.sub, subject.jobs) == (expected, frozenset({str(UUID_4)}))


async def test_actions_and_feeds_become_claims() -> None:
    settings = Settings(jwt_secret=SECRET)
    token = issue_token("ops", jobs=["*"], can={"cancel"}, feeds=iter(["all"]), settings=settings)
    subject = await accepted(token, settings)
    expected = frozenset({"*"}), frozenset({"cancel"}), frozenset({"all"})
    assert (subject.jobs, subject.can, subject.feeds) == expected
    plain = await accepted(issue_token("alice", settings=settings), settings)
    assert not {"jobs", "can", "feeds"} & plain.claims.keys()
    assert not plain.jobs | plain.can | plain.feeds


async def test_maximum_lifetime_bounds_the_lifetime() -> None:
    settings = Settings(jwt_secret=SECRET, jwt_max_lifetime=60)
    subject = await accepted(issue_token("alice", jti="7", settings=settings), settings)
    assert subject.issued_at is not None
    assert subject.expires_at - int(subject.issued_at) == 60
    assert subject.token_id == "7"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"sub": ""}, ValueError, "owner is empty"),
        ({"sub": None}, TypeError, "a str, an int or a UUID"),
        ({"ttl": 0.5}, ValueError, "at least 1 second and at most 3153600000 seconds, not 0.5"),
        ({"ttl": float("nan")}, ValueError, "not nan"),
        ({"ttl": float("inf")}, ValueError, "at most 3153600000 seconds, not inf"),
        ({"jobs": [None]}, TypeError, "each a str or a UUID, not a value of type NoneType"),
        ({"jobs": "42"}, TypeError, r"a list of job ids, as in jobs=\['42'\]"),
        ({"can": "cancel"}, TypeError, r"a list of actions, as in can=\['cancel'\]"),
        ({"can": [7]}, TypeError, "can should be a list of strings, not of int"),
        ({"feeds": "all"}, TypeError, r"a list of names of feeds, as in feeds=\['all'\]"),
        ({"jobs": ["4 2"]}, InvalidJobId, "1 to 128 characters"),
        ({"private_key": "ssh-rsa A"}, ValueError, "private_key should be a private key in PEM"),
    ],
)
def test_invalid_argument_is_refused(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    arguments: dict[str, Any] = {"sub": "alice", "settings": Settings(jwt_secret=SECRET), **options}
    with pytest.raises(error, match=message):
        issue_token(**arguments)


def test_settings_without_a_signing_key_are_refused() -> None:
    settings = Settings(jwks_url="https://auth.example.com/jwks.json")
    with pytest.raises(SettingsError, match="JOBCAST_JWT_PRIVATE_KEY: one of them is needed"):
        issue_token("alice", settings=settings)


def test_missing_pyjwt_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jobcast.tokens", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'jobcast\[tokens\]'"):
        issue_token("alice", settings=Settings(jwt_secret=SECRET))
