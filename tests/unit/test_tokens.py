from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from jobcast.errors import SettingsError, TokenError
from jobcast.settings import Settings
from jobcast.tokens import TokenVerifier, mint

SECRET = "s" * 32


async def test_what_is_minted_verifies() -> None:
    token = mint(SECRET, "alice", jobs=["a", "b"], ttl=60, audience="jobs", issuer="me")
    settings = Settings(jwt_secret=SECRET, jwt_audience="jobs", jwt_issuer="me")
    subject = await TokenVerifier(settings).verify(token)
    assert subject.sub == "alice"
    assert subject.jobs == {"a", "b"}
    assert 0 < subject.expires_at - time.time() <= 61


@pytest.mark.parametrize("jobs", [None, "*", 7, {"*": 1}, [["x"]], [{}], ["x", 1]])
async def test_a_jobs_claim_is_a_list_of_strings(jobs: Any) -> None:
    claims = {"sub": "a", "exp": int(time.time()) + 60, "jobs": jobs}
    token = jwt.encode(claims, SECRET, algorithm="HS256")
    with pytest.raises(TokenError, match="jobs") as caught:
        await TokenVerifier(Settings(jwt_secret=SECRET)).verify(token)
    assert caught.value.code == "token_claims"


async def test_a_token_may_list_no_jobs() -> None:
    plain: dict[str, Any] = {"sub": "a", "exp": int(time.time()) + 60}
    for claims in (plain, {**plain, "jobs": []}):
        token = jwt.encode(claims, SECRET, algorithm="HS256")
        assert (await TokenVerifier(Settings(jwt_secret=SECRET)).verify(token)).jobs == frozenset()


def test_a_key_of_the_wrong_kind_stops_the_start() -> None:
    pem = public_pem(rsa.generate_private_key(public_exponent=65537, key_size=2048))
    TokenVerifier(Settings(jwt_public_key=pem))
    with pytest.raises(SettingsError, match="JOBCAST_JWT_PUBLIC_KEY is no key"):
        TokenVerifier(Settings(jwt_public_key=pem, jwt_algorithms=("ES256",)))
    with pytest.raises(SettingsError, match="JOBCAST_JWT_PUBLIC_KEY is no key"):
        TokenVerifier(Settings(jwt_public_key="-----BEGIN PUBLIC KEY-----\nAAAA"))


def public_pem(private: Any) -> str:
    encoded: bytes = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return encoded.decode()


@contextmanager
def key_server(keys: dict[str, Any]) -> Iterator[str]:
    """Serves public keys as a JWKS."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            sets = [
                {**json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key.public_key())), "kid": kid,
                 "use": "sig", "alg": "ES256"}
                for kid, key in keys.items()
            ]  # fmt: skip
            body = json.dumps({"keys": sets}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/jwks.json"
        finally:
            server.shutdown()
            thread.join()


async def test_keys_may_be_fetched() -> None:
    old, new, foreign = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
    keys = {"old": old, "new": new}

    def token(key: Any, kid: str) -> str:
        claims = {"sub": "alice", "exp": int(time.time()) + 60}
        return jwt.encode(claims, key, algorithm="ES256", headers={"kid": kid})

    with key_server(keys) as url:
        verifier = TokenVerifier(Settings(jwks_url=url))
        await verifier.check()
        assert (await verifier.verify(token(old, "old"))).sub == "alice"
        assert (await verifier.verify(token(new, "new"))).sub == "alice"
        for bad, kid, code in ((foreign, "old", "token_signature"), (foreign, "x", "token_key")):
            with pytest.raises(TokenError) as caught:
                await verifier.verify(token(bad, kid))
            assert caught.value.code == code
    with pytest.raises(TokenError) as caught:
        await TokenVerifier(Settings(jwks_url=url)).verify(token(old, "old"))
    assert caught.value.code == "unavailable"
    with pytest.raises(SettingsError, match="JOBCAST_JWKS_URL gives no keys"):
        await TokenVerifier(Settings(jwks_url=url)).check()
    with key_server({}) as url, pytest.raises(SettingsError, match="JOBCAST_JWKS_URL gives no"):
        await TokenVerifier(Settings(jwks_url=url)).check()
