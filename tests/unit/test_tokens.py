from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from jobcast import jwks
from jobcast.errors import SettingsError, TokenError
from jobcast.jwks_fetch import UnusableKeySet, fetch_signing_keys
from jobcast.realtime.revocations import DenyList
from jobcast.settings import Settings
from jobcast.tokens import LATEST_TIME, TokenVerifier, issue, mint
from jobcast.transports.revocations import Revocation
from tests.support import TIMEOUT, eventually
from tests.support.key_server import key_server, private_key

SECRET = "s" * 32
OTHER = "o" * 32


@pytest.fixture(autouse=True)
def long_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Allow slow answers of a busy machine, and disable repeated fetches of unknown keys."""
    monkeypatch.setattr(jwks, "FETCH_TIMEOUT", TIMEOUT)
    monkeypatch.setattr(jwks, "COOLDOWN", 3600)


def signed(claims: dict[str, Any], secret: str = SECRET, **headers: Any) -> str:
    """Return a token with exactly these claims, some of which ``jwt.encode`` would refuse."""
    payload = json.dumps({"sub": "alice", "exp": int(time.time()) + 60, **claims}).encode()
    return jwt.PyJWS().encode(payload, secret, algorithm="HS256", headers=headers or None)


async def refusal(settings: Settings, token: str) -> TokenError:
    with pytest.raises(TokenError) as caught:
        await TokenVerifier(settings).verify(token)
    return caught.value


async def test_minted_token_verifies() -> None:
    token = mint(SECRET, "alice", jobs=["a", "b"], ttl=60, audience="jobs", issuer="me")
    settings = Settings(jwt_secret=SECRET, jwt_audience="jobs", jwt_issuer="me")
    subject = await TokenVerifier(settings).verify(token)
    assert subject.sub == "alice"
    assert subject.jobs == {"a", "b"}
    assert 0 < subject.expires_at - time.time() <= 61


async def test_token_issued_in_the_second_of_a_revocation_is_later_than_it() -> None:
    verifier, deny_list = TokenVerifier(Settings(jwt_secret=SECRET)), DenyList()
    old = await verifier.verify(mint(SECRET, "alice"))
    revocation = Revocation(sub="alice", before=time.time(), until=time.time() + 60)
    new = await verifier.verify(mint(SECRET, "alice"))
    deny_list.add([revocation])
    assert (deny_list.denies(old), deny_list.denies(new)) == (True, False)


async def test_issued_token_fits_the_settings() -> None:
    settings = Settings(
        jwt_secrets=(f"new={SECRET * 2}", f"old={OTHER}"), jwt_algorithms=("HS384",),
        jwt_audience="jobs", jwt_issuer="me", jwt_max_lifetime=60,
    )  # fmt: skip
    token = issue(settings, "alice", ttl=3600, jobs=["a"], jti="7")
    subject = await TokenVerifier(settings).verify(token)
    assert (subject.sub, subject.token_id) == ("alice", "7")
    assert subject.jobs == {"a"}
    assert 0 < subject.expires_at - time.time() <= 60
    assert jwt.get_unverified_header(token)["kid"] == "new"


def test_issue_requires_a_signing_key() -> None:
    settings = Settings(jwks_url="https://auth.example.com/jwks.json")
    with pytest.raises(SettingsError, match="JOBCAST_JWT_SECRET is not set, nor are"):
        issue(settings, "alice", ttl=60)


async def test_jobs_claim_may_be_empty_or_missing() -> None:
    plain: dict[str, Any] = {"sub": "a", "exp": int(time.time()) + 60}
    for claims in (plain, {**plain, "jobs": []}):
        token = jwt.encode(claims, SECRET, algorithm="HS256")
        assert (await TokenVerifier(Settings(jwt_secret=SECRET)).verify(token)).jobs == frozenset()


def test_key_of_the_wrong_kind_is_a_settings_error() -> None:
    pem = public_pem(rsa.generate_private_key(public_exponent=65537, key_size=2048))
    TokenVerifier(Settings(jwt_public_key=pem))
    with pytest.raises(SettingsError, match="JOBCAST_JWT_PUBLIC_KEY is not a key"):
        TokenVerifier(Settings(jwt_public_key=pem, jwt_algorithms=("ES256",)))
    with pytest.raises(SettingsError, match="JOBCAST_JWT_PUBLIC_KEY is not a key"):
        TokenVerifier(Settings(jwt_public_key="-----BEGIN PUBLIC KEY-----\nAAAA"))


def public_pem(private: Any) -> str:
    encoded: bytes = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return encoded.decode()


@pytest.mark.parametrize(("sub", "subject"), [(42, "42"), (0, "0"), (-7, "-7"), ("007", "007")])
async def test_number_as_sub_becomes_its_digits(sub: Any, subject: str) -> None:
    verifier = TokenVerifier(Settings(jwt_secret=SECRET))
    assert (await verifier.verify(signed({"sub": sub}))).sub == subject


@pytest.mark.parametrize(
    ("sub", "message"),
    [
        (True, "not a boolean"),
        (4.2, "not a fraction"),
        (float("nan"), "not a fraction"),
        ([], "not an array"),
        ({}, "not an object"),
        ("", "is empty"),
    ],
)
async def test_sub_of_another_type_is_refused(sub: Any, message: str) -> None:
    problem = await refusal(Settings(jwt_secret=SECRET), signed({"sub": sub}))
    assert problem.code == "token_claims"
    assert message in problem.message


@pytest.mark.parametrize("name", ["jobs", "can", "feeds"])
@pytest.mark.parametrize(
    "value", [None, "42", 42, True, {}, {"42": 1}, ["42", 42], [["42"]], [None]]
)
async def test_grant_that_is_no_list_of_strings_is_refused(name: str, value: Any) -> None:
    payload = json.dumps({"sub": "alice", "exp": LATEST_TIME, name: value}).encode()
    token = jwt.PyJWS().encode(payload, SECRET, algorithm="HS256")
    problem = await refusal(Settings(jwt_secret=SECRET), token)
    assert problem.code == "token_claims"
    assert problem.message == f"the token's {name} should be a list of strings"


@pytest.mark.parametrize("value", [[], ["42"], ["*", "a b", ""]])
async def test_lists_of_strings_grant_jobs_actions_and_feeds(value: list[str]) -> None:
    token = signed({"jobs": value, "can": value, "feeds": value})
    subject = await TokenVerifier(Settings(jwt_secret=SECRET)).verify(token)
    assert subject.jobs == subject.can == subject.feeds == set(value)


@pytest.mark.parametrize("name", ["exp", "iat", "nbf"])
@pytest.mark.parametrize(
    "value",
    [
        LATEST_TIME + 1, 2**64, 10**400, float("inf"), float("-inf"), float("nan"), -1, -1e300,
        "1795420000", "soon", True, [], {},
    ],
)  # fmt: skip
async def test_invalid_time_claim_is_refused(name: str, value: Any) -> None:
    problem = await refusal(Settings(jwt_secret=SECRET), signed({name: value}))
    assert problem.code == "token_claims"
    assert f"the token's {name} should be a time" in problem.message


@pytest.mark.parametrize("exp", [LATEST_TIME, LATEST_TIME - 0.5])
async def test_token_may_expire_at_the_end_of_the_year_9999(exp: float) -> None:
    subject = await TokenVerifier(Settings(jwt_secret=SECRET)).verify(signed({"exp": exp}))
    assert subject.expires_at == exp


@pytest.mark.parametrize(
    ("claims", "code"),
    [
        ({"exp": 1}, "token_expired"),
        ({"exp": 0}, "token_expired"),
        ({"exp": None}, "token_claims"),
        ({"iat": None}, "token_claims"),
        ({"nbf": LATEST_TIME}, "token_not_yet_valid"),
        ({"iat": LATEST_TIME}, "token_not_yet_valid"),
        ({"jti": 7}, "token_claims"),
    ],
)
async def test_times_are_compared_with_now(claims: dict[str, Any], code: str) -> None:
    assert (await refusal(Settings(jwt_secret=SECRET), signed(claims))).code == code


async def test_token_with_too_long_lifetime_is_refused() -> None:
    settings, now = Settings(jwt_secret=SECRET, jwt_max_lifetime=3600), int(time.time())
    for good in (
        {"exp": now + 3600},
        {"iat": now, "exp": now + 3600},
        {"iat": now - 3000, "exp": now + 600},
    ):
        await TokenVerifier(settings).verify(signed(good))
    for bad in (
        {"exp": now + 3700},
        {"iat": now, "exp": now + 3700},
        {"iat": now - 3600, "exp": now + 600},
        {"iat": 0, "exp": now + 60},
    ):
        problem = await refusal(settings, signed(bad))
        assert problem.code == "token_lifetime"
        assert "3600 s" in problem.message


async def test_each_of_several_secrets_verifies() -> None:
    settings = Settings.load({"JOBCAST_JWT_SECRETS": f"new={SECRET}, {OTHER}"})
    verifier = TokenVerifier(settings)
    for token in (
        signed({}),
        signed({}, OTHER),
        signed({}, kid="new"),
        signed({}, OTHER, kid="another"),
    ):
        assert (await verifier.verify(token)).sub == "alice"
    # A token with a key id is verified only by the secret with that id.
    assert (await refusal(settings, signed({}, OTHER, kid="new"))).code == "token_signature"
    assert (await refusal(settings, signed({}, "x" * 32))).code == "token_signature"


async def test_unknown_key_id_is_refused_if_each_secret_has_an_id() -> None:
    settings = Settings.load({"JOBCAST_JWT_SECRETS": f"new={SECRET}\nold={OTHER}"})
    assert (await TokenVerifier(settings).verify(signed({}, OTHER))).sub == "alice"
    assert (await refusal(settings, signed({}, kid="older"))).code == "token_key"


async def test_each_of_several_public_keys_verifies_with_its_own_algorithm() -> None:
    rsa_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    ec_key, foreign = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    pems = f"{public_pem(rsa_key)}\n2026-01={public_pem(ec_key)}"
    settings = Settings.load({"JOBCAST_JWT_PUBLIC_KEYS": pems})
    verifier = TokenVerifier(settings)

    def token(key: Any, algorithm: str, **headers: Any) -> str:
        claims = {"sub": "alice", "exp": int(time.time()) + 60}
        return jwt.encode(claims, key, algorithm=algorithm, headers=headers)

    for good in (
        token(rsa_key, "RS256"),
        token(ec_key, "ES256"),
        token(ec_key, "ES256", kid="2026-01"),
        token(rsa_key, "RS256", kid="another"),
    ):
        assert (await verifier.verify(good)).sub == "alice"
    for bad, code in (
        (token(foreign, "ES256"), "token_signature"),
        (token(rsa_key, "RS256", kid="2026-01"), "token_algorithm"),
        (token(rsa_key, "PS256"), "token_algorithm"),
        (signed({}), "token_algorithm"),
    ):
        assert (await refusal(settings, bad)).code == code


def test_each_of_several_public_keys_must_be_valid() -> None:
    good = public_pem(ec.generate_private_key(ec.SECP256R1()))
    broken = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"
    settings = Settings.load({"JOBCAST_JWT_PUBLIC_KEYS": f"{good},old={broken}"})
    with pytest.raises(SettingsError, match="JOBCAST_JWT_PUBLIC_KEYS is not a key 'old' for the"):
        TokenVerifier(settings)


@contextmanager
def verifying(url: str) -> Iterator[TokenVerifier]:
    verifier = TokenVerifier(Settings(jwks_url=url))
    try:
        yield verifier
    finally:
        verifier.close()


async def code_of(verifier: TokenVerifier, token: str) -> str:
    with pytest.raises(TokenError) as caught:
        await verifier.verify(token)
    return caught.value.code


async def test_keys_are_fetched_from_jwks_url() -> None:
    with key_server({"old": private_key(), "new": private_key()}) as server:
        with verifying(server.url) as verifier:
            await verifier.check()
            assert (await verifier.verify(server.token("old"))).sub == "alice"
            assert (await verifier.verify(server.token("new"))).sub == "alice"
            assert await code_of(verifier, server.token("old", private_key())) == "token_signature"
            assert await code_of(verifier, server.token("x", private_key())) == "token_key"
            assert await code_of(verifier, signed({})) == "token_key"
        token = server.token("old")
    with verifying(server.url) as verifier:
        assert await code_of(verifier, token) == "unavailable"
        with pytest.raises(SettingsError, match="JOBCAST_JWKS_URL returns no usable keys"):
            await verifier.check()
    with key_server({}) as server, verifying(server.url) as verifier:
        with pytest.raises(SettingsError, match="JOBCAST_JWKS_URL returns no usable keys"):
            await verifier.check()


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b'{"keys": [' + b" " * 2**20 + b"]}", "larger than the 1048576 bytes"),
        (json.dumps({"keys": [{"kty": "oct"}] * 1001}).encode(), "has 1001 keys; at most 1000"),
        (b'{"keys": []}', "cannot be used"),
        (b"[]", "is not a JSON object"),
        (b"<html>", "is not JSON:"),
        (b"[" * 100_000, "is not JSON:"),
    ],
    ids=["bytes", "keys", "empty", "list", "page", "nested"],
)
async def test_unusable_jwks_is_refused_with_the_reason(body: bytes, problem: str) -> None:
    with key_server({"good": private_key()}) as server, verifying(server.url) as verifier:
        server.document = body
        assert await code_of(verifier, server.token("good")) == "unavailable"
        with pytest.raises(
            SettingsError, match=f"JOBCAST_JWKS_URL returns no usable keys.*{problem}"
        ):
            await verifier.check()


def test_slow_jwks_response_is_abandoned() -> None:
    with key_server({"good": private_key()}) as server, pytest.raises(UnusableKeySet) as caught:
        fetch_signing_keys(server.url, TIMEOUT, total=0)
    assert "did not arrive within 0 s" in str(caught.value)


def test_jwks_fetch_follows_no_redirect() -> None:
    with key_server({"good": private_key()}) as server:
        server.redirects_to = f"{server.url}?elsewhere"
        with pytest.raises(UnusableKeySet, match="302"):
            fetch_signing_keys(server.url, TIMEOUT, TIMEOUT)
        assert server.requests == 1


@pytest.mark.parametrize("closed", [True, False])
def test_verifier_works_in_consecutive_event_loops(
    monkeypatch: pytest.MonkeyPatch, closed: bool
) -> None:
    monkeypatch.setattr(jwks, "COOLDOWN", 0)
    monkeypatch.setattr(jwks, "REFRESH_INTERVAL", 0.1)
    keys = {"old": private_key()}
    with key_server(keys) as server, verifying(server.url) as verifier:

        async def serve(kid: str) -> None:
            verifier.start()
            assert (await verifier.verify(server.token(kid))).sub == "alice"
            before = server.requests
            await eventually(lambda: server.requests > before + 1, "fetches in the background")
            if closed:
                verifier.close()

        async def leave_during_a_fetch() -> None:
            verifier.start()
            server.answers.clear()
            before = server.requests
            await eventually(lambda: server.requests > before, "a fetch")

        asyncio.run(serve("old"))
        asyncio.run(leave_during_a_fetch())
        keys["new"] = private_key()
        server.answers.set()
        asyncio.run(serve("new"))


async def test_cached_key_works_while_the_endpoint_hangs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only tokens with unknown key ids wait for an unresponsive endpoint."""
    monkeypatch.setattr(jwks, "COOLDOWN", 0)
    with key_server({"good": private_key()}) as server, verifying(server.url) as verifier:
        await verifier.check()
        server.answers.clear()
        waiting = [
            asyncio.create_task(code_of(verifier, server.token(f"x{n}", private_key())))
            for n in range(50)
        ]
        await eventually(lambda: server.requests == 2, "request for the unknown key ids")
        for _ in range(20):
            assert (await verifier.verify(server.token("good"))).sub == "alice"
        assert not any(token.done() for token in waiting)
        server.answers.set()
        # All of them shared one request.
        assert set(await asyncio.gather(*waiting)) == {"token_key"}
        assert server.requests == 2


async def test_wait_for_an_unresponsive_endpoint_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jwks, "FETCH_TIMEOUT", 0.2)
    with key_server({"good": private_key()}) as server, verifying(server.url) as verifier:
        server.answers.clear()
        codes = [code_of(verifier, server.token("good")) for _ in range(50)]
        assert set(await asyncio.gather(*codes)) == {"unavailable"}
        with pytest.raises(SettingsError, match="JOBCAST_JWKS_URL returns no usable keys"):
            await verifier.check()


async def test_endless_fetch_is_abandoned(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("FETCH_TIMEOUT", 60), ("GIVEN_UP", 0.2), ("RETRY_DELAY", 0.1)):
        monkeypatch.setattr(jwks, name, seconds)
    with key_server({"good": private_key()}) as server, verifying(server.url) as verifier:
        server.answers.clear()
        assert await code_of(verifier, server.token("good")) == "unavailable"
        server.answers.set()
        assert await eventually_verified(verifier, server.token("good")) == "alice"


async def eventually_verified(verifier: TokenVerifier, token: str) -> str:
    """Verify a token until its key has been fetched, and return the subject."""
    async with asyncio.timeout(TIMEOUT):
        while True:
            try:
                return (await verifier.verify(token)).sub
            except TokenError as exc:
                if exc.code != "unavailable":
                    raise
            await asyncio.sleep(0.02)


async def test_unknown_key_ids_add_no_background_fetches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jwks, "COOLDOWN", 0)
    loop = asyncio.get_running_loop()
    call_later, timers = loop.call_later, list[asyncio.TimerHandle]()

    def recorded(delay: float, *args: Any, **options: Any) -> asyncio.TimerHandle:
        timer = call_later(delay, *args, **options)
        if delay > jwks.FETCH_TIMEOUT:
            timers.append(timer)
        return timer

    monkeypatch.setattr(loop, "call_later", recorded)
    with key_server({"good": private_key()}) as server, verifying(server.url) as verifier:
        for number in range(5):
            token = server.token(f"unknown {number}", private_key())
            assert await code_of(verifier, token) == "token_key"
        assert len([timer for timer in timers if not timer.cancelled()]) == 1


async def test_waiting_tokens_share_one_fetch() -> None:
    with key_server({"good": private_key()}) as server, verifying(server.url) as verifier:
        server.answers.clear()
        waiting = [asyncio.create_task(verifier.verify(server.token("good"))) for _ in range(20)]
        await eventually(lambda: server.requests == 1, "request")
        server.answers.set()
        assert {subject.sub for subject in await asyncio.gather(*waiting)} == {"alice"}
        assert server.requests == 1


async def test_unknown_key_ids_start_no_fetch_within_the_cooldown() -> None:
    with key_server({"good": private_key()}) as server, verifying(server.url) as verifier:
        await verifier.verify(server.token("good"))
        for number in range(50):
            token = server.token(f"x{number}", private_key())
            assert await code_of(verifier, token) == "token_key"
        assert server.requests == 1


async def test_new_key_is_found_after_the_cooldown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwks, "COOLDOWN", 0)
    with key_server({"old": private_key()}) as server, verifying(server.url) as verifier:
        await verifier.verify(server.token("old"))
        server.keys["new"] = private_key()
        assert (await verifier.verify(server.token("new"))).sub == "alice"
        assert server.requests == 2


async def test_keys_are_fetched_again_in_the_background(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwks, "REFRESH_INTERVAL", 0.05)
    with key_server({"old": private_key()}) as server, verifying(server.url) as verifier:
        verifier.start()
        await verifier.verify(server.token("old"))
        gone = server.token("old")
        server.keys = {"new": private_key()}
        # The background fetch also removes keys that the issuer has withdrawn.
        await eventually(lambda: "new" in verifier._keys._keys, "new key")  # type: ignore[attr-defined]
        assert (await verifier.verify(server.token("new"))).sub == "alice"
        assert await code_of(verifier, gone) == "token_key"


async def test_stale_keys_stay_in_use_while_the_endpoint_fails(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(jwks, "REFRESH_INTERVAL", 0.02)
    monkeypatch.setattr(jwks, "RETRY_DELAY", 0.02)
    caplog.set_level(logging.INFO)
    with key_server({"good": private_key()}) as server, verifying(server.url) as verifier:
        await verifier.verify(server.token("good"))
        good, kept = server.token("good"), server.keys
        server.keys = {}  # a JWKS without a key is a failed fetch
        await eventually(lambda: "could not fetch the keys" in caplog.text, "failure")
        failed_at = server.requests
        await eventually(lambda: server.requests > failed_at + 2, "further tries")
        assert (await verifier.verify(good)).sub == "alice"
        assert await code_of(verifier, mint_with(private_key())) == "unavailable"
        server.keys = kept
        await eventually(lambda: "fetched the keys of JOBCAST_JWKS_URL again" in caplog.text, "key")
        assert caplog.text.count("could not fetch the keys") == 1


def mint_with(key: Any) -> str:
    claims = {"sub": "alice", "exp": int(time.time()) + 60}
    return jwt.encode(claims, key, algorithm="ES256", headers={"kid": "unknown"})
